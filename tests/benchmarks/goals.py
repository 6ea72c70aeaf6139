"""The goals, judged by ratios within a run. They are stated in docs/benchmarks.md, too."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import attrs

from .figures import Spread, ratios
from .suite import Measured

#: Takes what was measured, and gives a number for each round. KeyError where something was not.
Values: TypeAlias = Callable[[Measured], Sequence[float]]


@attrs.frozen
class Goal:
    """What should be reached.

    Attributes:
        work: the piece of work it is about.
        what: the figure, in words; a ratio where nothing else is said.
        limit: what the median of the rounds must reach.
        values: the figure, by rounds.
        at_least: whether it must be the limit or more, instead of the limit or less.
    """

    work: str
    what: str
    limit: float
    values: Values
    at_least: bool = False

    @property
    def wanted(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@attrs.frozen
class Verdict:
    """A goal, and how it came out; ``values`` is None if it was not measured."""

    goal: Goal
    values: Sequence[float] | None

    @property
    def met(self) -> bool | None:
        if self.values is None:
            return None
        median = statistics.median(self.values)
        return median >= self.goal.limit if self.goal.at_least else median <= self.goal.limit

    @property
    def measured(self) -> str:
        return "not measured" if self.values is None else Spread.of(self.values).text()

    @property
    def said(self) -> str:
        return {True: "met", False: "missed", None: "-"}[self.met]

    def as_json(self) -> dict[str, Any]:
        goal = self.goal
        values = None if self.values is None else [float(f"{value:.4g}") for value in self.values]
        return {
            "work": goal.work,
            "what": goal.what,
            "limit": goal.limit,
            "at_least": goal.at_least,
            "values": values,
            "met": self.met,
        }


def _ratio(work: str, above: str, below: str, figure: str = "us") -> Values:
    return lambda measured: ratios(measured[work][above][figure], measured[work][below][figure])


def _records(measured: Measured) -> list[float]:
    whole = measured["b1000"]["trio_ipc"]["us"]
    transfer = measured["b1000"]["bare-trio"]["us"]
    protobuf = measured["codec"]["1000"]["protobuf_call_us"]
    return ratios(whole, [sum(parts) for parts in zip(transfer, protobuf, strict=True)])


def _pipelined(measured: Measured) -> list[float]:
    return ratios(
        measured["a"]["trio_ipc"]["us_per_call"],
        measured["e"]["trio_ipc"]["us_per_call"],
    )


def _connection_kib(measured: Measured) -> list[float]:
    return [size / 1024 for size in measured["g"]["trio_ipc"]["connection_bytes"]]


def _imports(measured: Measured) -> list[float]:
    found = measured["h"]
    return ratios(found["trio_ipc"]["import_ms"], found["trio and protobuf"]["import_ms"])


GOALS: Final = (
    Goal("a", "trio_ipc / blocking sockets' echo", 1.0, _ratio("a", "trio_ipc", "blocking")),
    Goal("a", "trio_ipc / multiprocessing.connection", 1.0, _ratio("a", "trio_ipc", "connection")),
    Goal("a", "trio_ipc / ZeroMQ", 1.0, _ratio("a", "trio_ipc", "zeromq")),
    Goal("a", "trio_ipc / asyncio streams", 1.0, _ratio("a", "trio_ipc", "asyncio")),
    Goal("a", "gRPC asyncio / trio_ipc", 12.0, _ratio("a", "grpc-aio", "trio_ipc"), at_least=True),
    Goal("a", "trio_ipc with polling off / bare Trio echo", 1.35, _ratio("a", "no-polling", "bare-trio")),
    Goal(
        "p",
        "CPU of an idle connection in 10 s, both sides, µs",
        10.0,
        lambda measured: measured["p"]["trio_ipc"]["connection_idle_cpu_us"],
    ),
    Goal(
        "p",
        "CPU a call with handlers of 1 ms, polling on / off",
        1.15,
        _ratio("p", "trio_ipc", "no-polling", "slow_cpu_us_per_call"),
    ),
    Goal(
        "p",
        "p99 of 16 callers, polling on / off",
        1.0,
        _ratio("p", "trio_ipc", "no-polling", "many_p99_us"),
    ),
    Goal("b1000", "trio_ipc / (encode + decode + bare Trio echo)", 1.25, _records),
    Goal("b1000", "gRPC asyncio / trio_ipc", 1.8, _ratio("b1000", "grpc-aio", "trio_ipc"), at_least=True),
    Goal("c", "throughput: blocking sockets / trio_ipc", 0.8, _ratio("c", "blocking", "trio_ipc"), True),
    Goal(
        "d",
        "calls a second: gRPC asyncio's time a call / trio_ipc's",
        10.0,
        _ratio("d", "grpc-aio", "trio_ipc", "us_per_call"),
        at_least=True,
    ),
    Goal("e", "calls a second: (a)'s time a call / (e)'s", 4.0, _pipelined, at_least=True),
    Goal("f", "trio_ipc / bare Trio connect, echo, close", 2.0, _ratio("f", "trio_ipc", "bare-trio")),
    Goal("g", "server memory of an idle connection, KiB", 24.0, _connection_kib),
    Goal(
        "g",
        "memory of a server of 16, trio_ipc / legacy",
        1.10,
        _ratio("g", "trio_ipc", "legacy", "server_bytes_of_16"),
    ),
    Goal("h", "import trio_ipc / import trio and protobuf's messages", 1.5, _imports),
)


def verdicts(measured: Measured) -> list[Verdict]:
    """Judge every goal of the work that was measured."""
    found = []
    for goal in GOALS:
        if goal.work in measured:
            try:
                values: Sequence[float] | None = goal.values(measured)
            except KeyError:
                values = None
            found.append(Verdict(goal, values))
    return found
