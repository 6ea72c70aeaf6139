"""How long things took, counted in fixed buckets.

An observation is one bisection and two additions. This module must never read a clock.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import Final

import attrs

#: Upper bounds of the buckets, in seconds; one more bucket takes what is above. A round trip between two
#: processes takes some 80 µs here (docs/architecture.md), and the default deadlines are 10 and 30 s.
LATENCY_BOUNDS: Final = (
    *(25e-6, 50e-6, 100e-6, 250e-6, 500e-6),
    *(1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)

_FIRST_BOUND: Final = LATENCY_BOUNDS[0]


@attrs.frozen(kw_only=True)
class HistogramSnapshot:
    """How often each length of time was seen.

    Attributes:
        bounds: the buckets' upper bounds in seconds, :data:`LATENCY_BOUNDS`. A value that equals a bound
            is in that bound's bucket.
        counts: how many values are in each bucket, and in the last one how many above all bounds: there
            is one more than bounds.
        sum: of all values, in seconds.
    """

    bounds: tuple[float, ...] = LATENCY_BOUNDS
    counts: tuple[int, ...] = (0,) * (len(LATENCY_BOUNDS) + 1)
    sum: float = 0.0

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Their mean in seconds, 0 if there were none."""
        return self.sum / self.count if self.count else 0.0

    def cumulative(self) -> tuple[int, ...]:
        """Return how many values are at most each bound, and last how many there are at all."""
        return tuple(accumulate(self.counts))

    def __add__(self, other: HistogramSnapshot) -> HistogramSnapshot:
        """Put two together, as if all values had been seen in one place."""
        counts = tuple(mine + its for mine, its in zip(self.counts, other.counts, strict=True))
        return HistogramSnapshot(counts=counts, sum=self.sum + other.sum)


class Histogram:
    """What the hot path counts into."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(LATENCY_BOUNDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count a value."""
        # Most handlers are in the first bucket. Without this look a call of 64 took 1.03 times as long.
        self._counts[0 if seconds <= _FIRST_BOUND else bisect_left(LATENCY_BOUNDS, seconds)] += 1
        self._sum += seconds

    def observe_often(self, seconds: float, times: int) -> None:
        """Count a value as often as it was seen."""
        self._counts[bisect_left(LATENCY_BOUNDS, seconds)] += times
        self._sum += seconds * times

    def snapshot(self) -> HistogramSnapshot:
        """Return a copy as it is now."""
        return HistogramSnapshot(counts=tuple(self._counts), sum=self._sum)
