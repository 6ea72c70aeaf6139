"""What docs/benchmarks.md says outside of its tables is what was measured for them."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
RUN: dict[str, Any] = json.loads((ROOT / "docs" / "benchmarks.json").read_text(encoding="utf-8"))


def micros(work: str, contender: str) -> float:
    """The median of a contender's time, µs a call."""
    kind = "us_per_call" if work == "d" else "us"  # an operation of (d) is a call of each caller
    rounds: list[float] = RUN["measured"][work][contender][kind]
    return statistics.median(rounds)


def goal(work: str, what: str) -> tuple[float, float]:
    """The limit of a goal, and the median that was measured for it."""
    [found] = [one for one in RUN["goals"] if one["work"] == work and one["what"] == what]
    return found["limit"], statistics.median(found["values"])


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
            ["blocking", "trio_ipc", "bare-trio"],
            r"trip, takes (\d+) µs, and Rust takes no longer.*In the (\d+) that are left.* takes (\d+)\.",
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
    ],
)
def test_times_in_sentences_are_those_of_the_quiet_run(
    work: str, contenders: list[str], sentence: str
) -> None:
    assert said(sentence) == [round(micros(work, contender)) for contender in contenders]


def test_the_time_that_polling_saves_is_that_of_the_quiet_run() -> None:
    assert said(r"Polling still saves (\d+) µs of a call") == [
        round(micros("a", "no-polling") - micros("a", "trio_ipc"))
    ]


@pytest.mark.parametrize(
    ("sentence", "goals"),
    [
        (
            r"sockets \((\d) time, \w+ ([\d.]+)\) and against Rust \(([\d.]+) times, measured ([\d.]+)\)",
            [*goal("a", "trio_ipc / blocking sockets' echo"), *goal("a", "trio_ipc / Rust")],
        ),
        (
            r"pauses of 50 and 150 µs between calls, polling takes ([\d.]+) and ([\d.]+) times the CPU time",
            [goal("p", f"CPU a call with pauses of {pause} µs, polling on / off")[1] for pause in (50, 150)],
        ),
    ],
)
def test_ratios_in_sentences_are_those_of_the_goals(sentence: str, goals: list[float]) -> None:
    assert said(sentence) == [round(figure, 2) for figure in goals]


def test_what_a_round_trip_was_counted_at_is_told() -> None:
    bounds = json.loads(Path(__file__).with_name("counted.json").read_text(encoding="utf-8"))
    assert f"cancel scope, and is {bounds['round-trip']['measured']:.2f}." in PAGE
