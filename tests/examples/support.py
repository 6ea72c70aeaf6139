"""Real processes for the tests of the examples: started, waited for by what they print, and always reaped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from trio_ipc import Call

ROOT = Path(__file__).resolve().parents[2]

#: Far more than anything here takes, even on a busy machine. Nothing waits that long unless it is broken.
DEADLINE = 60.0

CALL = Call(peer=None, deadline=math.inf, connection=1)


class Program:
    """A process whose output is read as it comes."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.pid = process.pid
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdout = _Lines(process.stdout)
        self.stderr = _Lines(process.stderr)

    async def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(data)

    async def signal(self, number: int) -> None:
        """Raise a signal in one of the example programs."""
        if sys.platform == "win32":
            await self.write(b"%d\n" % number)
        else:
            self.process.send_signal(number)

    async def complaint(self) -> str | None:
        """Return the next line on standard error, None at its end, and read standard output meanwhile.

        A program that goes on writing where nobody reads stops in that write as soon as the pipe is full, and
        what is waited for never comes.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.stdout.rest)
            line = await self.stderr.next()
            nursery.cancel_scope.cancel()
        return line

    async def end(self) -> int:
        """Read both outputs to their ends; return the exit status."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.stdout.rest)
            nursery.start_soon(self.stderr.rest)
        return await self.process.wait()


class _Lines:
    def __init__(self, pipe: trio.abc.ReceiveStream) -> None:
        self._pipe = pipe
        self._unread = b""
        self.seen: list[str] = []

    async def next(self) -> str | None:
        """Return the next line, None at the end."""
        while b"\n" not in self._unread:
            received = await self._pipe.receive_some()
            if not received:
                if not self._unread:
                    return None
                received = b"\n"
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        self.seen.append(line.decode().removesuffix("\r"))
        return self.seen[-1]

    async def until(self, wanted: Callable[[str], bool]) -> str:
        """Return the first line that is wanted."""
        while (line := await self.next()) is not None:
            if wanted(line):
                return line
        raise AssertionError(f"it ended without that line, after {self.seen}")

    async def rest(self) -> list[str]:
        """Return all lines from the first to the last."""
        while await self.next() is not None:
            pass
        return self.seen

    async def close(self) -> None:
        await self._pipe.aclose()


@contextlib.asynccontextmanager
async def spawn(
    *command: str | bytes | Path, environ: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
) -> AsyncIterator[Program]:
    """Run a program in the project's root for the length of a block, under a deadline."""
    with trio.fail_after(DEADLINE):
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=clean_environment() | dict(environ or {}),
            pass_fds=pass_fds,
        )
        try:
            yield Program(process)
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
                for pipe in (process.stdin, process.stdout, process.stderr):
                    assert pipe is not None
                    await pipe.aclose()


def clean_environment() -> dict[str, str]:
    """Return this process's environment, less what would configure the programs under test."""
    ours = (
        "TRIO_IPC_",
        "NOTIFY_",
        "WATCHDOG_",
        "LISTEN_",
        "COLUMNS",
        "FORCE_COLOR",
        "COVERAGE_",
        "PYTHONUNBUFFERED",
    )
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@contextlib.asynccontextmanager
async def blocked_child(*arguments: str | bytes) -> AsyncIterator[Program]:
    """Run a Python that waits for its standard input, with these arguments on its command line."""
    code = "print('ready', flush=True); input()"
    async with spawn(sys.executable, "-c", code, *arguments) as child:
        assert await child.stdout.next() == "ready"
        yield child


@contextlib.contextmanager
def zombie() -> Iterator[int]:
    """Have a process that has ended and that nobody has asked for its status; give its pid."""
    assert sys.platform != "win32"
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        yield child.pid


@contextlib.asynccontextmanager
async def running_copy(executable: Path) -> AsyncIterator[Program]:
    """Run a copy of the fixture `executable` until it says that it runs."""
    options = ("/q", "/k", "echo ready") if sys.platform == "win32" else ()
    async with spawn(executable, *options) as copy:
        if sys.platform != "win32":
            await copy.write(b"ready\n")
        assert await copy.stdout.next() == "ready"
        yield copy


#: Runs a module as a program, and raises in it, for each line on standard input, the signal of that number:
#: what the C runtime does when a Windows console calls, in a thread of its own.
_SIGNALLED = """
import runpy, signal, sys, threading

def listen():
    for line in sys.stdin:
        signal.raise_signal(int(line))

threading.Thread(target=listen, daemon=True).start()
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def example(name: str, *arguments: str) -> list[str]:
    """Return the command line of one of the example programs."""
    # A Windows process takes signals from its console alone, and tests have none.
    run = ("-c", _SIGNALLED) if sys.platform == "win32" else ("-m",)
    return [sys.executable, *run, f"examples.{name}", *arguments]


def procmond(endpoint: str | Path, *options: str) -> list[str]:
    """Return the collector's command line."""
    return example("procmond", "--endpoint", str(endpoint), *options)


def agent(endpoint: str | Path, *options: str) -> list[str]:
    """Return the agent's command line."""
    return example("agent", "--endpoint", str(endpoint), *options)


@contextlib.asynccontextmanager
async def collector_at(
    endpoint: str | Path, *options: str, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Program]:
    """Run a collector that is ready for clients."""
    async with spawn(*procmond(endpoint, *options), environ=environ) as program:
        assert await program.stdout.next() == f"listening on {endpoint}"
        yield program


async def fails_with_one_line(
    command: Sequence[str], environ: Mapping[str, str] | None = None, *, status: int = 1
) -> str:
    """Expect a program to fail, without a word on stdout; return its one line on stderr."""
    async with spawn(*command, environ=environ) as program:
        assert await program.end() == status, program.stderr.seen
        assert program.stdout.seen == []
        (line,) = program.stderr.seen
        return line


async def once(
    endpoint: str | Path, *options: str, environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run the agent once; return its JSON document."""
    async with spawn(*agent(endpoint, "--once", "--json", *options), environ=environ) as program:
        assert await program.end() == 0, program.stderr.seen
        assert program.stderr.seen == []
        (line,) = program.stdout.seen
        document: dict[str, Any] = json.loads(line)
        return document


async def until_listening(endpoint: Path) -> None:
    """Wait for a collector whose announcement nobody can read."""
    while True:
        try:
            connection = await trio.open_unix_socket(str(endpoint))
        except OSError:
            await trio.sleep(0.01)
        else:
            return await connection.aclose()


def sha256_of(path: Path | str) -> str:
    """Return a file's digest, computed without the collector."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def delete(path: Path) -> None:
    path.unlink()


def rename(path: Path, to: Path) -> None:
    path.rename(to)


def replace(path: Path, content: bytes = b"something else") -> None:
    """Put another file in a file's place, as a package manager would."""
    substitute = path.with_name("substitute")
    substitute.write_bytes(content)
    substitute.rename(path)


def make_fifo(path: Path) -> None:
    assert sys.platform != "win32"
    os.mkfifo(path)
