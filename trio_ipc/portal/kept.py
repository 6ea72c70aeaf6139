"""Something of Trio's that is kept open for somebody elsewhere, and what that one has it do.

A context manager of Trio's, with a nursery in it, is entered and left by one task: that task is here. It, and
all that it does, belongs to a portal, which may be its user's. This module must never wait for anybody else's
thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

import trio

from trio_ipc.errors import ChannelClosedError, leaves

from .jobs import Job
from .thread import future_of_nobody_to_cancel

T = TypeVar("T")


class Kept(Generic[T]):
    """A context manager of Trio's that is open in a portal's thread.

    Args:
        endpoint: where it is, None for several; for errors.
        manager: makes it. It is called in the Trio thread, with what ends :meth:`keep` as :meth:`leave` does,
            for things that may end by themselves.

    Attributes:
        endpoint: as given.
        thing: what it gave, once :attr:`opened` is done.
        opened: done when it is open; its failure is why that could not be.
        left: done when all of it has ended, with what it has failed by after it was opened, or None.
        thread: the Trio thread's number, once :attr:`opened` is done.
    """

    thing: T
    _nursery: trio.Nursery

    def __init__(
        self,
        endpoint: str | None,
        manager: Callable[[Callable[[], None]], AbstractAsyncContextManager[T]],
    ) -> None:
        self.endpoint: str | None = endpoint
        self._manager = manager
        self._jobs: deque[Job[Any]] = deque()
        self._leaving = trio.Event()
        self._scope = trio.CancelScope()
        self._unwanted = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._ended = False
        self.opened: Future[object] = future_of_nobody_to_cancel()
        self.left: Future[object] = future_of_nobody_to_cancel()
        self.thread: int | None = None

    # --- The task ------------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Open it, keep it open, and close it when :meth:`leave` was called. Raises nothing but a
        cancellation.

        What it fails by is told by :attr:`opened` or :attr:`left`.
        """
        failure: BaseException | None = None
        try:
            self._token = _token_of_trio()
            self.thread = threading.get_ident()
            if self._unwanted:
                self._scope.cancel()  # it was abandoned before there was anybody to tell
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    try:
                        async with self._manager(self._leaving.set) as self.thing:
                            self.opened.set_result(None)
                            await self._leaving.wait()
                    except BaseException as exc:
                        failure = _plain(exc)
                        if failure is None:
                            raise
                    finally:
                        # While the nursery is open: afterwards a job that is begun would end the whole run.
                        # Calls in flight end by themselves: what they are made on was closed.
                        self._end()
        except TypeError as exc:
            failure = exc
        finally:
            self._end()
            if self.opened.done():
                self.left.set_result(failure)
            else:
                self.left.set_result(None)
                self.opened.set_exception(failure or self._closed())

    def _end(self) -> None:
        self._ended = True
        self._refuse_all()

    # --- For any thread ------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Have it closed, once it is open; :attr:`left` tells when it is. Does not wait. Idempotent."""
        self._soon(self._leaving.set)

    def abandon(self) -> None:
        """Have it cancelled, whether it is open or not yet. Does not wait. Idempotent."""
        self._unwanted = True
        if self._token is not None:
            self._soon(self._scope.cancel)

    def submit(self, job: Job[Any]) -> None:
        """Have something done, side by side with all else. It is refused where this has ended."""
        self._jobs.append(job)
        if self._ended:  # looked at after that: who ends it looks after the jobs that it finds
            self._refuse_all()
        else:
            self._soon(self._take)

    def cancel(self, job: Job[Any]) -> None:
        """Have a job end. It ends even where an interrupt has come in the middle of :meth:`submit`."""
        if not self._soon(self._cancel, job) and not job.begun:
            job.refuse(self._closed())

    def _soon(self, function: Callable[..., object], *args: object) -> bool:
        """Have a function called in the Trio thread; return whether there is one."""
        assert self._token is not None  # noqa: S101 - it was opened
        try:
            self._token.run_sync_soon(function, *args, idempotent=True)
        except trio.RunFinishedError:
            self._end()
            return False
        return True

    # --- Jobs, in the Trio thread ---------------------------------------------------------------------------

    def _take(self) -> None:
        while self._jobs and not self._ended:
            self._jobs.popleft().begin(self._nursery)
        if self._ended:
            self._refuse_all()

    def _cancel(self, job: Job[Any]) -> None:
        self._take()
        job.cancel()

    def _refuse_all(self) -> None:
        with contextlib.suppress(IndexError):  # another thread may do the same
            while True:
                self._jobs.popleft().refuse(self._closed())

    def _closed(self) -> ChannelClosedError:
        return ChannelClosedError("it was closed", endpoint=self.endpoint, hint="open a new one")


def _plain(exc: BaseException) -> BaseException | None:
    """Return what an exception, or a group of them, is about; None where that is a cancellation alone."""
    found = [leaf for leaf in leaves(exc) if not isinstance(leaf, trio.Cancelled)]
    if len(found) > 1:
        return exc
    return found[0] if found else None


def _token_of_trio() -> trio.lowlevel.TrioToken:
    try:
        return trio.lowlevel.current_trio_token()
    except RuntimeError:
        raise TypeError(
            'portal runs another event loop than Trio\'s, must be one of start_blocking_portal("trio")'
        ) from None
