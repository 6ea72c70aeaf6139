"""The goals, judged by ratios within a run. They are stated in docs/benchmarks.md, too."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import attrs

from .figures import Spread, ratios
from .others import PAUSES_US
from .suite import Measured
from .surroundings import Surroundings

#: Takes what was measured, and gives a number for each round. KeyError where something was not.
Values: TypeAlias = Callable[[Measured], Sequence[float]]


@attrs.frozen
class Goal:
    """What should be reached.

    Attributes:
        work: the piece of work it is about.
        what: the figure, in words; a ratio where nothing else is said.
        limit: what the median of the rounds must reach on a quiet machine.
        values: the figure, by rounds.
        at_least: whether it must be the limit or more, instead of the limit or less.
        strained: the limit where client and server share one core, and on a busy machine; None for no goal.
    """

    work: str
    what: str
    limit: float
    values: Values
    at_least: bool = False
    strained: float | None = None

    def on(self, surroundings: Surroundings) -> Goal | None:
        """Return the goal as it is in these surroundings, or None if there is none."""
        if surroundings is Surroundings.QUIET:
            return self
        return None if self.strained is None else attrs.evolve(self, limit=self.strained)

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


def _at_most_legacy(work: str) -> Goal:
    """The bar of ADR-0004: at most 5 % more latency than what can be rolled back to."""
    return Goal(work, "trio_ipc / legacy transport", 1.05, _ratio(work, "trio_ipc", "legacy"), False, 1.05)


def _pauses(microseconds: int) -> Goal:
    figure = f"paused_{microseconds}_cpu_us_per_call"
    what = f"CPU a call with pauses of {microseconds} µs, polling on / off"
    return Goal("p", what, 1.15, _ratio("p", "trio_ipc", "no-polling", figure), False, 1.15)


GOALS: Final = (
    Goal("a", "trio_ipc / blocking sockets' echo", 1.0, _ratio("a", "trio_ipc", "blocking")),
    Goal("a", "trio_ipc / multiprocessing.connection", 1.0, _ratio("a", "trio_ipc", "connection")),
    Goal("a", "trio_ipc / ZeroMQ", 1.0, _ratio("a", "trio_ipc", "zeromq")),
    Goal("a", "trio_ipc / asyncio streams", 0.5, _ratio("a", "trio_ipc", "asyncio"), False, 1.0),
    Goal("a", "gRPC asyncio / trio_ipc", 12.0, _ratio("a", "grpc-aio", "trio_ipc"), True),
    Goal("a", "trio_ipc.blocking / gRPC", 0.3, _ratio("a", "blocking-adapter", "grpc")),
    Goal("a", "trio_ipc.aio / gRPC asyncio", 0.4, _ratio("a", "aio-adapter", "grpc-aio")),
    Goal("a", "trio_ipc / Rust", 0.6, _ratio("a", "trio_ipc", "rust"), False, 1.5),
    _at_most_legacy("a"),
    Goal(
        "a",
        "trio_ipc with polling off / bare Trio echo",
        1.2,
        _ratio("a", "no-polling", "bare-trio"),
        False,
        1.25,
    ),
    Goal(
        "a",
        "CPU a call, resilient client / client",
        1.3,
        _ratio("a", "resilient", "trio_ipc", "cpu_us_per_call"),
        False,
        1.3,
    ),
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
        False,
        1.15,
    ),
    *(_pauses(pause) for pause in PAUSES_US),
    Goal(
        "p",
        "p99 of 16 callers, polling on / off",
        1.0,
        _ratio("p", "trio_ipc", "no-polling", "many_p99_us"),
        False,
        1.0,
    ),
    _at_most_legacy("b100"),
    Goal("b1000", "trio_ipc / (encode + decode + bare Trio echo)", 1.1, _records, False, 1.25),
    Goal("b1000", "gRPC asyncio / trio_ipc", 1.8, _ratio("b1000", "grpc-aio", "trio_ipc"), True),
    _at_most_legacy("b1000"),
    Goal("c", "throughput: blocking sockets / trio_ipc", 0.8, _ratio("c", "blocking", "trio_ipc"), True, 0.5),
    _at_most_legacy("c"),
    Goal(
        "d",
        "calls a second: gRPC asyncio's time a call / trio_ipc's",
        12.0,
        _ratio("d", "grpc-aio", "trio_ipc", "us_per_call"),
        True,
        10.0,
    ),
    Goal("d", "a call: trio_ipc / Rust", 1.5, _ratio("d", "trio_ipc", "rust", "us_per_call"), False, 1.5),
    Goal("e", "calls a second: (a)'s time a call / (e)'s", 4.0, _pipelined, True),
    Goal(
        "f",
        "trio_ipc / bare Trio connect, echo, close",
        1.2,
        _ratio("f", "trio_ipc", "bare-trio"),
        False,
        1.5,
    ),
    Goal("f", "trio_ipc / Rust connect, call, close", 2.0, _ratio("f", "trio_ipc", "rust"), False, 2.0),
    _at_most_legacy("f"),
    Goal("g", "server memory of an idle connection, KiB", 24.0, _connection_kib),
    Goal(
        "g",
        "memory of a server of 16, trio_ipc / legacy",
        1.10,
        _ratio("g", "trio_ipc", "legacy", "server_bytes_of_16"),
    ),
    Goal("h", "import trio_ipc / import trio and protobuf's messages", 1.5, _imports),
)


def verdicts(measured: Measured, surroundings: Surroundings = Surroundings.QUIET) -> list[Verdict]:
    """Judge every goal of the work that was measured."""
    found = []
    for goal in [goal.on(surroundings) for goal in GOALS]:
        if goal is not None and goal.work in measured:
            try:
                values: Sequence[float] | None = goal.values(measured)
            except KeyError:
                values = None
            found.append(Verdict(goal, values))
    return found
