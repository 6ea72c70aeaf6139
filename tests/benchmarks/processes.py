"""The processes of a contender, and talking to them. None outlives the block that it was started in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio

from .contenders import CONTENDERS
from .loads import Figures, Job, Sample, Use
from .messages import MINIMAL

ROOT: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_WORKER: Final = "tests.benchmarks.worker"

#: Seconds over what was asked for, until a process counts as hung.
_PATIENCE: Final = 60.0


def environment() -> dict[str, str]:
    """Return what every process is started with.

    This project runs from its source tree, where it may have no bytecode, and others as pip has installed
    them, with theirs. Here all of them have it from the second start on.
    """
    bytecode = os.path.join(ROOT, "build", "bytecode")
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": bytecode}


class ContenderError(Exception):
    """A contender's process failed; the message has what it said."""


class Worker:
    """A process of a contender at work."""

    def __init__(self, name: str, process: trio.Process, log: str) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._log = log
        self._unread = b""

    async def tell(self, job: Job) -> dict[str, Any]:
        """Have a client do a job; return what it answers."""
        assert self._process.stdin is not None
        try:
            with trio.fail_after(job.seconds * 4 + _PATIENCE):
                await self._process.stdin.send_all(json.dumps(job._asdict()).encode() + b"\n")
                return await self.answer()
        except (trio.BrokenResourceError, trio.TooSlowError) as exc:
            raise self._failed(repr(exc)) from exc

    async def answer(self) -> dict[str, Any]:
        """Read one line."""
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            received = await self._process.stdout.receive_some()
            if not received:
                raise self._failed(f"it ended with status {await self._process.wait()}")
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failed(self, what: str) -> ContenderError:
        with open(self._log, encoding="utf-8", errors="replace") as file:
            said = file.read()[-2_000:]
        return ContenderError(f"{CONTENDERS[self.name].label}: {what}\n{said}".rstrip())


@asynccontextmanager
async def worker(role: str, name: str, log: str, *arguments: str) -> AsyncIterator[Worker]:
    """Run a process for the length of a block."""
    with open(log, "ab") as errors:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", _WORKER, role, name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env=environment(),
            start_new_session=True,  # Ctrl-C is for the suite, which ends them
        )
    try:
        yield Worker(name, process, log)
    finally:
        with trio.CancelScope(shield=True):
            process.kill()  # does nothing to one that has ended
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    await pipe.aclose()


@attrs.frozen
class Pair:
    """A server that answers, and a client process for it."""

    name: str
    path: str
    server: Worker
    client: Worker
    seconds_to_first_answer: float

    async def time(
        self, use: Use, message: str, number: int, seconds: float, least: int, *, pause_us: int = 0
    ) -> Sample:
        job = self._job("time", use, message, number)
        job = job._replace(seconds=seconds, least=least, pause_us=pause_us)
        return Sample(**await self.client.tell(job))

    async def idle(self, connections: int, seconds: float) -> Figures:
        job = self._job("idle", Use.SEPARATE, MINIMAL, connections)._replace(seconds=seconds)
        return Figures(**await self.client.tell(job))

    def _job(self, action: str, use: Use, message: str, number: int) -> Job:
        return Job(action, use, message, self.path, self.server.pid, number)


@asynccontextmanager
async def client(name: str, directory: str) -> AsyncIterator[Worker | str]:
    """A client process for the length of a block; or, if the contender is left out, the reason."""
    async with worker("call", name, f"{directory}/{name}.client.log") as started:
        left_out = (await started.answer())["left_out"]
        yield started if left_out is None else left_out


@asynccontextmanager
async def serving(started: Worker, directory: str, tag: str) -> AsyncIterator[Pair]:
    """A server for a client, for the length of a block, which begins when it has answered once."""
    name = started.name
    path = f"{directory}/{name}.{tag}"
    begin = time.monotonic()
    async with worker("serve", name, f"{directory}/{name}.server.log", path) as server:
        job = Job("reach", Use.CONNECT, MINIMAL, path, server.pid)
        reached = (await started.tell(job))["seconds"]
        yield Pair(name, path, server, started, reached - begin)
