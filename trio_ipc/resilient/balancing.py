"""Which collector is asked next. Pure functions over snapshots; no clock, no chance, no connection."""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

#: Seconds in which what a recent success adds to a score falls to 1/e, as in DaemonEye's own agent.
_RECENCY_DECAY: Final = 300.0


class Strategy(enum.StrEnum):
    """How calls are spread over collectors that are as good as each other."""

    ROUND_ROBIN = "round-robin"
    """The one whose last turn is longest ago."""
    WEIGHTED = "weighted"
    """By chance, each in proportion to its score: see :func:`score`."""
    PRIORITY = "priority"
    """The one with the smallest priority number, those of the same number by turns."""


@attrs.frozen(kw_only=True)
class Candidate:
    """A collector as it is at one moment.

    Attributes:
        id: its name.
        priority: 1 or more; the smaller, the rather.
        healthy: whether calls are expected to succeed.
        capable: whether it can do the task, as far as is known. True for one that was never asked.
        doubtful: whether what is known of that may have changed since.
        last_pick: the number of its last turn, 0 if it had none.
        last_success, last_failure: when, in seconds on any clock; None if never.
    """

    id: str
    priority: int = 1
    healthy: bool = True
    capable: bool = True
    doubtful: bool = False
    last_pick: int = 0
    last_success: float | None = None
    last_failure: float | None = None


def score(candidate: Candidate, now: float) -> float:
    """Return the health score: ``1 / priority``, up to twice that the more recent the last success is."""
    base = 1 / candidate.priority
    if candidate.last_success is None:
        return base
    return base * (1 + math.exp(-max(0.0, now - candidate.last_success) / _RECENCY_DECAY))


def choose(
    candidates: Iterable[Candidate], strategy: Strategy, *, now: float, chance: float
) -> Candidate | None:
    """Return who is to be asked, None if there is nobody.

    First come the healthy ones that can do the task; then those that could not, but may by now; then any
    healthy one, whose refusal is an answer, too; and when none is healthy, the one whose failure is
    longest ago.

    Args:
        candidates: in any order.
        strategy: how to choose among equals.
        now: the time, on the candidates' clock.
        chance: from 0 up to, but not including, 1; used by :attr:`Strategy.WEIGHTED`.
    """
    known = list(candidates)
    healthy = [candidate for candidate in known if candidate.healthy]
    if healthy:
        able = [candidate for candidate in healthy if candidate.capable]
        perhaps = able or [candidate for candidate in healthy if candidate.doubtful]
        return _by_strategy(perhaps or healthy, strategy, now, chance)
    return min(known, key=_failure_age, default=None)


def _by_strategy(able: Sequence[Candidate], strategy: Strategy, now: float, chance: float) -> Candidate:
    if strategy is Strategy.WEIGHTED:
        sums = list(itertools.accumulate(score(candidate, now) for candidate in able))
        drawn = chance * sums[-1]
        return next((able[i] for i, total in enumerate(sums) if drawn < total), able[-1])
    if strategy is Strategy.PRIORITY:
        return min(able, key=lambda candidate: (candidate.priority, candidate.last_pick))
    return min(able, key=lambda candidate: candidate.last_pick)


def _failure_age(candidate: Candidate) -> tuple[float, int]:
    failed = -math.inf if candidate.last_failure is None else candidate.last_failure
    return failed, candidate.last_pick
