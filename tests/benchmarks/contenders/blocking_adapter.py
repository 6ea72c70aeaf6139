"""This project's adapter for synchronous programs, as docs/synchronous.md tells users to use it.

Its server is the one that ``trio_ipc`` has. A caller has a client of its own, with ``max_in_flight=1`` as
that is the fastest for one alone; callers that share one, which are threads, have what is the default.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tests.benchmarks.loads import Job, Use
from tests.benchmarks.messages import request
from trio_ipc.blocking import open_client
from trio_ipc.daemoneye import DETECTION

from . import ours
from .base import BlockingContender, Client


class BlockingAdapter(BlockingContender):
    shared = frozenset({Use.MANY})

    def __init__(self) -> None:
        self._server = ours.contender("trio_ipc")

    def serve(self, path: str) -> None:
        self._server.serve(path)

    @contextmanager
    def connect(self, job: Job) -> Iterator[Client]:
        config = self._server.config(job.path)
        message = request(job.message)
        with open_client(DETECTION, config, max_in_flight=64 if job.use is Use.MANY else 1) as client:
            yield Client(partial(client.call, message))


def contender(_: str) -> BlockingAdapter:
    return BlockingAdapter()
