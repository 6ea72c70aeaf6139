"""Whether a work takes a time that grows as its size does, and not as the square of that."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest

needs_thread_time = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows counts the time of a thread in steps of 15.6 ms"
)

#: Times as long as what is compared. What is linear takes one to three times as long, what is quadratic took
#: 20 to 400 times.
_FACTOR = 8


def costs_as(yardstick: Callable[[], object], work: Callable[[], object]) -> bool:
    """Return whether a work takes about as much CPU time as another one that is known to be linear."""
    return takes_as(lambda: _seconds(yardstick), lambda: _seconds(work))


def takes_as(yardstick: Callable[[], float], work: Callable[[], float]) -> bool:
    """Return the same for works that say themselves how many seconds they took, without what led to them."""
    return min(work(), work()) < _FACTOR * max(yardstick(), yardstick())


def _seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began
