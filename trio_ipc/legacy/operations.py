"""Overlapped operations, each with an event that is waited for by a thread.

The default waits at Trio's completion port instead. This module must never close a handle or free memory that
the kernel still works on. Only for Windows.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

from trio_ipc.transports.windows import win32

if TYPE_CHECKING:
    from outcome import Outcome

assert sys.platform == "win32", "for Windows only"  # noqa: S101  # mypy skips the rest elsewhere


class Operation:
    """One overlapped operation at a time on a handle, and the event that it sets in the end.

    The thread that waits for the event does so as long as the operation is in progress, also when no task
    waits any more, and the event stays open for it. (`trio.lowlevel.WaitForSingleObject` stops its thread by
    a handle, and closes that at once. A thread that is late waits for what else has the number by then:
    Trio's issue 1271. Under Wine that may be the system's own handle of a write, which then seems to have
    failed.)
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._event = win32.create_event()
        self._overlapped = win32.OVERLAPPED()
        # There while a thread waits, and set when it does no more; by the thread itself if the run is over.
        self._thread_over: trio.Event | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._outcome: Outcome[None] | None = None
        self.in_flight = False

    @trio.lowlevel.enable_ki_protection
    def begin(self, start: Callable[[win32.OVERLAPPED], None]) -> None:
        """Begin. Raises OSError if that failed, and then nothing is in progress."""
        if self.in_flight:
            raise trio.BusyResourceError("an operation is in progress already")
        self._overlapped = win32.operation(self._event)
        start(self._overlapped)
        self.in_flight = True

    def has_completed(self) -> bool:
        return win32.has_completed(self._overlapped)

    def result(self) -> int:
        """Return how many bytes it moved. Blocks until it has completed; raises OSError if it failed."""
        self.in_flight = False
        return win32.result_of(self._handle, self._overlapped)

    async def wait(self) -> None:
        """Wait until it has completed. Returns, too, when this is closed; the caller finds out."""
        if not self._is_pending():
            await trio.lowlevel.checkpoint()
        # The thread may still have been there for the operation before.
        while self._is_pending():
            await self._thread().wait()
            if self._outcome is not None:
                self._outcome.unwrap()

    def _is_pending(self) -> bool:
        return self.in_flight and not self.has_completed()

    @trio.lowlevel.enable_ki_protection
    def _thread(self) -> trio.Event:
        """Have a thread wait for the event, and return what says that it does no more."""
        if self._thread_over is None:
            token = trio.lowlevel.current_trio_token()

            def deliver(outcome: Outcome[None]) -> None:
                try:
                    token.run_sync_soon(self._thread_ended, outcome)
                except trio.RunFinishedError:
                    self._thread_ended(outcome)

            trio.lowlevel.start_thread_soon(partial(win32.wait_for_event, self._event), deliver)
            self._thread_over = trio.Event()
        return self._thread_over

    def _thread_ended(self, outcome: Outcome[None]) -> None:
        self._outcome = outcome
        with self._lock:
            over, self._thread_over = self._thread_over, None
            if self._closed:
                win32.close_handle(self._event)
        assert over is not None  # noqa: S101 - for the type checker
        over.set()

    @trio.lowlevel.enable_ki_protection
    def cancel(self) -> bool:
        """Cancel what is in progress, and return once the kernel is done. True if it was done before that."""
        if not self.in_flight:
            return False
        win32.cancel_operation(self._handle, self._overlapped)
        try:
            self.result()  # at once: a pipe's operations can be cancelled
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Cancel, and give the event up. Tasks that wait for it wake up."""
        self.cancel()
        with self._lock:
            self._closed = True
            if self._thread_over is None:
                win32.close_handle(self._event)
            else:
                # It may have been late, and the event have been reset for an operation that did not begin.
                win32.set_event(self._event)
