"""Which faults have taken effect: told when what they have touched is given out, and not before.

What a fault has done to bytes that nobody was given has changed nothing. This module must never tell of a
fault that did not matter to who reads or sends, and never tell of one twice.
"""

from __future__ import annotations

import heapq
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
    """

    position: int
    fault: Fault
    has_touched: bool = False


class Hits:
    """What is to be told of the faults of one direction of one stream.

    Args:
        tell: told of every hit, once. None for who only tries what would happen: nothing is changed then.
    """

    def __init__(self, tell: Callable[[int, Fault], None] | None) -> None:
        self._tell = tell
        self._due: list[tuple[int, int, Strike]] = []  # a heap
        self._count = 0
        self._given = 0

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

    def given(self, count: int) -> None:
        """Say that so many more bytes were given out."""
        self._given += count
        while self._tell is not None and self._due and self._due[0][0] <= self._given:
            _, _, strike = heapq.heappop(self._due)
            self._tell(strike.position, strike.fault)
