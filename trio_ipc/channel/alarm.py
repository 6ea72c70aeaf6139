"""An alarm: the deadline of a waiting task, kept by a task instead of a cancel scope for each wait.

A scope, with its place among Trio's deadlines, was a fifth of the CPU time of a call. An alarm that is set to
a later time than the last one costs an assignment: its task sleeps until the earlier time, and then looks.
This module must never know what is waited for.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio


class Alarm:
    """Rings once a deadline passes, while :meth:`run` runs.

    Args:
        ring: called with this alarm when the time is up. It must not raise. It must wake the waiting task,
            or set the alarm again.

    Attributes:
        deadline: when it rings, infinity for never.
    """

    __slots__ = ("_ended", "_now", "_ring", "_sleep", "_wakes_at", "deadline")

    def __init__(self, ring: Callable[[Alarm], None]) -> None:
        self._ring = ring
        self._now = trio.lowlevel.current_clock().current_time
        self.deadline: float = math.inf
        self._wakes_at = math.inf
        self._sleep = trio.CancelScope()
        self._ended = False

    def set(self, deadline: float) -> None:
        """Have it ring at this time, on :func:`trio.current_time`'s clock."""
        self.deadline = deadline
        if deadline < self._wakes_at:
            self._wakes_at = self._sleep.deadline = deadline

    def clear(self) -> None:
        """Have it not ring."""
        self.deadline = math.inf

    def end(self) -> None:
        """End :meth:`run`. Idempotent."""
        self._ended = True
        self._sleep.cancel()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Sleep until the time is up, ring, and so on until :meth:`end` or cancelled."""
        while not self._ended:
            self._wakes_at = self.deadline
            with trio.CancelScope(deadline=self._wakes_at) as self._sleep:
                await trio.sleep_forever()
            if self.deadline <= self._now():
                # A task that wakes in this very pass clears it: after a stop of the process its response
                # is there, and a pipe shows nobody else what a read in progress was given.
                await trio.lowlevel.checkpoint()
            if self.deadline <= self._now() and not self._ended:
                self.clear()
                self._ring(self)
