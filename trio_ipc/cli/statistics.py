"""What a row of measured times says. Plain functions, without a clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest of the times that so large a share of them does not exceed (nearest rank).

    Args:
        ordered: at least one, the smallest first.
        share: more than 0, at most 1.
    """
    rank = -(-len(ordered) * share // 1)  # rounded up
    return ordered[max(1, int(rank)) - 1]


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
