"""What the Trio thread does for somebody elsewhere, and how that one hears of the end.

This module must never know what is done.
"""

from __future__ import annotations

import abc
import contextvars
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from trio_ipc.errors import ChannelClosedError

T = TypeVar("T")


class Job(abc.ABC, Generic[T]):
    """An async function to be run in the Trio thread, in a copy of its maker's context.

    Args:
        function: what is to be done.

    Attributes:
        begun: whether somebody sees to it that it ends. Set in the Trio thread, while there is one.
        finished: whether it has ended. Set before :meth:`done` is called.
    """

    __slots__ = ("_context", "_error", "_function", "_scope", "_value", "begun", "finished")

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = function
        self._context = contextvars.copy_context()
        self._scope = trio.CancelScope()
        self._error: BaseException | None = None
        self._value: T | None = None
        self.begun: bool = False
        self.finished: bool = False

    @abc.abstractmethod
    def done(self) -> None:
        """Be told, once, that it has ended. In the Trio thread, or in whichever finds that there is none."""

    # --- In the Trio thread -------------------------------------------------------------------------------

    def begin(self, nursery: trio.Nursery) -> None:
        """Start it as a task, which raises nothing but a cancellation from outside."""
        self.begun = True
        self._context.run(nursery.start_soon, self._carry)

    def cancel(self) -> None:
        """Have it end; it may have been begun or not."""
        self._scope.cancel()
        if not self.begun:
            self.refuse(ChannelClosedError("this call was cancelled before it began"))

    def refuse(self, error: BaseException) -> None:
        """End it by an error, instead of beginning it."""
        self.begun = True
        self._error = error
        self._finish()

    async def _carry(self) -> None:
        try:
            with self._scope:
                self._value = await self._function()
        except trio.Cancelled:
            self._error = ChannelClosedError(
                "the portal was stopped while a call was in flight", hint="open a new client"
            )
            raise
        except BaseException as exc:  # noqa: BLE001 - it is raised where the result is waited for
            self._error = exc
        finally:
            self._finish()

    def _finish(self) -> None:
        self.finished = True
        self.done()

    # --- Elsewhere ----------------------------------------------------------------------------------------

    def outcome(self) -> T:
        """Return the result, or raise the error, of what has ended and was not cancelled."""
        error, self._error = self._error, None
        if error is None:
            return self._value  # type: ignore[return-value]  # it is of T's type, which may have a None
        try:
            raise error
        finally:
            del error  # its traceback knows this frame: the two would keep each other


def as_async(function: Callable[[], T]) -> Callable[[], Awaitable[T]]:
    """Return an async function that calls a synchronous one, which has to be called in the Trio thread."""

    async def call() -> T:
        return function()

    return call
