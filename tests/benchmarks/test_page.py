"""What docs/benchmarks.md says outside of its tables is what was measured for them."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.figures import ratios

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
RUN: dict[str, Any] = json.loads((ROOT / "docs" / "benchmarks.json").read_text(encoding="utf-8"))


def micros(work: str, contender: str) -> float:
    """The median of a contender's time, µs a call."""
    kind = "us_per_call" if work == "d" else "us"  # an operation of (d) is a call of each caller
    rounds: list[float] = RUN["measured"][work][contender][kind]
    return statistics.median(rounds)


def times_ours(work: str, contender: str) -> float:
    """How many times as long a contender takes, by the tables: the median of ratios within a round."""
    of_work = RUN["measured"][work]
    figure = "us" if work == "a" else "us_per_call"  # as the tables have it
    return round(statistics.median(ratios(of_work[contender][figure], of_work["trio_ipc"][figure])), 1)


def measured(work: str, what: str) -> float:
    """The median that was measured for a goal."""
    [rounds] = [one["values"] for one in RUN["goals"] if one["work"] == work and one["what"] == what]
    return float(statistics.median(rounds))


def said(pattern: str) -> list[float]:
    """The figures in the one sentence that matches."""
    [found] = re.finditer(pattern, PAGE)
    return [float(figure.replace(",", "")) for figure in found.groups()]


@pytest.mark.parametrize(
    ("work", "contenders", "sentence"),
    [
        (
            "a",
            ["trio_ipc", "no-polling", "blocking", "connection"],
            r"(\d+) µs a call instead of (\d+), beside (\d+) of the blocking echo and (\d+) of `multi",
        ),
        (
            "a",
            ["blocking", "rust"],
            r"wakes both processes in each round trip, takes (\d+) µs, and Rust (\d+)\.",
        ),
        (
            "a",
            ["no-polling", "bare-trio"],
            r"polling off beside bare Trio\*\*: (\d+) and (\d+) µs",
        ),
        (
            "d",
            ["resilient", "trio_ipc"],
            r"In \(d\) a call of theirs takes (\d+) µs, and (\d+) on a client that 16 callers share\.",
        ),
        (
            "b1000",
            ["trio_ipc", "rust", "go"],
            r"for 1,000 records `trio_ipc` takes ([\d,]+) µs, Rust ([\d,]+) and Go ([\d,]+)\.",
        ),
        ("a", ["rust", "go"], r"Their calls take (\d+) and (\d+) µs"),
        ("c", ["blocking"], r"beside the echo's whole (\d+)\."),
    ],
)
def test_times_in_sentences_are_those_of_the_quiet_run(
    work: str, contenders: list[str], sentence: str
) -> None:
    assert said(sentence) == [round(micros(work, contender)) for contender in contenders]


def test_how_much_longer_asyncio_takes_is_that_of_the_quiet_run() -> None:
    alone, pipelined = (
        r"uvloop takes (\S+) times as long, and asyncio (\S+) times; ",
        r"they take (\S+) and (\S+) times",
    )
    contenders = ("uvloop", "asyncio")
    assert said(f"{alone}.* {pipelined}") == [
        times_ours(work, contender) for work in "ae" for contender in contenders
    ]
    assert all(micros("d", contender) < micros("d", "trio_ipc") for contender in contenders)
    assert micros("f", "uvloop") < micros("f", "trio_ipc")


def test_what_starting_takes_is_that_of_the_quiet_run() -> None:
    sentence = (
        r"`import trio_ipc` takes (\d+) ms.* alone take (\d+), .* after (\d+) ms; gRPC's comes after (\d+)\."
    )
    figures = [
        ("trio_ipc", "import_ms"),
        ("trio and protobuf", "import_ms"),
        ("trio_ipc", "first_response_ms"),
        ("grpc", "first_response_ms"),
    ]
    started = RUN["measured"]["h"]
    assert said(sentence) == [round(statistics.median(started[name][what])) for name, what in figures]


def test_what_a_frame_of_1_mib_takes_is_that_of_the_quiet_run() -> None:
    takes = {what: statistics.median(rounds) for what, rounds in RUN["measured"]["codec"]["1MiB"].items()}
    wanted = [takes["frame_encode_us"] + takes["frame_decode_us"], takes["protobuf_decode_us"]]
    assert said(r"To frame and to check such a response takes (\d+) µs, and to decode it (\d+),") == [
        round(figure) for figure in wanted
    ]


def test_the_times_between_pauses_are_those_of_the_quiet_run() -> None:
    times = [
        round(statistics.median(RUN["measured"]["p"][contender][f"paused_{pause}_us"]))
        for contender in ("trio_ipc", "no-polling")
        for pause in (50, 150)
    ]
    assert said(r"a call takes (\d+) and (\d+) µs instead of (\d+) and (\d+)\.") == times


def test_what_polling_costs_between_pauses_is_that_of_the_goals() -> None:
    sentence = r"of 50 and 150 µs between calls, polling takes ([\d.]+) and ([\d.]+) times the CPU time"
    assert said(sentence) == [
        round(measured("p", f"CPU a call with pauses of {pause} µs, polling on / off"), 2)
        for pause in (50, 150)
    ]


def test_what_is_told_of_the_other_runs_is_what_they_measured() -> None:
    one_core, busy = (
        json.loads((ROOT / "docs" / f"benchmarks-{name}.json").read_text(encoding="utf-8"))["measured"]
        for name in ("one-core", "busy")
    )
    assert said(r"on one core a call takes (\d+) µs, and (\d+) with asyncio") == [
        round(statistics.median(one_core["a"][contender]["us"])) for contender in ("trio_ipc", "asyncio")
    ]
    cpu, time = (
        statistics.median(busy["d"]["grpc-aio"][figure]) / statistics.median(busy["d"]["trio_ipc"][figure])
        for figure in ("cpu_us_per_call", "us_per_call")
    )
    assert "a twelfth of gRPC asyncio's CPU time, and an eleventh of its time" in PAGE
    assert (round(cpu), round(time)) == (12, 11)


def test_what_polling_costs_on_a_busy_machine_is_what_was_measured() -> None:
    busy = json.loads((ROOT / "docs" / "benchmarks-busy.json").read_text(encoding="utf-8"))["measured"]
    of_cpu, of_time = (
        {
            work: statistics.median(ratios(busy[work]["trio_ipc"][figure], busy[work]["no-polling"][figure]))
            for work in ("b1000", "d", "e")
        }
        for figure in ("cpu_us_per_call", "us_per_call")
    )
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert "cost 1.3 times the CPU time, and take about as long" in page
    assert {round(ratio, 1) for ratio in of_cpu.values()} == {1.3}
    assert all(0.9 < ratio < 1.1 for ratio in of_time.values())


def test_what_a_round_trip_was_counted_at_is_told() -> None:
    bounds = json.loads(Path(__file__).with_name("counted.json").read_text(encoding="utf-8"))
    assert f"cancel scope, and is {bounds['round-trip']['measured']:.2f}." in PAGE
