"""The processes of a contender, and talking to them. None outlives the block that it was started in."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import attrs

from .contenders import CONTENDERS
from .loads import Figures, Job, Sample, Use
from .messages import MINIMAL
from .workers import Worker, worker

_WORKER: Final = "tests.benchmarks.worker"


def _contender(role: str, name: str, log: str, *arguments: str) -> AbstractAsyncContextManager[Worker]:
    return worker(_WORKER, role, name, *arguments, label=CONTENDERS[name].label, log=log)


@attrs.frozen
class Pair:
    """A server that answers, and a client process for it."""

    name: str
    path: str
    server: Worker
    client: Worker
    seconds_to_first_response: float

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
    async with _contender("call", name, f"{directory}/{name}.client.log") as started:
        left_out = (await started.answer())["left_out"]
        yield started if left_out is None else left_out


@asynccontextmanager
async def serving(started: Worker, directory: str, tag: str) -> AsyncIterator[Pair]:
    """A server for a client, for the length of a block, which begins when it has answered once."""
    name = started.name
    path = f"{directory}/{name}.{tag}"
    begin = time.monotonic()
    async with _contender("serve", name, f"{directory}/{name}.server.log", path) as server:
        job = Job("reach", Use.CONNECT, MINIMAL, path, server.pid)
        reached = (await started.tell(job))["seconds"]
        yield Pair(name, path, server, started, reached - begin)
