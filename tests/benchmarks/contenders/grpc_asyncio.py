"""gRPC's asyncio API over a Unix socket: generic handlers with the same messages, one channel for all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import grpc.aio

from tests.benchmarks.loads import Job, Use
from tests.benchmarks.messages import DetectionResult, DetectionTask, answer, request

from .base import AsyncClient
from .grpc_sync import OWN_CONNECTION, handlers, stub
from .on_asyncio import AsyncioContender


async def _execute(task: DetectionTask, _: object) -> DetectionResult:
    return answer(task)


class GrpcAsyncio(AsyncioContender):
    shared = frozenset({Use.MANY, Use.PIPELINED})

    def serve(self, path: str) -> None:
        self.run(lambda: self._serve(path))

    @staticmethod
    async def _serve(path: str) -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handlers(_execute),))
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        await server.wait_for_termination()

    @asynccontextmanager
    async def connect(self, job: Job) -> AsyncIterator[AsyncClient]:
        async with grpc.aio.insecure_channel(f"unix:{job.path}", options=OWN_CONNECTION) as channel:
            yield AsyncClient(partial(stub(channel), request(job.message)))


def contender(_: str) -> GrpcAsyncio:
    return GrpcAsyncio()
