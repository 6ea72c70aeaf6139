"""How a thread waits for what the Trio thread does, and how Ctrl-C ends that.

This module must never know what is waited for.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from trio_ipc.portal import Job, Kept
from trio_ipc.transports.host import INTERRUPTS_LOCKS

T = TypeVar("T")

#: Seconds after which a wait that Ctrl-C cannot end is begun anew: it is seen between two of them.
_SLICE: Final = 0.05


def _is_deaf() -> bool:
    return not INTERRUPTS_LOCKS and threading.current_thread() is threading.main_thread()


class BlockingJob(Job[T]):
    """A job that a thread waits for."""

    __slots__ = ("_lock",)

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        super().__init__(function)
        # Not an Event or a Future, which are made of several locks in Python and take 5 µs.
        self._lock = threading.Lock()
        self._lock.acquire()

    def done(self) -> None:
        """Wake who waits."""
        self._lock.release()

    def wait(self) -> None:
        """Wait for the end. May be interrupted, and then be called again."""
        if self.finished:
            return  # an interrupt may have come when the lock was taken already
        if _is_deaf():
            while not self._lock.acquire(timeout=_SLICE):
                pass
        else:
            self._lock.acquire()


def run(kept: Kept[Any], function: Callable[[], Awaitable[T]]) -> T:
    """Have an async function run in the Trio thread, and wait for its result.

    An interrupt (Ctrl-C) cancels it, and waits until it has ended; a second one does not wait.
    """
    job = BlockingJob(function)
    try:
        kept.submit(job)
        job.wait()
    except BaseException:  # nothing but an interrupt comes here
        kept.cancel(job)
        job.wait()
        raise
    return job.outcome()


def run_whole(kept: Kept[Any], function: Callable[[], Awaitable[T]]) -> T:
    """Have an async function run in the Trio thread, and wait for its result.

    An interrupt ends the wait and nothing else: the function runs all the same.
    """
    job = BlockingJob(function)
    kept.submit(job)
    job.wait()
    return job.outcome()


def result_of(future: Future[T]) -> T:
    """Wait for a future, so that Ctrl-C ends the wait."""
    while _is_deaf() and not future.done():
        try:
            future.exception(_SLICE)
        except TimeoutError:
            continue
    return future.result()
