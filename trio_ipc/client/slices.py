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


class Slice:
    """The work of one task, cut by time.

    Ask after each message, or a few of them, whether it :meth:`is_over`; if so, :meth:`rest`.
    """

    __slots__ = ("_now", "_until", "_work")

    def __init__(self) -> None:
        self._now = trio.lowlevel.current_clock().current_time
        self.begin()

    def begin(self) -> None:
        """Begin anew, after a wait."""
        self._until = self._now() + _AT_A_TIME
        self._work = 0

    def is_over(self, size: int, messages: int = 1) -> bool:
        """Return whether it is the others' turn, after a message of ``size`` bytes, or several together."""
        self._work += size + messages * _MESSAGE
        if self._work < _BETWEEN_LOOKS:
            return False
        self._work = 0
        return self._now() >= self._until

    async def rest(self) -> None:
        """Let all others have their turn. A checkpoint."""
        await trio.lowlevel.checkpoint()
        self.begin()
