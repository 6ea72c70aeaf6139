"""What is measured: curves with their points, the figures that are shown of each, and the goals."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import attrs

from tests.benchmarks.figures import ratios

#: Microseconds of each round, by curve, contender, figure and point; points are keyed as JSON has them.
Measured: TypeAlias = dict[str, dict[str, dict[str, dict[str, list[float]]]]]

OURS: Final = "trio_ipc"
NO_POLLING: Final = "no-polling"
BARE: Final = "bare-trio"
CONTENDERS: Final = {OURS: "trio_ipc", NO_POLLING: "trio_ipc, polling off", BARE: "bare Trio"}

KIB: Final = 1024
MIB: Final = 1024 * KIB

#: The largest response: a little less than the limit that is set for it.
MOST_BYTES: Final = 64 * MIB
_LITTLE: Final = 64

#: Connections that call at once where handlers take time, and calls in flight on a client that is shared.
AT_ONCE: Final = 128
IN_FLIGHT: Final = 64


@attrs.frozen
class Figure:
    """A curve's figure: what is shown of the microseconds a call, and beside what.

    Attributes:
        title: heads its table and its picture.
        of: takes the figures of a round by their names, and the point.
    """

    title: str
    of: Callable[[dict[str, float], float], float]


@attrs.frozen
class Curve:
    """What grows, and what is shown of it.

    Attributes:
        what: what grows, in words, with its unit.
        points: where it is measured.
        quick: where a quick run measures it.
        figures: what is shown.
        label: writes a point for people.
        least: how many calls a point takes at least, however long that is.
    """

    what: str
    points: Sequence[float]
    quick: Sequence[float]
    figures: Sequence[Figure]
    label: Callable[[float], str]
    least: int = 3


def _count(point: float) -> str:
    return f"{point:,.0f}"


def _size(point: float) -> str:
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if point + _LITTLE >= unit:
            return f"{(point + _LITTLE) // unit:.0f} {name}"
    return f"{point:.0f} B"


def _microseconds(point: float) -> str:
    return f"{point / 1000:g} ms" if point >= 1000 else f"{point:g} µs"


def _milliseconds(point: float) -> str:
    return f"{point:g} ms"


def _server(figures: dict[str, float], _: float) -> float:
    return figures["server_cpu_us"]


def _client(figures: dict[str, float], _: float) -> float:
    return figures["client_cpu_us"]


def _both(figures: dict[str, float], _: float) -> float:
    return figures["server_cpu_us"] + figures["client_cpu_us"]


def _ns_a_byte(figures: dict[str, float], size: float) -> float:
    return figures["us"] * 1000 / size


def _cpu_ns_a_byte(figures: dict[str, float], size: float) -> float:
    return _both(figures, size) * 1000 / size


def _a_second(figures: dict[str, float], _: float) -> float:
    return 1e6 / figures["us"]


CURVES: Final = {
    "connections": Curve(
        "connections open, one call at a time, each on the next one",
        (1, 4, 16, 64, 256, 1024, 4000),
        (1, 64, 1024),
        [Figure("CPU of the server, µs a call", _server)],
        _count,
    ),
    "callers": Curve(
        "callers at once",
        (1, 4, 16, 64, 65, 256, 1024),
        (1, 64, 1024),
        [Figure("CPU of server and client, µs a call", _both)],
        _count,
    ),
    "sizes": Curve(
        "size of the response",
        (10, KIB, 16 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 32 * MIB, MOST_BYTES - _LITTLE),
        (10, 16 * KIB, MIB),
        [
            Figure("time, ns a byte", _ns_a_byte),
            Figure("CPU of server and client, ns a byte", _cpu_ns_a_byte),
        ],
        _size,
    ),
    "pauses": Curve(
        "pause of the client before each call",
        (0, 50, 150, 500, 1_000, 5_000, 25_000),
        (0, 150, 25_000),
        [Figure("CPU of the server, µs a call", _server), Figure("CPU of the client, µs a call", _client)],
        _microseconds,
        least=100,
    ),
    "handlers": Curve(
        f"time that a handler takes, {AT_ONCE} connections at once",
        (0, 1, 5, 15),
        (0, 5),
        [
            Figure("calls a second", _a_second),
            Figure("CPU of the server, µs a call", _server),
        ],
        _milliseconds,
    ),
}


def key(point: float) -> str:
    """Return a point as JSON has it."""
    return f"{point:g}" if point < 1e6 else str(int(point))


def values(
    measured: Measured, curve: str, contender: str, point: float, figure: Figure
) -> list[float] | None:
    """Return a figure by rounds; None if it was not measured."""
    by_name = {
        name: by_point[key(point)]
        for name, by_point in measured.get(curve, {}).get(contender, {}).items()
        if key(point) in by_point
    }
    if not by_name:
        return None
    rounds = zip(*by_name.values(), strict=True)
    return [figure.of(dict(zip(by_name, figures, strict=True)), point) for figures in rounds]


# --- Goals --------------------------------------------------------------------------------------------------


@attrs.frozen
class Goal:
    """What should be reached: a ratio of two figures of the same round.

    Attributes:
        what: the ratio, in words.
        limit: what the median of the rounds must reach.
        above, below: contender and point of either. Above may have several points: the worst of them counts.
        figure: which figure of the curve.
        at_least: whether it must be the limit or more, instead of the limit or less.
    """

    what: str
    limit: float
    curve: str
    above: tuple[str, *tuple[float, ...]]
    below: tuple[str, float]
    figure: int = 0
    at_least: bool = False

    def judged(self, measured: Measured) -> dict[str, Any]:
        """Return how it came out, as JSON has it; ``values`` is None if it was not measured."""
        found = met = None
        of_points = self._of_points(measured)
        if of_points is not None:
            worst = min if self.at_least else max
            found = [float(f"{ratio:.4g}") for ratio in worst(of_points, key=statistics.median)]
            median = statistics.median(found)
            met = median >= self.limit if self.at_least else median <= self.limit
        return {
            "curve": self.curve,
            "what": self.what,
            "limit": self.limit,
            "at_least": self.at_least,
            "values": found,
            "met": met,
        }

    def _of_points(self, measured: Measured) -> list[list[float]] | None:
        """Return the ratios of the rounds at each point above; None if one of them was not measured."""
        figure, (contender, *points) = CURVES[self.curve].figures[self.figure], self.above
        below = values(measured, self.curve, *self.below, figure)
        above = [values(measured, self.curve, contender, point, figure) for point in points]
        if below is None or None in above:
            return None
        return [ratios(of_rounds, below) for of_rounds in above if of_rounds is not None]


GOALS: Final = (
    Goal(
        "1,024 connections in turn, CPU of the server: trio_ipc / bare Trio",
        1.6,
        "connections",
        (OURS, 1024),
        (BARE, 1024),
    ),
    Goal(
        "CPU a call of trio_ipc: 65, 256 or 1,024 callers, whichever takes most / 64 callers",
        1.2,
        "callers",
        (OURS, 65, 256, 1024),
        (OURS, 64),
    ),
    Goal(
        "a call each 25 ms, CPU of the server: trio_ipc / bare Trio",
        1.15,
        "pauses",
        (OURS, 25_000),
        (BARE, 25_000),
    ),
    Goal(
        "handlers of 5 ms, calls a second: trio_ipc / bare Trio",
        0.8,
        "handlers",
        (OURS, 5),
        (BARE, 5),
        at_least=True,
    ),
)
