"""gRPC's synchronous API over a Unix socket: generic handlers with the same messages.

One channel for all callers, which are threads, as gRPC's performance guide asks for; calls that are
pipelined are futures on that channel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc

from tests.benchmarks.loads import Job, Use
from tests.benchmarks.messages import DetectionResult, DetectionTask, answer, request

from .base import BlockingContender, Client

SERVICE = "benchmark.Detection"
METHOD = "Execute"
_SERVER_THREADS = 16
#: Without it channels to the same address share a connection.
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


def handlers(execute: Any) -> Any:
    method = grpc.unary_unary_rpc_method_handler(
        execute,
        request_deserializer=DetectionTask.FromString,
        response_serializer=DetectionResult.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})


def stub(channel: Any) -> Any:
    return channel.unary_unary(
        f"/{SERVICE}/{METHOD}",
        request_serializer=DetectionTask.SerializeToString,
        response_deserializer=DetectionResult.FromString,
    )


def _execute(task: DetectionTask, _: object) -> DetectionResult:
    return answer(task)


class GrpcSync(BlockingContender):
    shared = frozenset({Use.MANY, Use.PIPELINED})

    def serve(self, path: str) -> None:
        server = grpc.server(ThreadPoolExecutor(_SERVER_THREADS))
        server.add_generic_rpc_handlers((handlers(_execute),))
        server.add_insecure_port(f"unix:{path}")
        server.start()
        server.wait_for_termination()

    @contextmanager
    def connect(self, job: Job) -> Iterator[Client]:
        task = request(job.message)
        with grpc.insecure_channel(f"unix:{job.path}", options=OWN_CONNECTION) as channel:
            execute = stub(channel)

            def burst(number: int) -> Sequence[DetectionResult]:
                return [future.result() for future in [execute.future(task) for _ in range(number)]]

            yield Client(partial(execute, task), burst)


def contender(_: str) -> GrpcSync:
    return GrpcSync()
