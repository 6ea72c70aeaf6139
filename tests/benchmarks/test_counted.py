"""System calls and instructions are counted as strace tells them, and have bounds. Nothing is measured."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks.counted import (
    _FAULTS,
    _FAULTS_ALLOWED,
    BOUNDS,
    COUNTED,
    Count,
    complaints,
    of_a_unit,
    summary_of,
)
from tests.platforms import unix_only

pytestmark = unix_only

SUMMARY = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           6       100        50 recvfrom
 40.00    0.000400           4       101           sendto
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           4       201        50 total
"""


def test_a_summary_of_strace_is_understood() -> None:
    assert summary_of(SUMMARY) == {"recvfrom": 100, "sendto": 101}


def test_what_both_runs_did_falls_out() -> None:
    short, long = summary_of(SUMMARY), summary_of(SUMMARY)
    long["sendto"] += 20
    long["openat"] += 1
    assert of_a_unit(short, long, 10) == Count(2.1, {"sendto": 2.0, "openat": 0.1})


def test_a_count_over_its_bound_is_told_with_the_way_to_renew_it() -> None:
    name = next(iter(COUNTED))
    bounds = {name: {"measured": 2.0, "bound": 2.25}}
    assert complaints({name: Count(2.25, {})}, bounds) == []
    [said] = complaints({name: Count(3.0, {"sendto": 3.0})}, bounds)
    for part in (name, "3.00 system calls of a server", "bound 2.25", "sendto 3.00", "--renew"):
        assert part in said
    [said] = complaints({name: Count(3.0, {})}, {})
    assert "no bound" in said


def test_everything_counted_has_a_bound_above_what_was_measured() -> None:
    bounds = json.loads(Path(BOUNDS).read_text(encoding="utf-8"))
    assert bounds.keys() == COUNTED.keys()
    for name, bound in bounds.items():
        allowed = _FAULTS_ALLOWED if name in _FAULTS else bound["measured"] * 0.1
        assert 0 < bound["measured"] < bound["bound"] <= bound["measured"] + allowed
