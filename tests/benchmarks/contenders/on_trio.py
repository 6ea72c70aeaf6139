"""What the contenders on Trio share."""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import trio

from tests.benchmarks.loads import AsyncOperation

from .base import AsyncContender


class TrioContender(AsyncContender):
    @abc.abstractmethod
    async def serving(
        self, path: str, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve at a path until it is cancelled."""

    def serve(self, path: str) -> None:
        trio.run(self.serving, path)

    def run(self, function: Callable[[], Awaitable[Any]]) -> Any:
        return trio.run(function)

    async def together(self, functions: Iterable[AsyncOperation]) -> None:
        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(function)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)
