"""``multiprocessing.connection``: the standard library's own messages, a thread for each connection."""

from __future__ import annotations

import multiprocessing.connection
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, Listener

from tests.benchmarks.loads import Job
from tests.benchmarks.messages import DetectionResult, DetectionTask, answer, request

from .base import BlockingContender, Client


def _serve(connection: Connection) -> None:
    with connection:
        while True:
            try:
                task = DetectionTask.FromString(connection.recv_bytes())
            except EOFError:
                return
            connection.send_bytes(answer(task).SerializeToString())


class OnConnection(BlockingContender):
    def serve(self, path: str) -> None:
        with Listener(path, "AF_UNIX", backlog=128) as listener:
            while True:
                connection = listener.accept()
                threading.Thread(target=_serve, args=(connection,), daemon=True).start()

    @contextmanager
    def connect(self, job: Job) -> Iterator[Client]:
        task = request(job.message)
        with multiprocessing.connection.Client(job.path, "AF_UNIX") as connection:

            def call() -> DetectionResult:
                connection.send_bytes(task.SerializeToString())
                return DetectionResult.FromString(connection.recv_bytes())

            def burst(number: int) -> Sequence[DetectionResult]:
                for _ in range(number):
                    connection.send_bytes(task.SerializeToString())
                return [DetectionResult.FromString(connection.recv_bytes()) for _ in range(number)]

            yield Client(call, burst)


def contender(_: str) -> OnConnection:
    return OnConnection()
