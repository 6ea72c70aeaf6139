"""Slices of work: a task that works through many messages lets the others run now and then.

This module must never cost a small message more than a look at the clock now and then.
"""

from __future__ import annotations

from typing import Final

import trio

#: Seconds of work at a time: all that other tasks, deadlines and cancellations have to wait for.
_AT_A_TIME: Final = 0.001

#: The clock is looked at whenever so many bytes were worked through, which takes some 20 µs; a message counts
#: as ``_MESSAGE`` bytes more. A look for each message was 0.5 of the 4 µs that a call takes among many.
_BETWEEN_LOOKS: Final = 16_384
_MESSAGE: Final = 1_024

#: Seconds that a message takes from which on the clock is looked at after each: a contract's functions are
#: users' code, and so is an iterator of requests, and may take any time. A small message takes 1 to 4 µs.
_SLOW: Final = 0.00002


class Slice:
    """The work of one task, cut by time.

    Ask after each message whether it :meth:`is_over`; if so, :meth:`rest`.
    """

    __slots__ = ("_looked_at", "_looks_at", "_now", "_until", "_work")

    def __init__(self) -> None:
        self._now = trio.lowlevel.current_clock().current_time
        self._looks_at = 0  # work after which the clock is looked at: any, until a message was quick
        self.begin()

    def begin(self) -> None:
        """Begin anew, after a wait."""
        self._looked_at = now = self._now()
        self._until = now + _AT_A_TIME
        self._work = 0

    def is_over(self, size: int) -> bool:
        """Return whether it is the others' turn, after a message of ``size`` bytes."""
        self._work += size + _MESSAGE
        if self._work < self._looks_at:
            return False
        now = self._now()
        messages = max(1, self._looks_at // _MESSAGE)
        self._looks_at = _BETWEEN_LOOKS if now - self._looked_at < _SLOW * messages else 0
        self._work, self._looked_at = 0, now
        return now >= self._until

    async def rest(self) -> None:
        """Let all others have their turn. A checkpoint."""
        await trio.lowlevel.checkpoint()
        self.begin()
