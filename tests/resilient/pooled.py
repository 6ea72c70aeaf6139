"""What the tests of the pool share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from trio.testing import wait_all_tasks_blocked

from tests.support import success, task
from trio_ipc import Call
from trio_ipc.daemoneye import DetectionResult, DetectionTask

from .support import DetectionResilientClient, FakeServer, calling

#: Milliseconds.
_HOURS: Final = 10_000_000


class Gate:
    """A handler that answers each task when it is told to."""

    def __init__(self) -> None:
        self._opened: dict[str, trio.Event] = {}
        self.working: set[str] = set()
        self.most = 0

    def open(self, *task_ids: str) -> None:
        for task_id in task_ids:
            self._opened.setdefault(task_id, trio.Event()).set()

    async def __call__(self, task: DetectionTask, _: Call) -> DetectionResult:
        self.working.add(task.task_id)
        self.most = max(self.most, len(self.working))
        try:
            await self._opened.setdefault(task.task_id, trio.Event()).wait()
        finally:
            self.working.discard(task.task_id)
        return success(task.task_id)


async def call_in_order(
    nursery: trio.Nursery, client: DetectionResilientClient, *task_ids: str, done: list[str] | None = None
) -> None:
    """Start a call for each, one after the other, so that they come to the pool in this order."""

    async def one(task_id: str) -> None:
        assert await client.call(task(task_id)) == success(task_id)
        if done is not None:
            done.append(task_id)

    for task_id in task_ids:
        nursery.start_soon(one, task_id)
        await wait_all_tasks_blocked()


@asynccontextmanager
async def gated(
    *, takes_hours: bool = False, **settings: Any
) -> AsyncIterator[tuple[Gate, FakeServer, DetectionResilientClient]]:
    """A gate, the one server that it is the handler of, and a client of that with these settings.

    If it takes hours, neither the server nor a call has a shorter deadline.
    """
    gate = Gate()
    server = FakeServer("a", gate)
    if takes_hours:
        server = FakeServer("a", gate, read_timeout_ms=_HOURS)
        settings["call_timeout_ms"] = _HOURS
    async with calling(server, **settings) as client:
        yield gate, server, client
