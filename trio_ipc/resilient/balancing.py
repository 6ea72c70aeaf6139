"""Whose turn it is. Knows no clock, no connection and no endpoint but what a :class:`Candidate` tells.

Candidates are asked in the order of their last turn, and the first one that will do ends the search: a
choice costs no more with many endpoints than with few. This module must never wait, and never decide
whether a candidate will do.
"""

from __future__ import annotations

import bisect
import enum
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Generic, TypeAlias, TypeVar

#: Seconds in which what a recent success adds to a score falls to 1/e, as in DaemonEye's own agent.
_RECENCY_DECAY: Final = 300.0

#: Rounds over all endpoints in which one without a connection lets those with one go first, where another
#: connection had to be closed for it. To connect costs about as much as five calls; so that is a third more
#: for one call in sixteen, at the most.
_ROUNDS_WITHOUT: Final = 16

#: Draws of lots without a result before a weighted choice looks at every candidate. Where all will do, at
#: most every second draw has no result.
_DRAWS: Final = 16


class Strategy(enum.StrEnum):
    """How calls are spread over endpoints that are equally good."""

    ROUND_ROBIN = "round-robin"
    """The one whose last turn is longest ago."""
    WEIGHTED = "weighted"
    """At random, each in proportion to its health score: see :func:`score`."""
    HIGHEST_SCORE = "highest-score"
    """The one with the highest health score, as in DaemonEye's own agent; of equals the one whose last turn
    is longest ago. As a success raises the score, that is mostly the one that answered last."""
    PRIORITY = "priority"
    """The one with the smallest priority number, those of the same number by turns."""


class Standing(enum.IntEnum):
    """How good a candidate is for a call; the smaller, the better."""

    ABLE = 0
    """Expected to succeed, and can do it as far as is known."""
    PERHAPS = 1
    """Could not do it when it was asked last, which may have changed since."""
    UNABLE = 2
    """Cannot do it. Its refusal is a response, too."""
    FAILING = 3
    """Not expected to succeed. The one whose failure is longest ago comes first, whatever the strategy."""


class Candidate:
    """What there is to know of an endpoint.

    Attributes:
        priority: 1 or more; the smaller, the rather.
        last_turn: the number of its last turn, 0 if it had none.
        last_success, last_failure: when, in seconds on any clock; None if never.
    """

    def __init__(self, priority: int = 1) -> None:
        self.priority = priority
        self.last_turn = 0
        self.last_success: float | None = None
        self.last_failure: float | None = None


CandidateT = TypeVar("CandidateT", bound=Candidate)

#: Tells how good a candidate is for the call in question, None if it is not to be asked at all.
Judge: TypeAlias = Callable[[CandidateT], Standing | None]


def score(candidate: Candidate, now: float) -> float:
    """Return the health score: ``1 / priority``, up to twice that the more recent the last success is."""
    base = 1 / candidate.priority
    if candidate.last_success is None:
        return base
    return base * (1 + math.exp(-max(0.0, now - candidate.last_success) / _RECENCY_DECAY))


class Rotation(Generic[CandidateT]):
    """All candidates, in the order in which they have their turns.

    Args:
        strategy: how to choose among those of the same standing.
        draw: gives a chance from 0 up to, but not including, 1.
    """

    def __init__(self, strategy: Strategy, draw: Callable[[], float]) -> None:
        self._strategy = strategy
        self._is_ranked = strategy in (Strategy.PRIORITY, Strategy.HIGHEST_SCORE)
        self._draw = draw
        self._turns = 0
        self._ranks: dict[int, OrderedDict[CandidateT, None]] = {}
        self._all: list[CandidateT] = []
        self._lots: list[float] = []
        self._new: Iterable[CandidateT] | None = None

    def replace(self, candidates: Iterable[CandidateT]) -> None:
        """Take these from the next choice on. One in progress (it calls users' code) ends as it began.

        They are looked at then, and only once, however often they were replaced: to put a thousand in order
        for each one that is added took a second.
        """
        self._new = candidates

    def _put_in_order(self, candidates: Iterable[CandidateT]) -> None:
        self._new = None
        self._all = sorted(candidates, key=lambda one: one.last_turn)
        self._ranks = {number: OrderedDict() for number in sorted(map(self._rank, self._all))}
        for one in self._all:
            self._ranks[self._rank(one)][one] = None
        # Twice the base is the most that a score can be.
        self._lots = list(itertools.accumulate(2 / one.priority for one in self._all))

    def choose(
        self,
        judge: Judge[CandidateT],
        *,
        now: float,
        is_connected: Callable[[CandidateT], bool] | None = None,
    ) -> CandidateT | None:
        """Return whose turn it is, None if there is nobody; the turn is taken by that.

        Args:
            judge: says how good each one is; the best standing goes first.
            now: the time, on the candidates' clock.
            is_connected: where given, a connection is worth something: one that has none waits for up to
                16 rounds while others that are as good have one. Strategies by score keep to the score.
        """
        if self._new is not None:
            self._put_in_order(self._new)
        if self._strategy is Strategy.WEIGHTED:
            chosen = self._by_lot(judge, now)
        elif self._strategy is Strategy.HIGHEST_SCORE:
            chosen = self._by_score(judge, now)
        else:
            chosen = self._in_turn(judge, now, is_connected)
        if chosen is not None:
            self._turns += 1
            chosen.last_turn = self._turns
            rank = self._ranks.get(self._rank(chosen))
            if rank is not None and chosen in rank:  # else it was removed meanwhile
                rank.move_to_end(chosen)
        return chosen

    def _rank(self, candidate: CandidateT) -> int:
        return candidate.priority if self._is_ranked else 0

    def _in_turn(
        self, judge: Judge[CandidateT], now: float, is_connected: Callable[[CandidateT], bool] | None
    ) -> CandidateT | None:
        others: dict[Standing, list[CandidateT]] = {}
        for rank in self._ranks.values():
            candidates = iter(rank)
            for candidate in candidates:
                standing = judge(candidate)
                if standing is Standing.ABLE:
                    waited = self._turns - candidate.last_turn
                    if is_connected is None or waited >= _ROUNDS_WITHOUT * len(self._all):
                        return candidate
                    for one in itertools.chain((candidate,), candidates):
                        if is_connected(one) and judge(one) is Standing.ABLE:
                            return one
                    return candidate
                if standing is not None:
                    others.setdefault(standing, []).append(candidate)
        return self._best_of(others, now)

    def _by_lot(self, judge: Judge[CandidateT], now: float) -> CandidateT | None:
        everyone, lots = self._all, self._lots
        for _ in range(_DRAWS if everyone else 0):
            candidate = everyone[bisect.bisect_right(lots, self._draw() * lots[-1], hi=len(lots) - 1)]
            # Drawn as if its score were the most that it can be, and kept in proportion to what it is.
            kept = self._draw() * 2 / candidate.priority < score(candidate, now)
            if kept and judge(candidate) is Standing.ABLE:
                return candidate
        found: dict[Standing, list[CandidateT]] = {}
        for candidate in everyone:
            standing = judge(candidate)
            if standing is not None:
                found.setdefault(standing, []).append(candidate)
        return self._best_of(found, now)

    def _by_score(self, judge: Judge[CandidateT], now: float) -> CandidateT | None:
        others: dict[Standing, list[CandidateT]] = {}
        best, best_score = None, 0.0
        for priority, rank in self._ranks.items():
            if best_score >= 2 / priority:  # which is the most that a score can be there
                break
            # Within a rank the score is the higher the more recent the last success is. Mostly the first one
            # will do; only where it won't are they put in order.
            first = max(rank, key=_recency)
            for candidate in itertools.chain(
                (first,), (one for one in _latest_first(rank) if one is not first)
            ):
                standing = judge(candidate)
                if standing is Standing.ABLE:
                    if (its_score := score(candidate, now)) > best_score:
                        best, best_score = candidate, its_score
                    break
                if standing is not None:
                    others.setdefault(standing, []).append(candidate)
        return self._best_of(others, now) if best is None else best

    def _best_of(self, found: dict[Standing, list[CandidateT]], now: float) -> CandidateT | None:
        if not found:
            return None
        best = min(found)
        if best is Standing.FAILING:
            return min(found[best], key=_failure_age)
        if self._strategy is Strategy.HIGHEST_SCORE:
            return max(found[best], key=lambda one: score(one, now))
        if self._strategy is not Strategy.WEIGHTED:
            return found[best][0]
        return _drawn(found[best], now, self._draw())


def _drawn(candidates: Sequence[CandidateT], now: float, chance: float) -> CandidateT:
    sums = list(itertools.accumulate(score(candidate, now) for candidate in candidates))
    return candidates[bisect.bisect_right(sums, chance * sums[-1], hi=len(sums) - 1)]


def _failure_age(candidate: Candidate) -> tuple[float, int]:
    failed = -math.inf if candidate.last_failure is None else candidate.last_failure
    return failed, candidate.last_turn


def _recency(candidate: Candidate) -> float:
    return -math.inf if candidate.last_success is None else candidate.last_success


def _latest_first(rank: Iterable[CandidateT]) -> Iterator[CandidateT]:
    """Give them by their last successes; a generator, as mostly nobody asks for the second one."""
    yield from sorted(rank, key=_recency, reverse=True)
