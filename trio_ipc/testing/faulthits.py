"""Which faults have taken effect: told when what they have touched is given out, and not before.

What a fault has done to bytes that nobody was given has changed nothing. This module must never tell of a
fault that did not matter to who reads or sends, and never tell of one twice.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable

import attrs

from .faultrules import Fault


@attrs.define(eq=False)
class Strike:
    """A fault that has begun at a byte. It is a hit once what it has touched was given out.

    Attributes:
        position: of the byte, as it came.
        fault: what it is.
        has_touched: whether it has touched anything yet.
        is_told: whether it was told.
    """

    position: int
    fault: Fault
    has_touched: bool = False
    is_told: bool = False


class Hits:
    """What is to be told of the faults of one direction of one stream.

    Args:
        tell: told of every hit, once. None for who only tries what would happen: nothing is changed then.
    """

    def __init__(self, tell: Callable[[int, Fault], None] | None) -> None:
        self._tell = tell
        self._due: list[tuple[int, int, Strike]] = []  # a heap
        self._borders: deque[tuple[int, list[Strike]]] = deque()
        self._count = 0
        self._given = 0
        self._cut_at = -1

    def touch(self, strikes: Iterable[Strike], at: int) -> None:
        """Say that these touch something, and that it matters once so many bytes were given out in all."""
        if self._tell is None:
            return
        for strike in strikes:
            if not strike.has_touched:
                strike.has_touched = True
                self._count += 1  # those of one byte are told in their order
                heapq.heappush(self._due, (at, self._count, strike))
        self.given(0)

    def part(self, strikes: Iterable[Strike], at: int) -> None:
        """Say that these end a piece there: it matters to who would else have got beyond it."""
        if self._tell is None:
            return
        untold = [strike for strike in strikes if not strike.is_told]
        if at > self._given:
            self._borders.append((at, untold))
        elif at == self._cut_at:
            self._tell_all(untold)

    def given(self, count: int, *, cut: bool = True) -> None:
        """Say that so many more bytes were given out, and whether more were asked for."""
        self._given += count
        if count:
            self._cut_at = self._given if cut else -1
        while self._due and self._due[0][0] <= self._given:
            self._tell_all([heapq.heappop(self._due)[2]])
        while self._borders and self._borders[0][0] <= self._given:
            at, strikes = self._borders.popleft()
            if cut or at < self._given:
                self._tell_all(strikes)

    def _tell_all(self, strikes: Iterable[Strike]) -> None:
        for strike in strikes:
            if self._tell is not None and not strike.is_told:
                strike.is_told = True
                self._tell(strike.position, strike.fault)
