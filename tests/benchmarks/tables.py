"""The tables of a run, from its JSON document: on the terminal, and as Markdown for the docs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Final

import attrs
from rich.table import Table

from .figures import Spread, ratios
from .others import PAUSES_US
from .pieces import NAMES, OTHER, TIMED

OURS: Final = "trio_ipc"


@attrs.frozen
class Rows:
    """A table before it has a form."""

    title: str
    heading: Sequence[str]
    rows: Sequence[Sequence[str]]

    def for_terminal(self) -> Table:
        table = Table(title=self.title, title_justify="left", title_style="bold")
        for index, heading in enumerate(self.heading):
            table.add_column(heading, justify="left" if index == 0 else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*row, style="bold" if row[0] == OURS else None)
        return table

    def as_markdown(self) -> str:
        lines = [self.heading, ["---", *["---:"] * (len(self.heading) - 1)], *self.rows]
        return f"**{self.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def tables(document: dict[str, Any]) -> list[Rows]:
    """Return every table of a run, the goals last."""
    measured = document["measured"]
    found = [
        _timed(work, document) if work in TIMED else _OTHERS[work](document)
        for work in NAMES
        if work in measured
    ]
    if document["goals"]:
        found.append(_goals(document))
    return found


def _timed(work: str, document: dict[str, Any]) -> Rows:
    piece, results = TIMED[work], document["measured"][work]
    rows = []
    for name in sorted(results, key=lambda name: statistics.median(results[name][piece.figure])):
        figures = results[name]
        mine = figures[piece.figure]
        against = Spread.of(ratios(mine, results[OURS][piece.figure])).text() if OURS in results else "-"
        rows.append(
            [
                document["contenders"][name],
                _number(mine),
                "1" if name == OURS else against,
                _number([1e6 / each for each in figures["us_per_call"]]),
                _number(figures["p99_us"]),
                _number(figures.get("cpu_us_per_call")),
            ]
        )
    heading = ["contender", "µs a call", "against trio_ipc (rounds)", "calls/s", "p99, µs", "CPU µs a call"]
    return Rows(f"({work}) {piece.what}", heading, rows)


def _memory(document: dict[str, Any]) -> Rows:
    rows = [
        [
            document["contenders"][name],
            _number([size / 1024 for size in figures["connection_bytes"]]),
            _number([size / 1024**2 for size in figures["server_bytes_of_0"]]),
            _number([size / 1024**2 for size in figures["server_bytes_of_16"]]),
        ]
        for name, figures in document["measured"]["g"].items()
        if figures
    ]
    heading = ["contender", "KiB a connection", "server of none, MiB", "server of 16, MiB"]
    return Rows(f"(g) {OTHER['g']}", heading, rows)


def _startup(document: dict[str, Any]) -> Rows:
    rows = [
        [
            document["contenders"].get(name, name),
            _number(figures.get("import_ms")),
            _number(figures.get("first_response_ms")),
        ]
        for name, figures in document["measured"]["h"].items()
    ]
    return Rows(f"(h) {OTHER['h']}", ["contender", "import, ms", "to first response, ms"], rows)


def _polling(document: dict[str, Any]) -> Rows:
    rows = [
        [
            document["contenders"][name],
            _number(figures.get("idle_cpu_ms"), 2),
            _number(figures.get("connection_idle_cpu_us"), 1),
            _number(figures.get("slow_cpu_us_per_call")),
            *(_number(figures.get(f"paused_{pause}_cpu_us_per_call")) for pause in PAUSES_US),
            _number(figures["many_p99_us"]),
            _number([1e6 / each for each in figures["many_us_per_call"]]),
        ]
        for name, figures in document["measured"]["p"].items()
    ]
    heading = [
        "contender",
        "idle with one connection, CPU ms",
        "each of 128 more, CPU µs",
        "CPU µs a call, handlers of 1 ms",
        *(f"pauses of {pause} µs" for pause in PAUSES_US),
        "p99 of 16 connections, µs",
        "their calls/s",
    ]
    return Rows(f"(p) {OTHER['p']}", heading, rows)


def _codec(document: dict[str, Any]) -> Rows:
    rows = []
    for figures in document["measured"]["codec"].values():
        size = figures["bytes"][0]
        for label, step in _STEPS.items():
            rows.append(
                [
                    f"{size:,.0f} bytes, {label}",
                    _number(figures[step], 2),
                    _number([1e6 / each for each in figures[step]]),
                    _number([size / each for each in figures[step]]),
                ]
            )
    return Rows("(codec) a result, without any I/O", ["step", "µs", "messages/s", "MB/s"], rows)


_STEPS: Final = {
    "protobuf encode": "protobuf_encode_us",
    "protobuf decode": "protobuf_decode_us",
    "frame encode": "frame_encode_us",
    "frame decode": "frame_decode_us",
}

_OTHERS: Final = {"g": _memory, "h": _startup, "p": _polling, "codec": _codec}


def _goals(document: dict[str, Any]) -> Rows:
    rows = []
    for goal in document["goals"]:
        values = goal["values"]
        rows.append(
            [
                f"({goal['work']}) {goal['what']}",
                f"{'≥' if goal['at_least'] else '≤'} {goal['limit']:g}",
                "not measured" if values is None else Spread.of(values).text(),
                {True: "met", False: "missed", None: "-"}[goal["met"]],
            ]
        )
    return Rows("Goals", ["figure", "goal", "measured (rounds)", ""], rows)


def _number(values: Sequence[float] | None, digits: int | None = None) -> str:
    """The median, with as many digits as it deserves."""
    if not values:
        return "-"
    median = statistics.median(values)
    if digits is None:
        digits = 1 if median < 100 else 0
    return f"{median:,.{digits}f}"
