"""Medians, ratios within a round, and their spread over the rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Self

import attrs


@attrs.frozen
class Spread:
    """The median of several rounds, with the least and the most of them."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f} to {self.most:,.{digits}f})"


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Divide round by round: what disturbed the machine in a round disturbed both."""
    return [above / below for above, below in zip(numerators, denominators, strict=True)]
