"""A server's counters for ``top``: read from the file that it writes, and what two readings say together.

Nothing is asked of the server. The file may be anybody's: nothing in it is believed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from trio_ipc.transports.findings import moment

from .statistics import percentile_bucket

#: Bytes of a file that are read. A snapshot has some 3,000.
_MOST_BYTES: Final = 1_000_000

#: No counter is larger: what a signed number of 64 bits holds.
_MOST: Final = 2**63 - 1

#: A file is out of date after so many seconds, or so many times what passed between the last two writings.
_STALE_SECONDS: Final = 10.0
_STALE_TIMES: Final = 3.0

_TEXTS: Final = ("endpoint", "contract", "transport")
_GAUGES: Final = ("connections_active", "connections_waiting", "requests_in_flight")
_COUNTERS: Final = (
    "connections_accepted",
    "connections_left",
    "requests",
    "requests_answered",
    "frames_received",
    "frames_sent",
    "bytes_received",
    "bytes_sent",
)
_KINDS: Final = ("connections_refused", "connections_closed", "requests_failed", "timeouts")

#: What is shown, in order: the counter, what people are told, and whether it is there where it is 0.
_ROWS: Final = (
    ("connections_active", "connections now", True),
    ("connections_waiting", "connections waiting", True),
    ("connections_accepted", "connections accepted", True),
    ("connections_refused", "refused", False),
    ("connections_left", "left before a place", False),
    ("connections_closed", "closed", False),
    ("requests_in_flight", "requests in flight", True),
    ("requests", "requests", True),
    ("requests_answered", "requests answered", True),
    ("requests_failed", "failed", False),
    ("timeouts", "timeouts", False),
    ("frames_received", "frames received", True),
    ("frames_sent", "frames sent", True),
    ("bytes_received", "bytes received", True),
    ("bytes_sent", "bytes sent", True),
)


class NoCountersError(Exception):
    """The file holds no counters of a server."""


@attrs.frozen
class Reading:
    """What a file said.

    Attributes:
        file: its name.
        counters: a :class:`~trio_ipc.ServerSnapshot`, as its ``as_dict`` gives it.
        written: when, in seconds of the system's clock.
    """

    file: str
    counters: dict[str, Any]
    written: float


@attrs.frozen
class Row:
    """A line of the view.

    Attributes:
        name: what is counted.
        value: how often, or how long.
        each_second: how often in a second, None where that says nothing or is not known yet.
    """

    name: str
    value: str
    each_second: float | None = None


def read(file: str) -> Reading:
    """Read a server's counters.

    Raises:
        OSError: the file cannot be read.
        NoCountersError: it holds something else.
    """
    with open(file, "rb", opener=_without_a_wait) as opened:
        written = os.fstat(opened.fileno()).st_mtime
        data = opened.read(_MOST_BYTES + 1) or b""  # None where something may still come
    try:
        value = json.loads(data) if len(data) <= _MOST_BYTES else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not _is_snapshot(value):
        raise NoCountersError(
            "it holds no counters of a trio_ipc server; give the file of run_service's snapshot_file, or of "
            "'trio-ipc serve --snapshot-file'"
        )
    return Reading(file, value, written)


def _without_a_wait(file: str, flags: int) -> int:
    # A FIFO would be waited for until somebody writes into it (fifo(7)). Windows has none at a path.
    return os.open(file, flags | getattr(os, "O_NONBLOCK", 0))


def _is_snapshot(value: dict[str, Any]) -> bool:
    return (
        all(isinstance(value.get(name), str) for name in _TEXTS)
        and _is_number(value.get("uptime_seconds"))
        and all(_is_count(value.get(name)) for name in (*_GAUGES, *_COUNTERS))
        and all(_are_counts(value.get(name)) for name in _KINDS)
        and _is_histogram(value.get("handler_seconds"))
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value)


def _are_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_count, value.values()))


def _is_histogram(value: Any) -> bool:
    if not isinstance(value, dict) or not _is_number(value.get("sum")):
        return False
    bounds, counts = value.get("bounds"), value.get("counts")
    return (
        isinstance(bounds, list)
        and isinstance(counts, list)
        and len(counts) == len(bounds) + 1
        and all(map(_is_number, bounds))
        and all(map(_is_count, counts))
    )


# --- Two readings -------------------------------------------------------------------------------------------


@attrs.frozen
class View:
    """A server at one moment, and what it did since the reading before.

    Attributes:
        now: the last reading.
        before: the one before it that says something else, of the same run of the server; None for none.
    """

    now: Reading
    before: Reading | None = None

    def followed_by(self, later: Reading) -> View:
        """Return the view after a further reading, which may say what this one does."""
        if later.written == self.now.written and later.counters == self.now.counters:
            return self
        # By the server's own clock: it goes back where another server has begun, or this one once more.
        is_same_run = later.counters["uptime_seconds"] > self.now.counters["uptime_seconds"] and all(
            later.counters[name] >= self.now.counters[name] for name in _COUNTERS
        )
        return View(later, self.now if is_same_run else None)

    @property
    def seconds(self) -> float | None:
        """How long it was between the two, by the server's clock; None where there is one only."""
        if self.before is None:
            return None
        elapsed: float = self.now.counters["uptime_seconds"] - self.before.counters["uptime_seconds"]
        return elapsed

    def is_stale(self, time: float) -> bool:
        """Return whether it should have been written again by now, a time of the system's clock."""
        usual = 0.0 if self.before is None else self.now.written - self.before.written
        return time - self.now.written > max(_STALE_SECONDS, _STALE_TIMES * usual)

    def each_second(self, name: str, kind: str | None = None) -> float | None:
        """Return how often something happened in a second."""
        if self.before is None or self.seconds is None or name in _GAUGES:
            return None
        count = _count(self.now, name, kind) - _count(self.before, name, kind)
        return max(0.0, count) / self.seconds

    def handler(self) -> dict[str, Any]:
        """Return how long handlers took between the two readings, or since the server's start.

        A bucket tells no more than that none of its times was longer than its bound, in seconds; of the last
        one nothing is known, and it is None.
        """
        histogram = self.now.counters["handler_seconds"]
        counts, total = histogram["counts"], histogram["sum"]
        if self.before is not None:
            earlier = self.before.counters["handler_seconds"]
            if earlier["bounds"] == histogram["bounds"]:
                counts = [max(0, one - other) for one, other in zip(counts, earlier["counts"], strict=True)]
                total = max(0.0, total - earlier["sum"])
        ended = sum(counts)
        bounds = [*histogram["bounds"], None]
        return {
            "ended": ended,
            "mean_seconds": total / ended if ended else None,
            "p50_at_most_seconds": bounds[percentile_bucket(counts, 0.5)] if ended else None,
            "p99_at_most_seconds": bounds[percentile_bucket(counts, 0.99)] if ended else None,
        }

    def as_json(self, time: float) -> dict[str, Any]:
        """Return it as what :mod:`json` can write, at a time of the system's clock."""
        rates = None
        if self.before is not None:
            rates = {name: self.each_second(name) for name in _COUNTERS}
            for name in _KINDS:
                rates |= {f"{name}.{one}": self.each_second(name, one) for one in self.now.counters[name]}
            rates = {name: None if rate is None else round(rate, 3) for name, rate in rates.items()}
        return {
            "file": self.now.file,
            "written": moment(self.now.written, "milliseconds"),
            "stale": self.is_stale(time),
            "seconds": None if self.seconds is None else round(self.seconds, 6),
            "each_second": rates,
            "handler": self.handler(),
            "counters": self.now.counters,
        }

    def rows(self) -> Iterator[Row]:
        """Give the counters as people read them."""
        for name, told, always in _ROWS:
            value = self.now.counters[name]
            if isinstance(value, Mapping):
                for kind, count in value.items():
                    if count:
                        yield Row(f"{told}: {kind}", f"{count:,}", self.each_second(name, kind))
            elif value or always:
                yield Row(told, f"{value:,}", self.each_second(name))
        handler = self.handler()
        if handler["ended"]:
            yield Row("handler, mean", duration(handler["mean_seconds"]))
            for share in (50, 99):
                bound = handler[f"p{share}_at_most_seconds"]
                longest = self.now.counters["handler_seconds"]["bounds"][-1:]
                text = f"<= {duration(bound)}" if bound is not None else f"> {duration(sum(longest))}"
                yield Row(f"handler, {share} of 100", text)

    def head(self, time: float) -> Iterator[tuple[str, str, bool]]:
        """Give what is known of the server: a name, a text, and whether that is bad."""
        counters = self.now.counters
        for name in _TEXTS:
            yield name, counters[name], False
        yield "up", span(counters["uptime_seconds"]), False
        if counters.get("endpoint_intact") is False:
            yield "socket", "no longer as the server made it", True
        ago = f"{span(max(0.0, time - self.now.written))} ago"
        if self.is_stale(time):
            yield "written", f"{ago}: the server has ended, hangs, or writes at a signal only", True
        else:
            yield "written", ago, False


def _count(reading: Reading, name: str, kind: str | None) -> float:
    value = reading.counters[name]
    count: float = value if kind is None else value.get(kind, 0)
    return count


def duration(seconds: float) -> str:
    """Return a short time for people."""
    for least, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= least:
            return f"{seconds / least:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def span(seconds: float) -> str:
    """Return a long time for people, by its two largest units."""
    whole = int(seconds)
    parts: Sequence[tuple[int, str]] = (
        (whole // 86_400, "d"),
        (whole // 3_600 % 24, "h"),
        (whole // 60 % 60, "min"),
        (whole % 60, "s"),
    )
    first = next((place for place, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2])
