"""A call in flight on a pipeline, and which of those that wait to be sent go first.

This module must never know what a pipeline is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

import trio

from trio_ipc.contract import RequestT, ResponseT

from .batch import MOST_AT_ONCE, MOST_BYTES_AT_ONCE
from .line import Done
from .turns import Waiter


class Pending(Waiter, Generic[RequestT, ResponseT]):
    """A call in flight, or one that waits for its turn. Its task sleeps once, until it is over.

    Args:
        request: what is asked.
        done: see :meth:`Line.call`.
        begin: has it sent when its turn has come, and returns whether that was of use.
        payload: what is sent of it; empty while it is not encoded.

    Attributes:
        request, payload, done: as given.
        over: set when there is a response or an error.
        response, error: one of them is set by then.
    """

    __slots__ = ("_begin", "done", "error", "over", "payload", "request", "response")

    def __init__(
        self,
        request: RequestT,
        done: Done,
        begin: Callable[[Pending[RequestT, ResponseT]], bool],
        payload: bytes = b"",
    ) -> None:
        self.request = request
        self.payload = payload
        self.done = done
        self._begin = begin
        self.over = trio.Event()
        self.response: ResponseT | None = None
        self.error: BaseException | None = None

    def got_turn(self) -> bool:
        """Send it; see :meth:`Waiter.got_turn`."""
        return self._begin(self)

    def fail(self, error: BaseException) -> None:
        """Let it be over; see :meth:`Waiter.fail`."""
        self.error = error
        self.over.set()

    def outcome(self) -> ResponseT:
        """Return the response, or raise the error."""
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # else it and this frame, which has the request, keep each other
        assert self.response is not None  # noqa: S101 - for the type checker
        return self.response


def first_of(waiting: dict[Pending[RequestT, ResponseT], None]) -> list[Pending[RequestT, ResponseT]]:
    """Take the first of what waits to be sent, as much as goes into one write."""
    batch: list[Pending[RequestT, ResponseT]] = []
    size = 0
    for pending in waiting:
        batch.append(pending)
        size += len(pending.payload)
        if len(batch) == MOST_AT_ONCE or size >= MOST_BYTES_AT_ONCE:
            break
    if len(batch) == len(waiting):
        waiting.clear()  # the usual, and quicker; nor does a long one stay as large as it was
    else:
        for pending in batch:
            del waiting[pending]
    return batch
