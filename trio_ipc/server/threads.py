"""Handlers that are synchronous functions, each run in a thread.

A thread cannot be cancelled. This module must never let one go on when its server has forgotten it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic

import trio

from trio_ipc.contract import RequestT, ResponseT
from trio_ipc.errors import shown_argument
from trio_ipc.functions import is_async

from .handling import Call, Handler

if TYPE_CHECKING:
    import anyio


def in_threads(
    handler: Callable[[RequestT, Call], ResponseT],
    limiter: trio.CapacityLimiter | anyio.CapacityLimiter | None = None,
) -> Handler[RequestT, ResponseT]:
    """Make a handler of a synchronous function, which may block: each request is handled in a thread.

    Args:
        handler: ``def handler(request, call) -> response``. Several run at a time, one for each connection.
        limiter: how many there may be at a time, Trio's or anyio's; None for Trio's own, of 40 threads
            (:func:`trio.to_thread.current_default_thread_limiter`). A request that finds no free one waits,
            within its own deadline.

    Returns:
        A handler for :func:`serve`.

    Raises:
        TypeError: an argument is of the wrong type.

    A thread cannot be cancelled. When the deadline passes, or the client leaves, it is waited for: its
    result is dropped, and only then the client is told that the time was up, and the connection goes on; so
    does the end of the server. A function that takes long should call
    :func:`trio.from_thread.check_cancelled` now and then, which raises once nobody wants its result any more.
    """
    given: object = handler
    if not callable(given) or is_async(given):
        what = "which is async: give it to serve() itself" if callable(given) else "which cannot be called"
        raise TypeError(f"handler is {shown_argument(given)}, {what}: it must be an ordinary function")
    if limiter is not None and not _is_limiter(limiter):
        wanted = "a CapacityLimiter of trio or anyio, or None"
        raise TypeError(f"limiter is {shown_argument(limiter)}, must be {wanted}")

    return InThreads(handler, limiter)


def _is_limiter(limiter: object) -> bool:
    """Return whether Trio can use this as a limiter, by its methods: anyio need not be loaded to see it."""
    needed = ("acquire_on_behalf_of", "release_on_behalf_of")
    return all(callable(getattr(limiter, name, None)) for name in needed)


class InThreads(Generic[RequestT, ResponseT]):
    """A handler that calls an ordinary function in a thread of Trio's. A type, so that it is told apart."""

    def __init__(self, function: Callable[[RequestT, Call], ResponseT], limiter: Any) -> None:
        self._function = function
        self._limiter = limiter

    async def __call__(self, request: RequestT, call: Call) -> ResponseT:
        """Handle a request.

        Raises:
            RuntimeError: another event loop runs it.
        """
        if not trio.lowlevel.in_trio_task():
            raise RuntimeError("in_threads() is for Trio: in an asyncio handler await asyncio.to_thread()")
        # Not abandoned on cancellation. A thread that goes on would do a request's work when its client has
        # been told that it failed, beside the one that does it again; and after the end of serve().
        return await trio.to_thread.run_sync(self._function, request, call, limiter=self._limiter)
