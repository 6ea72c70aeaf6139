"""What the contenders on Trio share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import trio

from tests.benchmarks.loads import AsyncOperation

from .base import AsyncContender


class TrioContender(AsyncContender):
    def run(self, function: Callable[[], Awaitable[Any]]) -> Any:
        return trio.run(function)

    async def together(self, functions: Iterable[AsyncOperation]) -> None:
        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(function)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)
