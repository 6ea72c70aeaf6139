"""The peers' programs as processes: started, spoken to line by line, and always ended."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import attrs
import trio

from trio_ipc.daemoneye import DetectionResult, DetectionTask

from .peers import BUILT, ROOT, Peer

#: Seconds after which anything here is broken. Nothing waits that long otherwise.
PATIENCE: Final = 60.0

MIB: Final = 1024 * 1024


@attrs.frozen
class Settings:
    """What a program is told."""

    variant: str = "ieee"
    max_frame_bytes: int = MIB
    places: int = 16
    timeout_ms: int = 30_000


class PeerError(Exception):
    """A client's call failed. ``results`` is what was answered before."""

    def __init__(self, kind: str, text: str, results: tuple[DetectionResult, ...] = ()) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.results = results


class UnsupportedError(Exception):
    """A client has no such command."""


class Program:
    """A process."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._unread = b""

    async def read_line(self) -> str:
        """Return the next line that it prints.

        Raises:
            EOFError: it ended.
        """
        assert self.process.stdout is not None
        pieces = [self._unread]
        while b"\n" not in pieces[-1]:
            pieces.append(bytes(await self.process.stdout.receive_some()))
            if not pieces[-1]:
                raise EOFError(f"it ended with status {await self.process.wait()}")
        line, _, self._unread = b"".join(pieces).partition(b"\n")
        return line.decode()

    async def write_line(self, line: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line.encode() + b"\n")

    async def end(self) -> int:
        """Close its standard input, and return the status with which it ends."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        return await self.process.wait()

    async def kill(self) -> None:
        """End it at once, as a crash does."""
        self.process.kill()
        await self.process.wait()


class ClientProgram(Program):
    """A client, and its commands."""

    async def open(self, endpoint: str, settings: Settings) -> None:
        await self.write_line(
            f"open {endpoint} {settings.variant} {settings.max_frame_bytes} {settings.timeout_ms}"
        )
        assert await self._answer() == "ok"

    async def close(self) -> None:
        await self.write_line("close")
        assert await self._answer() == "ok"

    async def call(self, *tasks: DetectionTask, last: bool = False) -> list[DetectionResult]:
        """Make calls, all of which are sent ahead; ``last`` closes the sending side behind them."""
        await self.write_line(" ".join(["last" if last else "call", *map(_hex, tasks)]))
        results: list[DetectionResult] = []
        for _ in tasks:
            try:
                word, data = (await self._answer()).split()
            except PeerError as exc:
                exc.results = tuple(results)
                raise
            assert word == "result"
            results.append(DetectionResult.FromString(bytes.fromhex(data.strip("-"))))
        if last:
            assert await self._answer() == "end"
        return results

    async def recode(self, message: DetectionTask | DetectionResult) -> bytes:
        """Have it decode and encode a message."""
        kind = "task" if isinstance(message, DetectionTask) else "result"
        return await self.recode_bytes(kind, message.SerializeToString())

    async def recode_bytes(self, kind: str, data: bytes) -> bytes:
        await self.write_line(f"recode {kind} {data.hex() or '-'}")
        word, recoded = (await self._answer()).split()
        assert word == "message"
        return bytes.fromhex(recoded.strip("-"))

    async def _answer(self) -> str:
        line = await self.read_line()
        if line == "unsupported":
            raise UnsupportedError
        if line.startswith("error "):
            kind, _, text = line.removeprefix("error ").partition(" ")
            raise PeerError(kind, text)
        return line


def _hex(message: DetectionTask) -> str:
    return message.SerializeToString().hex() or "-"


@asynccontextmanager
async def started(peer: Peer, *arguments: str) -> AsyncIterator[trio.Process]:
    """A program for the length of a block. What it complains of goes to a log."""
    # With bytecode, as what is installed has it: whole runs start hundreds of them.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TRIO_IPC_")}
    environ |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(ROOT / "build" / "bytecode")}
    os.makedirs(BUILT, exist_ok=True)
    with open(BUILT / "programs.log", "ab") as log:
        process = await trio.lowlevel.open_process(
            [*peer.command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=environ,
        )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            process.kill()  # does nothing to one that has ended
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                await pipe.aclose()


@asynccontextmanager
async def client(peer: Peer) -> AsyncIterator[ClientProgram]:
    async with started(peer, "call") as process:
        yield ClientProgram(process)


@asynccontextmanager
async def server(peer: Peer, endpoint: str, settings: Settings) -> AsyncIterator[Program]:
    """A server that listens.

    Raises:
        EOFError: it ended instead.
    """
    words = (settings.variant, settings.max_frame_bytes, settings.places, settings.timeout_ms)
    async with started(peer, "serve", endpoint, *map(str, words)) as process:
        program = Program(process)
        assert await program.read_line() == "listening"
        yield program


@contextmanager
def failing(*kinds: str) -> Iterator[None]:
    """A block in which a client's call has to fail, in one of these ways."""
    try:
        yield
    except PeerError as exc:
        if exc.kind not in kinds:
            raise AssertionError(f"it failed in another way than {kinds}") from exc
    else:
        raise AssertionError(f"it did not fail: {kinds}")
