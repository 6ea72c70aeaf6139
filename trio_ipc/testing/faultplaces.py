"""Where rules of faults hit a stream: at a byte, in a frame, or where chance has it.

What chance has depends on the key alone, so that the same seed finds the same places. This module must never
look at a byte, and never know what a fault does there.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Sequence
from typing import Final, Self

from .faultrules import Fault, Rule

#: Bytes; more than any stream has.
_LONGEST_GAP: Final = 2**63


class Places:
    """The next places where faults hit.

    Args:
        rules: the faults, and where.
        key: what chance is drawn from, together with the rule's number.

    Attributes:
        next: for each rule, the position that it hits next.
    """

    def __init__(self, rules: Sequence[Rule], key: str) -> None:
        self._rules = tuple(rules)
        self._key = key
        self._draws = [0] * len(self._rules)
        self._frame = 0
        self.next: list[float] = [self._first_hit(number) for number in range(len(self._rules))]

    def begin_frame(self, position: int) -> None:
        """Say that the next frame begins here."""
        self._frame += 1
        for number, rule in enumerate(self._rules):
            if rule.frame is not None or rule.each_frame:
                struck = rule.frame == self._frame or (
                    rule.each_frame and self.chance(number).random() < rule.probability
                )
                self.next[number] = position + rule.offset if struck else math.inf

    def struck(self, position: int) -> Iterator[tuple[int, Fault]]:
        """Give the faults that hit here, each with its rule's number."""
        for number, rule in enumerate(self._rules):
            if self.next[number] == position:
                self.next[number] = self._later_hit(number, position)
                yield number, rule.fault

    def chance(self, number: int) -> random.Random:
        """Return what to draw from once, for the rule of this number."""
        # Each draw has a seed of its own, so that rules don't disturb each other and the state is a number.
        self._draws[number] += 1
        return random.Random(f"{self._key}/{number}/{self._draws[number]}")  # noqa: S311 - to be foreseen

    def copied(self) -> Self:
        """Return the same places, for who only tries what would happen."""
        copied = copy.copy(self)
        vars(copied).update(next=[*self.next], _draws=[*self._draws])
        return copied

    def _first_hit(self, number: int) -> float:
        rule = self._rules[number]
        if rule.byte is not None:
            return rule.byte
        if rule.frame is not None or rule.each_frame:
            return math.inf
        return self._gap(number)

    def _later_hit(self, number: int, position: int) -> float:
        rule = self._rules[number]
        once = rule.byte is not None or rule.frame is not None or rule.each_frame
        return math.inf if once else position + 1 + self._gap(number)

    def _gap(self, number: int) -> int:
        """Return how many bytes are spared before the next is hit, if each is with a probability."""
        probability = self._rules[number].probability
        if probability == 1:
            return 0
        # Inversion of the geometric distribution; one draw for a gap instead of one for each byte.
        gap = math.log(1 - self.chance(number).random()) / math.log1p(-probability)
        return int(min(gap, _LONGEST_GAP))
