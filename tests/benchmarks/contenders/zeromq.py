"""ZeroMQ over ``ipc``: REQ and REP for one caller at a time, DEALER and ROUTER for what is pipelined.

Many callers are threads with a REQ socket each, of one context: sockets must not be shared by threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import zmq

from tests.benchmarks.loads import Job, Use
from tests.benchmarks.messages import DetectionResult, DetectionTask, answer, request

from .base import BlockingContender, Client


def _reply(socket: Any) -> None:
    while True:
        task = DetectionTask.FromString(socket.recv())
        socket.send(answer(task).SerializeToString())


def _route(socket: Any) -> None:
    while True:
        *route, body = socket.recv_multipart()
        task = DetectionTask.FromString(body)
        socket.send_multipart([*route, answer(task).SerializeToString()])


class ZeroMq(BlockingContender):
    def __init__(self) -> None:
        self._context = zmq.Context()

    def serve(self, path: str) -> None:
        router = self._context.socket(zmq.ROUTER)
        router.bind(f"ipc://{path}.router")
        threading.Thread(target=_route, args=(router,)).start()
        replier = self._context.socket(zmq.REP)
        replier.bind(f"ipc://{path}")
        _reply(replier)

    @contextmanager
    def connect(self, job: Job) -> Iterator[Client]:
        task = request(job.message)
        pipelined = job.use is Use.PIPELINED
        with self._context.socket(zmq.DEALER if pipelined else zmq.REQ) as socket:
            socket.connect(f"ipc://{job.path}.router" if pipelined else f"ipc://{job.path}")

            def call() -> DetectionResult:
                socket.send(task.SerializeToString())
                return DetectionResult.FromString(socket.recv())

            def burst(number: int) -> Sequence[DetectionResult]:
                for _ in range(number):
                    socket.send(task.SerializeToString())
                return [DetectionResult.FromString(socket.recv()) for _ in range(number)]

            yield Client(call, burst)


def contender(_: str) -> ZeroMq:
    return ZeroMq()
