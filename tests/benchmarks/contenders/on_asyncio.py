"""What the contenders on asyncio share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from tests.benchmarks.loads import AsyncOperation

from .base import AsyncContender

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class AsyncioContender(AsyncContender):
    #: Makes the event loop; asyncio's own if None.
    loop_factory: LoopFactory | None = None

    def run(self, function: Callable[[], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            return await function()

        with asyncio.Runner(loop_factory=self.loop_factory) as runner:
            return runner.run(main())

    async def together(self, functions: Iterable[AsyncOperation]) -> None:
        await asyncio.gather(*(function() for function in functions))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
