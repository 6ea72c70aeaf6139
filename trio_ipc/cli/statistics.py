"""What a row of measured times says. Plain functions, without a clock."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest of the times that so large a share of them does not exceed (nearest rank).

    Args:
        ordered: at least one, the smallest first.
        share: more than 0, at most 1.
    """
    rank = -(-len(ordered) * share // 1)  # rounded up
    return ordered[max(1, int(rank)) - 1]


def percentile_bucket(counts: Sequence[int], share: float) -> int:
    """Return the bucket of a histogram that holds the smallest time that so large a share does not exceed.

    Args:
        counts: how many times are in each bucket, the shortest first; at least one in all.
        share: more than 0, at most 1.
    """
    rank = -(-sum(counts) * share // 1)
    return next(place for place, seen in enumerate(accumulate(counts)) if seen >= rank)


def summary(times: Sequence[float], elapsed: float) -> dict[str, Any]:
    """Return what times of calls say, in µs, and how many calls there were in a second.

    Args:
        times: of each call, in seconds; at least one.
        elapsed: how long all of them took together, in seconds.
    """
    ordered = sorted(times)
    micro = 1e6
    return {
        "calls": len(ordered),
        "seconds": round(elapsed, 6),
        "calls_per_second": round(len(ordered) / elapsed, 1) if elapsed else None,
        "min_us": round(ordered[0] * micro, 1),
        "mean_us": round(sum(ordered) / len(ordered) * micro, 1),
        "p50_us": round(percentile(ordered, 0.5) * micro, 1),
        "p90_us": round(percentile(ordered, 0.9) * micro, 1),
        "p99_us": round(percentile(ordered, 0.99) * micro, 1),
        "max_us": round(ordered[-1] * micro, 1),
    }
