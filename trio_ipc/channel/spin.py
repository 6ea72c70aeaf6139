"""Looking again before falling asleep, where that has helped of late.

To wake a process that sleeps takes the system longer than all of our Python. So who waits looks a few times
before it falls asleep, with a whole pass of the scheduler before each few looks: other tasks, deadlines and
cancellation have their turn. This module must never know what is looked for.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from .cores import Cores

#: Seconds that spinning may take, at the most: a few times what it costs to be woken. Where many connections
#: are busy a pass of the scheduler takes long, and the process does not fall asleep anyway.
_SHORT: Final = 0.0001

#: The same where waits follow one another within ``_LIVELY`` seconds. A core that slept is slow at first, so
#: that both sides gain: calls for 1,000 records took 352 instead of 493 µs, small ones on 16 connections 15
#: instead of 26. With handlers of 1 ms, which are not lively, spinning costs no more CPU time. Linux, when it
#: is a guest, does much the same: guest_halt_poll_ns, 200 µs (Documentation/virt/guest-halt-polling.rst).
_LONG: Final = 0.0003
_LIVELY: Final = 0.001

#: Looks after one pass of the scheduler, where that took less than ``_ALONE`` seconds, so that no other task
#: had anything to do. A pass takes 9 µs and a look 3, and what comes is not seen before the next look: with
#: one look after each pass a minimal call took 1.1 times as long. Others wait 25 µs at the most.
_LOOKS_ALONE: Final = 8
_ALONE: Final = 0.00002

#: Waits that go by at the most, where spinning never helps, before it is tried again.
_LONGEST_PAUSE: Final = 63


class Spin:
    """Decides whether to look again, and does it: :meth:`begin`, and where that says so, :meth:`until`.

    With less than two cores looking would only keep the peer from running.

    Each time in a row that it did not help, it is left out for twice as many waits, up to
    ``_LONGEST_PAUSE``: where it never helps, it costs next to nothing.

    Args:
        attempts: how often to rest before a wait, and to look then once or eight times; 0 for never.
        backs_off: whether to leave it out where it did not help.
        worth: how many idle passes, in which no other task had anything to do, it is worth, from one; asked
            after the first of them. Where others run meanwhile, looking takes next to nothing of them.
    """

    __slots__ = (
        "_attempts",
        "_backs_off",
        "_cores",
        "_give_up_at",
        "_left_out",
        "_pause",
        "_waited_at",
        "_worth",
    )

    def __init__(
        self, attempts: int, *, backs_off: bool = True, worth: Callable[[], float] = lambda: math.inf
    ) -> None:
        self._attempts = attempts
        self._backs_off = backs_off
        self._worth = worth
        self._pause = 0
        self._left_out = 0
        self._waited_at = self._give_up_at = -math.inf
        self._cores = Cores()

    def begin(self, clock: Callable[[], float] = trio.current_time) -> bool:
        """Return whether to look before this wait.

        Args:
            clock: tells the time in seconds.
        """
        if not self._attempts:
            return False
        now = clock()
        self._give_up_at = now + (_LONG if now - self._waited_at < _LIVELY else _SHORT)
        self._waited_at = now
        if self._left_out < self._pause:
            self._left_out += 1
            return False
        return self._cores.are_two(now)

    async def until(
        self,
        look: Callable[[], bool],
        *,
        rest: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
        clock: Callable[[], float] = trio.current_time,
    ) -> bool:
        """Look a few times; return whether there was something to see.

        Args:
            look: looks, takes what there is, and says whether that was anything.
            rest: lets others have their turn, before the first look and again after a few.
            clock: tells the time in seconds.

        Raises what ``look`` raises. Cancellation takes nothing that was not looked at.
        """
        give_up, idle = self._give_up_at, 0
        for _ in range(self._attempts):
            began = clock()
            await rest()
            looks = 1
            if clock() - began < _ALONE:
                if idle and idle >= self._worth():
                    break
                idle += 1
                looks = _LOOKS_ALONE
            for _ in range(looks):
                if look():
                    return self._noted(found=True)
                if clock() > give_up:
                    return self._noted(found=False)
        return self._noted(found=False)

    def block_until(self, look: Callable[[], bool], clock: Callable[[], float]) -> bool:
        """Do the same in a thread that has nothing else to do. Other threads run while the system looks."""
        give_up = self._give_up_at
        for _ in range(self._attempts * _LOOKS_ALONE):
            if look():
                return self._noted(found=True)
            if clock() > give_up:
                break
        return self._noted(found=False)

    def _noted(self, *, found: bool) -> bool:
        """Take note of how a try went, and return it."""
        if found:
            self._left_out = self._pause = 0
        elif self._backs_off:
            self._left_out = 0
            self._pause = min(2 * self._pause + 1, _LONGEST_PAUSE)
        return found
