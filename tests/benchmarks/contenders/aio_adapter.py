"""This project's adapter for asyncio programs, as docs/asyncio.md tells users to use it.

Its server is the one that ``trio_ipc`` has. A caller has a client of its own, with ``max_in_flight=1`` as
that is the fastest for one alone; callers that share one, which are tasks, have what is the default.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from tests.benchmarks.loads import Job, Use
from tests.benchmarks.messages import request
from trio_ipc.aio import open_client
from trio_ipc.daemoneye import DETECTION

from . import ours
from .base import AsyncClient
from .on_asyncio import AsyncioContender


class AioAdapter(AsyncioContender):
    shared = frozenset({Use.MANY})

    def __init__(self) -> None:
        self._server = ours.contender("trio_ipc")

    def serve(self, path: str) -> None:
        self._server.serve(path)

    @asynccontextmanager
    async def connect(self, job: Job) -> AsyncIterator[AsyncClient]:
        config = self._server.config(job.path)
        message = request(job.message)
        in_flight = 64 if job.use is Use.MANY else 1
        async with open_client(DETECTION, config, max_in_flight=in_flight) as client:
            yield AsyncClient(partial(client.call, message))


def contender(_: str) -> AioAdapter:
    return AioAdapter()
