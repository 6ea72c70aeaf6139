"""What clients and servers for asyncio programs have in common: how they are opened, used and closed."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

from anyio.from_thread import BlockingPortal

from trio_ipc.errors import IpcError
from trio_ipc.portal import Adapter, Kept

from .loop import LoopSide, run

T = TypeVar("T")
R = TypeVar("R")


def running_side() -> LoopSide:
    """Return what leads to the running event loop.

    Raises:
        IpcError: asyncio does not run here.
    """
    return LoopSide(running_loop(), contextvars.copy_context())


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop.

    Raises:
        IpcError: asyncio does not run here.
    """
    loop = _loop_here()
    if loop is None:
        raise IpcError(
            "no event loop of asyncio runs here",
            hint="trio_ipc.aio is for asyncio: on Trio use trio_ipc itself, without either trio_ipc.blocking",
        )
    return loop


def _loop_here() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def until(future: Future[T]) -> asyncio.Future[T]:
    """Return what a task can wait by. The futures of this package are nobody's to cancel."""
    return asyncio.wrap_future(future)


class AioAdapter(Adapter[T]):
    """Something of Trio's that asyncio tasks use, in an ``async with`` block or until :meth:`aclose`.

    Args:
        kept: what is to be open.
        portal: where; None for a thread of its own.
        side: leads to the event loop, whose tasks use it.
    """

    def __init__(self, kept: Kept[T], portal: BlockingPortal | None, side: LoopSide) -> None:
        super().__init__(kept, portal)
        self._side = side

    async def __aenter__(self) -> Self:
        """Give itself."""
        self._check_here()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close it, and wait until that is done. Idempotent.

        Calls that other tasks have in flight end by :exc:`~trio_ipc.ChannelClosedError`. Cancellation ends
        the wait, and has everything closed at once.
        """
        if self._closed:
            return
        if not self._is_of_this_process:
            self._closed = True
            return
        self._check_here()
        ended = None
        try:
            self._kept.leave()
            failure = await until(self._kept.left)
        except BaseException:
            self._kept.abandon()
            raise
        finally:
            if self._thread is not None:
                ended = self._thread.stop()
            self._closed = True
        if ended is not None:
            await until(ended)
            self._join()
        self._fail_by(failure)

    async def _open(self) -> Self:
        """Open it, and return it. Cancellation leaves nothing open."""
        try:
            started = self._prepare()
            if started is not None:
                await until(started)
            self._begin()
            await until(self._kept.opened)
        except GeneratorExit:
            self._give_up()  # the loop has ended, and nothing can be waited for any longer
            raise
        except BaseException:
            for end in self._give_up():
                await until(end)
            self._join()
            raise
        return self

    @staticmethod
    def _fail_by(failure: object) -> None:
        if isinstance(failure, BaseException):
            raise failure

    def _check_here(self) -> None:
        """Raise :exc:`IpcError` if this cannot be asked for anything, here and now."""
        self._check_open()
        if _loop_here() is not self._side.loop:
            raise IpcError(
                "it was used in another event loop than the one that it was opened in",
                endpoint=self._kept.endpoint,
                hint="open one in each event loop; threads share one of trio_ipc.blocking",
            )

    async def _run(self, function: Callable[[], Awaitable[R]]) -> R:
        self._check_here()
        return await run(self._kept, self._side, function)


D = TypeVar("D", bound=AioAdapter[Any])


class Opening(Generic[D]):
    """What opens something: by ``async with``, or by ``await`` for who closes it later, by ``aclose()``.

    It may do so several times. Blocks of the same one must not overlap: each has to close its own.

    Args:
        function: opens it.
    """

    _adapter: D

    def __init__(self, function: Callable[[], Coroutine[Any, Any, D]]) -> None:
        self._function = function
        self._is_in_block = False

    if not TYPE_CHECKING:  # to a type checker there are no other attributes

        def __getattr__(self, name: str) -> NoReturn:
            """Say what is to be done first: who forgets that asks this for what the adapter has."""
            raise AttributeError(
                f"nothing is open yet that could have {name!r}: use async with, or await it",
                name=name,
                obj=self,
            )

    def __await__(self) -> Generator[Any, Any, D]:
        """Open it."""
        return self._function().__await__()

    async def __aenter__(self) -> D:
        """Open it.

        Raises:
            IpcError: another block of this has not ended yet.
        """
        if self._is_in_block:
            raise IpcError("another block of the same one has not ended yet", hint="make one for each block")
        self._is_in_block = True
        try:
            self._adapter = await self._function()
        except BaseException:
            self._is_in_block = False
            raise
        return self._adapter

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        adapter = self._adapter
        del self._adapter
        self._is_in_block = False
        await adapter.__aexit__(kind, exc, traceback)
