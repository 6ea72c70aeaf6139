"""Which bytes of a stream are lost, and to which fault, where several lose the same.

This module must never tell of a loss: it says only whose it is.
"""

from __future__ import annotations

import copy
import math
from typing import Self

from .faulthits import Strike
from .faultrules import Drop, Truncate


class Losses:
    """What loses bytes now, of one direction of one stream."""

    def __init__(self) -> None:
        self._drops: list[tuple[float, Strike]] = []  # up to where; each ends later than the one before it
        self._truncating: Strike | None = None

    @property
    def first(self) -> Strike | None:
        """What loses the next byte: of several, the one that began first. None if it is not lost."""
        drop = self._drops[0][1] if self._drops else None
        cut = self._truncating
        return drop if cut is None or (drop is not None and drop.position < cut.position) else cut

    @property
    def until(self) -> float:
        """Where the next of them ends, other than with the frame."""
        return self._drops[0][0] if self._drops else 0

    def begin(self, fault: Drop | Truncate, strike: Strike) -> None:
        """Lose bytes from here on. One that loses nothing which others don't is left out."""
        if isinstance(fault, Truncate):
            self._truncating = self._truncating or strike
            return
        until = math.inf if fault.count is None else strike.position + fault.count
        if not self._drops or self._drops[-1][0] < until:
            self._drops.append((until, strike))

    def arrive(self, position: int, *, frame_ended: bool) -> None:
        """Come to a byte: end what ends before it."""
        if self._drops and self._drops[0][0] == position:
            del self._drops[0]
        if frame_ended:
            self._truncating = None

    def copied(self) -> Self:
        """Return the same, for who only tries what would happen."""
        copied = copy.copy(self)
        vars(copied).update(_drops=[*self._drops])
        return copied
