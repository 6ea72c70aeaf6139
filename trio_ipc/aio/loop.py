"""How an asyncio task waits for what the Trio thread does, and how its cancellation ends that.

This module must never know what is waited for, and never block the event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from trio_ipc.portal import Job, Kept

T = TypeVar("T")


class LoopSide:
    """Calls functions in an event loop's thread: what comes at a time wakes the loop once.

    Args:
        loop: the event loop.
        context: which the functions are called in.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, context: contextvars.Context) -> None:
        self.loop = loop
        self._context = context
        self._functions: deque[Callable[[], object]] = deque()
        self._woken = False

    def soon(self, function: Callable[[], object]) -> bool:
        """Have a function called in the loop; return False where the loop was closed.

        For the Trio thread alone: there no interrupt can come between the two steps.
        """
        self._functions.append(function)
        if not self._woken:
            self._woken = True
            try:
                self.loop.call_soon_threadsafe(self._call_all, context=self._context)
            except RuntimeError:
                return False
        return not self.loop.is_closed()

    def _call_all(self) -> None:
        self._woken = False
        try:
            while self._functions:
                self._functions.popleft()()
        finally:
            if self._functions:  # what ends the program came out of one of them; the others wait for this
                self.loop.call_soon(self._call_all, context=self._context)


class LoopJob(Job[T]):
    """A job that an asyncio task waits for.

    Attributes:
        future: done when the job has ended.
    """

    __slots__ = ("_side", "future")

    def __init__(self, function: Callable[[], Awaitable[T]], side: LoopSide) -> None:
        super().__init__(function)
        self._side = side
        self.future: asyncio.Future[None] = side.loop.create_future()

    def done(self) -> None:
        """Wake who waits; nobody does where the loop was closed."""
        self._side.soon(self._wake)

    def _wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


async def run(kept: Kept[Any], side: LoopSide, function: Callable[[], Awaitable[T]]) -> T:
    """Have an async function run in the Trio thread, and wait for its result.

    A cancellation of this task cancels it, and waits until it has ended; a second one does not wait.
    """
    job = LoopJob(function, side)
    try:
        kept.submit(job)
        await job.future
    except GeneratorExit:  # the loop has ended, or nobody runs this any longer: nothing can be waited for
        kept.cancel(job)
        raise
    except BaseException:  # a cancellation, or an interrupt in the middle of the above
        if not job.finished:
            job.future = side.loop.create_future()
            kept.cancel(job)
            await job.future
        raise
    return job.outcome()


async def run_whole(kept: Kept[Any], side: LoopSide, function: Callable[[], Awaitable[T]]) -> T:
    """Have an async function run in the Trio thread, and wait for its result.

    A cancellation of this task ends the wait and nothing else: the function runs all the same.
    """
    job = LoopJob(function, side)
    kept.submit(job)
    await job.future
    return job.outcome()
