"""Looking again before falling asleep, where that saves more time than it takes.

To wake a process that sleeps takes the system longer than all of our Python. So who waits may look a few
times before it falls asleep, with a whole pass of the scheduler between two looks: other tasks, deadlines and
cancellation have their turn. Whether that pays depends on the peer, on the pauses between messages and on
what else the machine does, and none of that can be seen; so both ways are tried, and what they took is
compared.
This module must never know what is looked for.
"""

from __future__ import annotations

import enum
import math
import random
import statistics
import time
from collections.abc import Callable
from typing import Final

import trio

#: Seconds that spinning may take, at the most: a few times what it costs to be woken. Where many connections
#: are busy a pass of the scheduler takes long, and the process does not fall asleep anyway.
_SHORT: Final = 0.0001

#: The same where waits follow one another within ``_LIVELY`` seconds. A core that slept is slow at first, so
#: that both sides gain: calls for 1,000 records took 352 instead of 493 µs, small ones on 16 connections 15
#: instead of 26. Linux, when it is a guest, does much the same: guest_halt_poll_ns, 200 µs
#: (Documentation/virt/guest-halt-polling.rst).
_LONG: Final = 0.0003
_LIVELY: Final = 0.001

#: Waits in which one way is tried, before the other is. The first of them still bears the other's marks.
_TRIAL: Final = 6

#: Waits from one decision until both ways are tried again: twice as many each time that it is the same.
_SHORTEST_TERM: Final = 128
_LONGEST_TERM: Final = 4_096

#: Spins in vain, one after another, after which it sleeps for a term. One after which a message came within
#: ``_SOON`` seconds does not count: it had almost been found.
_SOON: Final = 0.0005
_MOST_IN_VAIN: Final = 4

#: Seconds of latency that a second of CPU time has to save, and what sleeping may take of what spinning takes
#: to be chosen. Medians of five differ by chance, and to sleep by mistake costs more than to spin by mistake:
#: with a price of 0.75 and a tenth of doubt, calls for 1,000 records took 393 instead of 313 µs, and 16
#: callers on one client 956 instead of 756. What it does not catch are pauses of 100 to 300 µs: there a call
#: takes half the time, for 1.4 times the CPU time.
_WORTH: Final = 0.25
_CLEARLY: Final = 0.8

#: Seconds from one wait to the next after which nobody spins: what could be gained is small beside them, and
#: would be paid for in each wait. Such waits say nothing of those that follow one another faster.
_RARE: Final = 0.003


class Way(enum.Enum):
    """What is done in a wait."""

    SPIN = "spin"
    SLEEP = "sleep"


class Spin:
    """Decides whether to look again, and does it.

    Each way has its trial: the time from one wait to the next, and the CPU time of this thread meanwhile. The
    better one is kept for a term. Then both are tried again, and at once if spinning was in vain several
    times in a row.

    Args:
        looks: how often to look at a time; 0 for never.
        adapts: whether to leave it out where it does not pay.
        clock: tells the time, in seconds; :func:`trio.current_time` if None.
        cpu_clock: tells this thread's CPU time, in seconds.
        chance: spreads the trials of connections that began together; a number from 0 to 1 each time.

    Attributes:
        way: what is done in the next wait.
    """

    __slots__ = (
        "_adapts",
        "_began",
        "_chance",
        "_cpu_began",
        "_cpu_clock",
        "_in_vain",
        "_left",
        "_looks",
        "_now",
        "_on_trial",
        "_prices",
        "_settled",
        "_term",
        "_waited_at",
        "way",
    )

    def __init__(
        self,
        looks: int,
        *,
        adapts: bool = True,
        clock: Callable[[], float] | None = None,
        cpu_clock: Callable[[], float] = time.thread_time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._looks = looks
        self._adapts = adapts
        self._now = trio.lowlevel.current_clock().current_time if clock is None else clock
        self._cpu_clock = cpu_clock
        self._chance = chance
        self._waited_at = -math.inf
        self._began = self._cpu_began = 0.0
        self._prices: dict[Way, list[float]] = {}
        self._settled: Way | None = None
        self._term = _SHORTEST_TERM
        self._begin_trial(Way.SPIN)
        self._left += 1  # as the first wait has none before it

    async def until(self, look: Callable[[], bool]) -> bool:
        """Look a few times, if that is worth it; return whether there was something to see.

        Args:
            look: looks, takes what there is, and says whether that was anything.

        Raises what ``look`` raises. Cancellation takes nothing that was not looked at. It is no checkpoint
        where it does not look.
        """
        if not self._looks:
            return False
        now = self._now()
        waited_at, self._waited_at = self._waited_at, now
        if now - waited_at < _SOON:
            self._in_vain = 0
        if self._adapts:
            if _RARE < now - waited_at < math.inf:
                self._skip()
                return False
            self._next_wait(now)
        if self.way is Way.SLEEP:
            return False
        give_up = now + (_LONG if now - waited_at < _LIVELY else _SHORT)
        for _ in range(self._looks):
            await trio.lowlevel.checkpoint()
            if look():
                self._in_vain = 0
                return True
            if self._now() > give_up:
                break
        self._in_vain += 1
        return False

    # --- Which way ---

    def _next_wait(self, now: float) -> None:
        """Count a wait, and change the way where its time is up."""
        self._left -= 1
        if self._on_trial:
            self._note(now)
            if self._left == 0:
                self._end_trial()
        elif self._left == 0:
            self._begin_trial(Way.SPIN)
        elif self._in_vain == _MOST_IN_VAIN:
            self._settle(Way.SLEEP)

    def _skip(self) -> None:
        """Leave a wait out; a trial begins anew, as the time until then belongs to neither way."""
        if self._on_trial:
            self._begin_trial(self.way)

    def _begin_trial(self, way: Way) -> None:
        self.way = way
        self._on_trial = True
        self._left = _TRIAL
        self._in_vain = 0
        self._prices[way] = []

    def _note(self, now: float) -> None:
        """Note what it took from the last wait to this one."""
        cpu = self._cpu_clock()
        if self._left < _TRIAL - 1:  # what was under way before that began in the other way
            self._prices[self.way].append(now - self._began + _WORTH * (cpu - self._cpu_began))
        self._began, self._cpu_began = now, cpu

    def _end_trial(self) -> None:
        if self.way is Way.SPIN:
            self._begin_trial(Way.SLEEP)
            return
        spinning, sleeping = (statistics.median(self._prices[way]) for way in (Way.SPIN, Way.SLEEP))
        self._settle(Way.SLEEP if sleeping < _CLEARLY * spinning else Way.SPIN)

    def _settle(self, way: Way) -> None:
        """Keep to this way for a term."""
        self._term = min(2 * self._term, _LONGEST_TERM) if way is self._settled else _SHORTEST_TERM
        self.way = self._settled = way
        self._on_trial = False
        self._in_vain = 0
        self._left = self._term + int(self._term * self._chance())
