"""Handlers that are asyncio functions, for a server on Trio.

Each request has a task in the event loop, and one of Trio's that waits for it. When that one is cancelled, by
a deadline or as the client has left, so is the other, and it is waited for: a connection has one handler at a
time, and nothing of a server outlives it. This module must never decide what a handler's failure means.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Generic, NoReturn

import attrs
import trio

from trio_ipc.contract import RequestT, ResponseT
from trio_ipc.server import Call, Handler

from .loop import LoopSide


class LoopHandler(Generic[RequestT, ResponseT]):
    """Has requests handled in an event loop.

    Args:
        handler: the asyncio function.
        side: leads to the event loop.
    """

    def __init__(self, handler: Handler[RequestT, ResponseT], side: LoopSide) -> None:
        self._handler = handler
        self._side = side

    async def __call__(self, request: RequestT, call: Call) -> ResponseT:
        """Handle a request; Trio's side of it."""
        left = call.deadline - trio.current_time()
        there = attrs.evolve(call, deadline=self._side.loop.time() + left)
        response: ResponseT = await _Asked(self._side, lambda: self._handler(request, there)).wait()
        return response


class _Asked:
    """A request that is being handled in an event loop."""

    __slots__ = ("_failure", "_function", "_raise_cancel", "_side", "_task", "_token", "_waiter")

    def __init__(self, side: LoopSide, function: Callable[[], Awaitable[Any]]) -> None:
        self._side = side
        self._function = function
        self._task: asyncio.Task[Any] | None = None
        #: Why there is no task.
        self._failure: BaseException | None = None
        self._raise_cancel: Callable[[], NoReturn] | None = None
        self._token = trio.lowlevel.current_trio_token()
        self._waiter = trio.lowlevel.current_task()

    # --- On Trio --------------------------------------------------------------------------------------------

    async def wait(self) -> Any:
        """Wait until it is done. Cancellation waits until the handler has ended, too."""
        if not self._side.soon(self._begin):
            raise RuntimeError("the event loop of the handlers was closed")
        await trio.lowlevel.wait_task_rescheduled(self._abort)
        task, self._task = self._task, None
        failure, self._failure = self._failure, None
        try:
            if task is None:
                assert failure is not None  # noqa: S101 - it is either
                raise failure
            if self._raise_cancel is not None and task.cancelled():
                self._raise_cancel()
            return task.result()
        except asyncio.CancelledError as exc:  # which means nothing on Trio
            said = f": {exc}" if exc.args else ""
            raise RuntimeError(f"the handler was cancelled, though its time was not up{said}") from exc
        finally:
            del task, failure  # the exception's traceback knows this frame: they would keep each other

    def _abort(self, raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
        if not self._side.soon(self._cancel):
            return trio.lowlevel.Abort.SUCCEEDED  # there is no loop that could end it
        self._raise_cancel = raise_cancel
        return trio.lowlevel.Abort.FAILED

    def _wake(self) -> None:
        trio.lowlevel.reschedule(self._waiter)

    # --- In the event loop ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        handling = self._handle()
        try:
            self._task = self._side.loop.create_task(handling)
        except BaseException as exc:
            # Of the program's own task factory. An eager one lets out what ends a program, too.
            handling.close()
            self._failure = exc
            self._ended()
            if not isinstance(exc, Exception):
                raise
        else:
            self._task.add_done_callback(self._ended)

    async def _handle(self) -> Any:
        return await self._function()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, _task: asyncio.Task[Any] | None = None) -> None:
        with contextlib.suppress(trio.RunFinishedError):  # the server was torn down without a wait
            self._token.run_sync_soon(self._wake)
