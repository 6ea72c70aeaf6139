"""How costs grow is measured with responses that are right and judged as is said, and leaves no process."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
from rich.console import Console

from tests.benchmarks.results import text_of
from tests.benchmarks.scaling import __main__ as program
from tests.benchmarks.scaling.asked import Question, answer
from tests.benchmarks.scaling.curves import (
    BARE,
    CONTENDERS,
    CURVES,
    GOALS,
    MOST_BYTES,
    OURS,
    Goal,
    Measured,
    key,
    values,
)
from tests.benchmarks.scaling.loops import Job, at_once, in_turn
from tests.benchmarks.scaling.page import document, section, tables
from tests.benchmarks.scaling.run import Plan, Run, started
from tests.benchmarks.scaling_support import FIGURES, check_shape
from tests.benchmarks.workers import ROOT, ContenderError
from tests.platforms import needs_proc, unix_only

pytestmark = unix_only


def plan(**points: tuple[float, ...]) -> Plan:
    """As little of everything as gives figures that can be divided by.

    Another process's clock moves while it runs by ticks of the scheduler, of which 20 ms have at least one.
    """
    return Plan(points, rounds=1, seconds=0.02, warm=1)


def measured(curve: str, **rounds: dict[str, list[float]]) -> Measured:
    """Figures by points, the same for every figure, of contenders with a name's dashes as underscores."""
    return {
        curve: {
            name.replace("_", "-") if name != OURS else name: dict.fromkeys(FIGURES, points)
            for name, points in rounds.items()
        }
    }


# --- What is asked and answered -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", CURVES["sizes"].points, ids=CURVES["sizes"].label)
def test_a_response_has_exactly_as_many_bytes_as_were_asked_for(size: float) -> None:
    seconds, result = answer(Question(size=int(size)).task_id)
    assert (seconds, result.ByteSize()) == (0, size)
    assert size <= MOST_BYTES


@pytest.mark.parametrize("milliseconds", CURVES["handlers"].points)
def test_a_handler_waits_as_long_as_was_asked_for(milliseconds: float) -> None:
    question = Question(milliseconds=int(milliseconds))
    seconds, result = answer(question.task_id)
    assert seconds == milliseconds / 1000
    assert result.task_id == question.task_id
    assert result.ByteSize() <= question.size


# --- How it is measured -------------------------------------------------------------------------------------


def job(**changes: Any) -> Job:
    return Job("pauses", 0, "", os.getpid(), 0, least=1, warm=0)._replace(**changes)


class Calls:
    """Calls that note who made them, in order."""

    def __init__(self, number: int) -> None:
        self.made: list[int] = []
        self.each = [self._call(index) for index in range(number)]

    def _call(self, index: int) -> Any:
        async def call() -> None:
            self.made.append(index)
            await trio.lowlevel.checkpoint()

        return call


@needs_proc
async def test_calls_in_turn_are_made_by_each_connection_after_the_other() -> None:
    calls = Calls(3)
    await in_turn(calls.each, job(warm=2, least=4))
    assert calls.made == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]


@needs_proc
async def test_every_connection_has_a_call_however_few_are_asked_for() -> None:
    calls = Calls(5)
    await in_turn(calls.each, job(least=1))
    assert calls.made == [0, 1, 2, 3, 4]


@needs_proc
async def test_calls_at_once_go_on_until_enough_were_made() -> None:
    calls = Calls(4)
    with trio.fail_after(10):
        sample = await at_once(calls.each, job(warm=5, least=50))
    assert set(calls.made) == {0, 1, 2, 3}
    assert len(calls.made) >= 4 * 5 + 50
    assert min(sample) > 0


@needs_proc
@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("curve", CURVES)
async def test_a_contender_answers_at_the_least_and_at_another_point(curve: str, name: str) -> None:
    several = {"connections": 9, "callers": 70, "sizes": 100_000, "pauses": 1_000, "handlers": 1}
    points = {curve: (CURVES[curve].points[0], several[curve])}
    run = Run(Plan(points, rounds=1, seconds=0, warm=1, contenders=[name]))
    with trio.fail_after(60):
        await run.go()
    figures = run.measured[curve][name]
    assert figures.keys() == FIGURES
    for by_point in figures.values():
        assert by_point.keys() == {key(point) for point in points[curve]}
    assert all(value > [0] for value in figures["us"].values())


@needs_proc
async def test_what_a_process_says_when_it_fails_is_told(directory: str) -> None:
    with trio.fail_after(60):
        async with started(f"{directory}/log", "call", BARE, "pauses", "16") as client:
            with pytest.raises(ContenderError, match=r"(?s)bare Trio: .*No such file"):
                await client.tell(job(path=f"{directory}/nobody"))


def test_points_that_need_more_files_than_are_allowed_are_left_out_and_said() -> None:
    run = Run(Plan({name: curve.points for name, curve in CURVES.items()}))
    allowed = run.allowed(1024)
    assert allowed["connections"] == [1, 4, 16, 64, 256]
    assert allowed["callers"] == [1, 4, 16, 64, 65, 256]
    assert allowed["sizes"] == list(CURVES["sizes"].points)
    assert run.left_out == {
        "connections": "1,024, 4,000: a process may open 1,024 files here",
        "callers": "1,024: a process may open 1,024 files here",
    }
    assert f"Left out of `callers`: {run.left_out['callers']}." in section(document(run, quick=True))


def processes_with(directory: str) -> list[int]:
    """Those whose files go to this directory: they have that of who started them, and outlive it."""
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if one.environ().get("TMPDIR") == directory:
                found.append(one.pid)
    return found


@needs_proc
async def test_a_run_writes_its_document_and_leaves_no_process(directory: str) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.scaling", "--quick", "--curves=handlers"]
    environment, output = {**os.environ, "TMPDIR": directory}, f"{directory}/out"
    seen = False
    with trio.fail_after(120):
        async with await trio.open_file(f"{directory}/said", "wb") as said:
            process = await trio.lowlevel.open_process(
                [*command, "--output", output], cwd=ROOT, env=environment, stdout=said.wrapped
            )
            while process.poll() is None:
                seen = seen or len(processes_with(directory)) > 1
                await trio.sleep(0.1)
    assert seen
    assert process.returncode == 0
    assert processes_with(directory) == []
    assert sorted(os.listdir(directory)) == ["out", "said"]
    text = Path(directory, "said").read_text(encoding="utf-8")
    assert "handlers 5 ms, bare-trio" in text
    found = json.loads(Path(output, "scaling.json").read_text(encoding="utf-8"))
    check_shape(found)
    assert found["quick"] is True
    assert found["points"] == {"handlers": [0, 5]}


# --- Plans and results --------------------------------------------------------------------------------------


def plan_of(*arguments: str) -> Plan:
    return program.plan_of(program.parser().parse_args(arguments))


def test_a_plan_is_chosen_by_the_curves_names() -> None:
    assert list(plan_of().points) == list(CURVES)
    chosen = plan_of("--quick", "--curves=pauses,callers", "--rounds=4")
    assert (list(chosen.points), chosen.rounds) == (["callers", "pauses"], 4)
    with pytest.raises(ValueError, match="no curve 'speed'; there are connections, callers"):
        plan_of("--curves=speed")
    with pytest.raises(ValueError, match="--rounds is 0, must be from 1"):
        plan_of("--rounds=0")


def test_a_full_run_measures_what_the_page_promises() -> None:
    points = plan_of().points
    ends = {
        name: (CURVES[name].label(all_of[0]), CURVES[name].label(all_of[-1]))
        for name, all_of in points.items()
    }
    assert ends == {
        "connections": ("1", "4,000"),
        "callers": ("1", "1,024"),
        "sizes": ("10 B", "64 MiB"),
        "pauses": ("0 µs", "25 ms"),
        "handlers": ("0 ms", "15 ms"),
    }
    for name, all_of in plan_of("--quick").points.items():
        assert set(all_of) <= set(points[name])


async def test_a_plan_has_as_many_steps_as_it_says() -> None:
    steps: list[str] = []
    run = Run(plan(pauses=(0, 50), handlers=(0,)), steps.append)
    with trio.fail_after(60):
        await run.go()
    assert len(steps) == run.plan.steps


def test_figures_are_made_of_microseconds_by_rounds() -> None:
    rounds: Measured = {
        "sizes": {
            OURS: {
                "us": {"1024": [1.024, 2.048]},
                "server_cpu_us": {"1024": [1, 2]},
                "client_cpu_us": {"1024": [3, 4]},
            }
        }
    }
    time_of, cpu = CURVES["sizes"].figures
    assert values(rounds, "sizes", OURS, 1024, time_of) == [1.0, 2.0]
    assert values(rounds, "sizes", OURS, 1024, cpu) == [4000 / 1024, 6000 / 1024]
    assert values(rounds, "sizes", OURS, 10, cpu) is None
    assert values(rounds, "sizes", BARE, 1024, cpu) is None
    handlers = measured("handlers", trio_ipc={"5": [50.0]})
    calls, server = CURVES["handlers"].figures
    assert values(handlers, "handlers", OURS, 5, calls) == [20_000]
    assert values(handlers, "handlers", OURS, 5, server) == [50.0]
    assert values(
        measured("callers", trio_ipc={"4": [7.0]}), "callers", OURS, 4, CURVES["callers"].figures[0]
    ) == [14.0]


def test_a_goal_is_judged_by_the_median_of_ratios_within_a_round() -> None:
    found = measured(
        "connections", trio_ipc={"1024": [150.0, 100.0, 900.0]}, bare_trio={"1024": [100.0, 100.0, 100.0]}
    )
    goal = Goal("what", 1.6, "connections", (OURS, 1024), (BARE, 1024))
    assert goal.judged(found)["values"] == [1.5, 1.0, 9.0]
    assert goal.judged(found)["met"] is True
    stricter = Goal("what", 1.4, "connections", (OURS, 1024), (BARE, 1024))
    assert stricter.judged(found)["met"] is False
    most = Goal("what", 1.6, "connections", (OURS, 1024), (BARE, 1024), at_least=True)
    assert most.judged(found)["met"] is False


def test_of_several_points_the_worst_one_is_judged() -> None:
    found = measured(
        "callers", trio_ipc={"64": [10.0, 20.0], "65": [11.0, 22.0], "256": [15.0, 30.0], "1024": [9.0, 18.0]}
    )
    of_callers = ("callers", (OURS, 65, 256, 1024), (OURS, 64))
    assert Goal("what", 1.2, *of_callers).judged(found)["values"] == [1.5, 1.5]
    assert Goal("what", 1.2, *of_callers, at_least=True).judged(found)["values"] == [0.9, 0.9]
    del found["callers"][OURS]["us"]["65"]  # of all figures, which share their points here
    assert Goal("what", 1.2, *of_callers).judged(found)["met"] is None


def test_a_goal_whose_points_were_not_measured_is_no_goal_missed() -> None:
    assert [goal.judged({})["met"] for goal in GOALS] == [None] * 4
    assert {goal.curve: goal.limit for goal in GOALS} == {
        "connections": 1.6,
        "callers": 1.2,
        "pauses": 1.15,
        "handlers": 0.8,
    }


async def test_a_result_has_its_shape_and_tells_of_no_machine() -> None:
    run = Run(plan(sizes=(10, 1024), pauses=(0,)))
    with trio.fail_after(60):
        await run.go()
    found = document(run, quick=True)
    check_shape(found)
    text = text_of(found)
    assert json.loads(text) == found
    assert ROOT not in text
    assert socket.gethostname() not in text or len(socket.gethostname()) < 4
    console = Console(width=140, record=True, quiet=True)
    shown = tables(found)
    assert len(shown) == 1 + len(CURVES["sizes"].figures) + len(CURVES["pauses"].figures)
    for table in shown:
        console.print(table.for_terminal())
        assert table.as_markdown().startswith(f"**{table.title}**")


def test_a_table_has_the_medians_and_the_ratios_of_each_point() -> None:
    found = measured(
        "connections",
        trio_ipc={"1": [30.0, 20.0, 40.0]},
        no_polling={"1": [10.0, 20.0, 20.0]},
        bare_trio={"1": [10.0, 10.0, 10.0]},
    )
    run = Run(Plan({"connections": (1, 4)}, rounds=3), measured=found)
    [_, table] = tables(document(run, quick=False))
    assert table.rows == [
        ["1", "30.0", "20.0", "10.0", "3.00 (2.00 to 4.00)", "2.00 (1.00 to 2.00)", "2.00 (1.00 to 3.00)"]
    ]
