"""What both clients for synchronous programs have in common: how they are opened, used and closed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

from trio_ipc.portal import Adapter

from .waiting import result_of, run

T = TypeVar("T")
R = TypeVar("R")


class BlockingAdapter(Adapter[T]):
    """Something of Trio's that a synchronous program uses, in a ``with`` block or until :meth:`close`."""

    def __enter__(self) -> Self:
        """Give itself."""
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close it, and wait until that is done. Any thread may. Idempotent.

        Calls in flight in other threads end by :exc:`~trio_ipc.ChannelClosedError`. In a forked child it does
        nothing: what is open is its parent's. An interrupt ends the wait, and not the closing.
        """
        if self._closed:
            return
        if not self._is_of_this_process:
            self._closed = True
            return
        self._check_open()
        ended = None
        try:
            self._kept.leave()
            failure = result_of(self._kept.left)
        finally:
            if self._thread is not None:
                ended = self._thread.stop()
            self._closed = True
        if ended is not None:
            result_of(ended)
            self._join()
        if isinstance(failure, BaseException):
            raise failure

    def _open(self) -> Self:
        """Open it, and return it. An interrupt leaves nothing open."""
        try:
            started = self._prepare()
            if started is not None:
                result_of(started)
            self._begin()
            result_of(self._kept.opened)
        except BaseException:
            for end in self._give_up():
                result_of(end)
            self._join()
            raise
        return self

    def _run(self, function: Callable[[], Awaitable[R]]) -> R:
        self._check_open()
        return run(self._kept, function)
