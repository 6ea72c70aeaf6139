"""A circuit breaker: a server that fails again and again is left alone for a while.

Closed, everyone may call. After some failures in a row it opens, and nobody may. After a while it is half
open: one call at a time may try, and some successes in a row close it. There is no state beside the
statistics: what the breaker is can always be read from them and the clock, so that the two can't differ.
This module must never know what a call is.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Final

import attrs
import trio

#: The least that :attr:`CircuitBreaker.retry_after` says where nobody may call, in seconds. A verdict is
#: given a moment after its deadline, and who sleeps until then must not find that it is to sleep for 0 s.
_SOONEST: Final = 0.01


class BreakerState(enum.StrEnum):
    """What a circuit breaker lets through."""

    CLOSED = "closed"
    """Every call."""
    OPEN = "open"
    """None."""
    HALF_OPEN = "half-open"
    """One at a time, to see whether the server works again."""


@attrs.frozen(kw_only=True)
class BreakerStatistics:
    """What a circuit breaker has seen, at one moment.

    Attributes:
        state: what it lets through at that moment.
        failures: failures in a row while it was closed. They stay until it is closed again.
        successes: successes in a row since it is half open.
        opened_at: when it opened last, on :func:`trio.current_time`'s clock; None while it is closed.
        probing: whether a call is in flight that tries the server for all others.
        activations: how often it has opened.
        succeeded_total, failed_total: all verdicts, also those that came too late to move it.
    """

    state: BreakerState
    failures: int
    successes: int
    opened_at: float | None
    probing: bool
    activations: int
    succeeded_total: int
    failed_total: int


class Permit:
    """One call's leave to try, and the one verdict that comes of it. Made by :meth:`CircuitBreaker.admit`.

    The first of :meth:`succeed`, :meth:`fail` and :meth:`withdraw` counts, later ones do nothing. A
    verdict counts for the breaker as it was when the call was admitted: one that comes after it has
    opened, or closed, says nothing about what the server is like by then.

    Attributes:
        probing: whether the call tries a server whose breaker is half open.
        until: when it will have given its verdict at the latest, on Trio's clock.
    """

    __slots__ = ("_breaker", "_era", "probing", "until")

    def __init__(self, breaker: CircuitBreaker, era: int, *, probing: bool, until: float) -> None:
        self._breaker: CircuitBreaker | None = breaker
        self._era = era
        self.probing = probing
        self.until = until

    def succeed(self) -> None:
        """The server did what it should."""
        self._judge(success=True)

    def fail(self) -> None:
        """The server failed."""
        self._judge(success=False)

    def withdraw(self) -> None:
        """Nothing was learnt about the server."""
        self._judge(success=None)

    def _judge(self, *, success: bool | None) -> None:
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker._take_verdict(self, self._era, success=success)  # noqa: SLF001 - two halves of one thing


class CircuitBreaker:
    """Decides whether a server may be called. Its clock is Trio's.

    Args:
        failures_to_open: failures in a row that open it.
        reset_after: seconds from opening to half open.
        successes_to_close: successes in a row that close it when it is half open.
        on_open: called each time it opens.
    """

    def __init__(
        self,
        *,
        failures_to_open: int,
        reset_after: float,
        successes_to_close: int,
        on_open: Callable[[], None] = lambda: None,
    ) -> None:
        self._failures_to_open = failures_to_open
        self._reset_after = reset_after
        self._successes_to_close = successes_to_close
        self._on_open = on_open
        self._failures = 0
        self._successes = 0
        self._opened_at: float | None = None
        self._probe: Permit | None = None
        self._activations = 0
        self._succeeded_total = 0
        self._failed_total = 0
        self._era = 0  # one more each time it opens or closes

    @property
    def state(self) -> BreakerState:
        """What it lets through now."""
        return self.state_at(trio.current_time())

    def state_at(self, now: float) -> BreakerState:
        """Return what it lets through; for who is in another thread, where Trio tells no time."""
        opened_at = self._opened_at
        if opened_at is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < opened_at + self._reset_after else BreakerState.HALF_OPEN

    @property
    def would_admit(self) -> bool:
        """Whether :meth:`admit` would give a permit now."""
        # The clock need not be read while it is closed, as nearly always.
        return self._opened_at is None or self.would_admit_at(trio.current_time())

    def would_admit_at(self, now: float) -> bool:
        """Return whether :meth:`admit` would give a permit; see :meth:`state_at`."""
        if self._opened_at is None:
            return True
        return self.state_at(now) is BreakerState.HALF_OPEN and self._probe is None

    @property
    def retry_after(self) -> float:
        """Seconds until it is worth to ask again; 0 if a call would be admitted now, and else more than 0.

        While it is open, that is when it will be half open. While one call tries for all others, it is
        when that call's time is up, or as long as it stays open where that is sooner; the verdict may
        come before that.
        """
        if self._opened_at is None:
            return 0.0
        now = trio.current_time()
        if now < self._opened_at + self._reset_after:
            return self._opened_at + self._reset_after - now
        if self._probe is None:
            return 0.0
        return min(max(self._probe.until - now, _SOONEST), self._reset_after)

    def statistics(self, now: float | None = None) -> BreakerStatistics:
        """Return what it has seen, and what follows from that; see :meth:`state_at`."""
        return BreakerStatistics(
            state=self.state if now is None else self.state_at(now),
            failures=self._failures,
            successes=self._successes,
            opened_at=self._opened_at,
            probing=self._probe is not None,
            activations=self._activations,
            succeeded_total=self._succeeded_total,
            failed_total=self._failed_total,
        )

    def admit(self, until: float = math.inf) -> Permit | None:
        """Let one call try. The caller must give its verdict in the end.

        Args:
            until: when it will have done so at the latest, on Trio's clock.

        Returns:
            The permit, or None if the server is to be left alone.
        """
        if self._opened_at is None:  # as nearly always
            return Permit(self, self._era, probing=False, until=until)
        if not self.would_admit:
            return None
        self._probe = Permit(self, self._era, probing=True, until=until)
        return self._probe

    def still_admits(self, permit: Permit) -> bool:
        """Return whether a permit is still good: neither opened nor closed since, nor judged."""
        return permit._breaker is self and permit._era == self._era  # noqa: SLF001 - two halves of one thing

    def _take_verdict(self, permit: Permit, era: int, *, success: bool | None) -> None:
        if permit is self._probe:
            self._probe = None
        if success is None:
            return
        self._succeeded_total += success
        self._failed_total += not success
        if era != self._era:
            return
        if not success:
            self._failed()
        elif self._opened_at is None:
            self._failures = 0
        else:
            self._successes += 1
            if self._successes >= self._successes_to_close:
                self._failures, self._successes, self._opened_at = 0, 0, None
                self._era += 1

    def _failed(self) -> None:
        if self._opened_at is None:
            self._failures += 1
            if self._failures < self._failures_to_open:
                return
        self._successes = 0
        self._opened_at = trio.current_time()
        self._activations += 1
        self._era += 1
        self._on_open()
