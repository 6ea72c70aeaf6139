"""The suite measures what it says, of responses that are right, and leaves no process behind. No times."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
from rich.console import Console

from tests.benchmarks import __main__ as program
from tests.benchmarks import messages
from tests.benchmarks.contenders import CONTENDERS
from tests.benchmarks.figures import Spread, ratios
from tests.benchmarks.goals import GOALS, Goal, Verdict, verdicts
from tests.benchmarks.loads import Job, Use, percentile
from tests.benchmarks.pieces import NAMES, TIMED, chosen
from tests.benchmarks.processes import client, serving
from tests.benchmarks.results import document, text_of
from tests.benchmarks.suite import Measured, Plan, Run, takes_part
from tests.benchmarks.surroundings import Surroundings, cores, surrounded
from tests.benchmarks.tables import tables
from tests.benchmarks.workers import ROOT, ContenderError, environment
from tests.platforms import unix_only

pytestmark = unix_only

DOCS = Path(ROOT, "docs")


def plan(work: str, *contenders: str) -> Plan:
    """As little of everything as there can be."""
    return Plan(
        work=chosen(work), contenders=contenders, rounds=1, seconds=0, least=1, idle_seconds=0, imports=1
    )


# --- Statistics ---------------------------------------------------------------------------------------------


def test_a_spread_is_the_median_the_least_and_the_most() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)
    assert Spread(1234.5, 1.0, 2.0).text(1) == "1,234.5 (1.0 to 2.0)"


def test_ratios_are_of_the_same_round() -> None:
    assert ratios([10.0, 30.0], [5.0, 10.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (99, 99), (100, 100), (1, 1)])
def test_a_percentile_is_the_nearest_rank(percent: int, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), percent) == expected
    assert percentile([7], percent) == 7


# --- What is asked and answered -----------------------------------------------------------------------------


def test_the_largest_message_is_just_below_the_limit_of_a_frame() -> None:
    size = messages.sizes(messages.LARGEST)[1] - messages.HEADER
    assert 1024 * 1024 - 200 < size <= 1024 * 1024


@pytest.mark.parametrize("name", messages.MESSAGES)
def test_a_right_answer_passes_and_a_wrong_one_does_not(name: str) -> None:
    right = messages.answer(messages.request(name))
    messages.check(right, name)
    messages.check_all(right, name)
    wrong = messages.DetectionResult()
    wrong.CopyFrom(right)
    wrong.processes.add()
    with pytest.raises(messages.WrongAnswerError):
        messages.check(wrong, name)
    with pytest.raises(messages.WrongAnswerError):
        messages.check_all(messages.DetectionResult(task_id=name), name)


# --- The contenders -----------------------------------------------------------------------------------------


# Contenders are loaded in processes of their own: some leave things in the interpreter that other tests meet.


@pytest.mark.parametrize("name", CONTENDERS)
def test_a_contender_does_all_of_the_work(name: str) -> None:
    run = Run(plan(",".join(TIMED), name))

    async def go() -> None:
        with trio.fail_after(60):
            await run.go()

    trio.run(go)
    if run.left_out:
        pytest.skip(run.left_out[name])
    assert run.measured.keys() == {work for work in TIMED if takes_part(work, name)}
    for work in run.measured:
        assert run.measured[work][name]["us"] > [0]


SHARERS = """\
import sys
from tests.benchmarks.contenders import CONTENDERS, load
from tests.benchmarks.contenders.base import LeftOutError
from tests.benchmarks.loads import Use
for name, entry in CONTENDERS.items():
    try:
        shares = Use.MANY in load(name).shared
    except (ImportError, LeftOutError):
        continue
    assert entry.shares == shares, name
    print(name)
"""


def test_who_shares_a_client_has_the_work_for_separate_ones() -> None:
    run = subprocess.run(
        [sys.executable, "-c", SHARERS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert {"trio_ipc", "bare-trio", "blocking", "asyncio", "connection"} <= set(run.stdout.split())


async def test_a_contender_that_cannot_take_part_is_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zmq.py").write_text("raise ImportError('it is not installed')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run = Run(plan("a", "zeromq", "connection"))
    with trio.fail_after(60):
        await run.go()
    assert run.left_out == {"zeromq": "it is not installed"}
    assert list(run.measured["a"]) == ["connection"]


# --- Processes ----------------------------------------------------------------------------------------------


def test_processes_have_bytecode_whatever_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    code = "import sys; print(sys.dont_write_bytecode, sys.pycache_prefix)"
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["False", os.path.join(ROOT, "build", "bytecode")]


async def test_what_a_process_says_when_it_fails_is_told(directory: str) -> None:
    with trio.fail_after(60):
        async with client("connection", directory) as started:
            assert not isinstance(started, str)
            job = Job("time", Use.ONE, "t", f"{directory}/nobody", os.getpid())
            with pytest.raises(ContenderError, match="FileNotFoundError"):
                await started.tell(job)


async def test_a_server_that_answers_is_reached(directory: str) -> None:
    with trio.fail_after(60):
        async with client("connection", directory) as started:
            assert not isinstance(started, str)
            async with serving(started, directory, "s") as pair:
                assert pair.seconds_to_first_response > 0
                assert 0 <= (await pair.idle(2, 0.0)).client_cpu_s < 1, "it was idle for no time at all"


# --- Plans and results --------------------------------------------------------------------------------------


def test_work_is_chosen_by_its_letters() -> None:
    assert chosen("c,a") == ["a", "c"]
    assert chosen("b") == ["b100", "b1000"]
    assert chosen(",".join(NAMES)) == list(NAMES)
    with pytest.raises(ValueError, match="no work 'x'; there are a, b100"):
        chosen("a,x")


def test_a_quick_plan_can_be_changed_piece_by_piece() -> None:
    options = program.parser().parse_args(["--quick", "--contender=blocking,trio_ipc", "--rounds=4"])
    quick = program.plan_of(options)
    assert (quick.contenders, quick.rounds, quick.idle_seconds) == (["trio_ipc", "blocking"], 4, 2)
    with pytest.raises(ValueError, match="no contender 'http'"):
        program.plan_of(program.parser().parse_args(["--contender=http"]))


async def test_a_plan_has_as_many_steps_as_it_says() -> None:
    steps: list[str] = []
    run = Run(plan("a,d16,g,h,p,codec", "trio_ipc", "connection"), steps.append)
    with trio.fail_after(60):
        await run.go()
    assert len(steps) == run.plan.steps


def check_shape(found: dict[str, Any]) -> None:
    """What docs/benchmarks.md says of the JSON file."""
    assert found.keys() == {
        "format",
        "date",
        "quick",
        "surroundings",
        "rounds",
        "seconds",
        "machine",
        "versions",
        "contenders",
        "left_out",
        "measured",
        "goals",
    }
    assert found["format"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"])
    assert found["machine"].keys() == {"processor", "cores", "load", "system", "python"}
    assert {"trio_ipc", "trio", "protobuf"} <= found["versions"].keys()
    assert found["measured"].keys() <= set(NAMES)
    for of_work in found["measured"].values():
        for figures in of_work.values():
            for values in figures.values():
                assert values
                assert len(values) <= found["rounds"]
                assert all(isinstance(value, int | float) for value in values)
    for goal in found["goals"]:
        assert goal.keys() == {"work", "what", "limit", "at_least", "values", "met"}
        assert (goal["met"] is None) == (goal["values"] is None)


async def test_a_result_has_its_shape_and_tells_of_no_machine() -> None:
    run = Run(plan(",".join(NAMES), "trio_ipc", "bare-trio", "connection"))
    with trio.fail_after(120):
        await run.go()
    found = document(run, quick=True)
    check_shape(found)
    assert set(found["measured"]) == set(NAMES)
    text = text_of(found)
    assert json.loads(text) == found
    assert ROOT not in text
    assert socket.gethostname() not in text or len(socket.gethostname()) < 4
    shown = tables(found)
    assert len(shown) == len(NAMES) + 1
    console = Console(width=120, record=True, quiet=True)
    for table in shown:
        console.print(table.for_terminal())
        assert table.as_markdown().startswith(f"**{table.title}**")


def test_a_goal_is_judged_by_the_median_of_its_rounds() -> None:
    most = Goal("a", "what", 1.0, lambda measured: measured["a"]["x"]["us"])
    least = Goal("a", "what", 1.0, lambda measured: measured["a"]["x"]["us"], at_least=True)
    for values, meets_most, meets_least in (([0.5, 0.9, 9.0], True, False), ([0.1, 1.1, 1.2], False, True)):
        assert Verdict(most, values).met is meets_most
        assert Verdict(least, values).met is meets_least
    assert Verdict(most, None).met is None


def test_a_goal_whose_contenders_were_not_measured_is_no_goal_missed() -> None:
    measured: Measured = {"a": {"trio_ipc": {"us": [30.0]}, "blocking": {"us": [40.0]}}}
    [blocking, *rest] = verdicts(measured)
    assert (blocking.met, blocking.values) == (True, [0.75])
    assert {verdict.met for verdict in rest} == {None}


def test_a_goal_may_have_another_limit_on_a_machine_that_is_not_quiet() -> None:
    measured: Measured = {"a": {"trio_ipc": {"us": [80.0]}, "asyncio": {"us": [100.0]}}}
    for surroundings, limit, met in (
        (Surroundings.QUIET, 0.5, False),
        (Surroundings.ONE_CORE, 1.0, True),
        (Surroundings.BUSY, 1.0, True),
    ):
        [verdict] = [
            one for one in verdicts(measured, surroundings) if "asyncio" in one.goal.what and one.values
        ]
        assert (verdict.goal.limit, verdict.met) == (limit, met)
    quiet, busy = verdicts(measured), verdicts(measured, Surroundings.BUSY)
    assert {one.goal.what for one in busy} < {one.goal.what for one in quiet}


def test_there_is_a_goal_for_everything_that_has_one() -> None:
    assert {goal.work for goal in GOALS} == {"a", "b100", "b1000", "c", "d", "e", "f", "g", "h", "p"}


# --- Surroundings -------------------------------------------------------------------------------------------


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children()]


AFFINITY = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
AT_WORK = [sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"]


@AFFINITY
@pytest.mark.parametrize(("surroundings", "one"), [("quiet", False), ("one-core", True), ("busy", False)])
async def test_processes_have_the_cores_of_their_surroundings(surroundings: str, one: bool) -> None:
    before = os.sched_getaffinity(0)
    async with surrounded(Surroundings(surroundings)):
        done = await trio.run_process(AT_WORK, capture_stdout=True)
        assert int(done.stdout) == (1 if one else len(before))
    assert os.sched_getaffinity(0) == before


@AFFINITY
@pytest.mark.parametrize("fails", [False, True])
async def test_a_busy_machine_has_a_process_on_each_core_which_ends_with_it(fails: bool) -> None:
    before = children()
    with contextlib.suppress(ZeroDivisionError):
        async with surrounded(Surroundings.BUSY):
            burning = set(children()) - set(before)
            tied = sorted(tuple(os.sched_getaffinity(pid)) for pid in burning)
            assert tied == [(core,) for core in cores()]
            if fails:
                raise ZeroDivisionError
    assert children() == before


def test_a_plan_for_other_surroundings_is_longer_and_leaves_out_what_they_do_not_change() -> None:
    found = program.plan_of(program.parser().parse_args(["--busy"]))
    assert (found.surroundings, found.rounds) == (Surroundings.BUSY, 10)
    assert not {"g", "h"} & set(found.work)
    found = program.plan_of(program.parser().parse_args(["--one-core", "--quick", "--work", "a,g"]))
    assert (found.surroundings, found.rounds, list(found.work)) == (Surroundings.ONE_CORE, 2, ["a", "g"])


# --- What is published --------------------------------------------------------------------------------------


EVERYWHERE = pytest.mark.parametrize("surroundings", list(Surroundings), ids=str)


def published(surroundings: Surroundings = Surroundings.QUIET) -> dict[str, Any]:
    path = DOCS / f"{program.file_of(surroundings)}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@EVERYWHERE
def test_the_published_result_is_a_full_one(surroundings: Surroundings) -> None:
    found = published(surroundings)
    check_shape(found)
    assert found["quick"] is False
    assert found["surroundings"] == surroundings
    [*arguments] = [] if surroundings is Surroundings.QUIET else [f"--{surroundings}"]
    wanted = program.plan_of(program.parser().parse_args(arguments))
    assert set(found["measured"]) == set(wanted.work)
    assert found["rounds"] >= (3 if surroundings is Surroundings.QUIET else 10)


@EVERYWHERE
def test_the_page_has_the_tables_of_the_published_result(surroundings: Surroundings) -> None:
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    [tables_there] = program.section_of(surroundings).findall(page)
    assert tables_there == program.section(published(surroundings), tables(published(surroundings)))


@EVERYWHERE
def test_the_chart_is_that_of_the_published_result(surroundings: Surroundings, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", exc_type=ImportError)
    chart = importlib.import_module("tests.benchmarks.chart")
    chart.draw(published(surroundings), str(tmp_path / "chart.svg"))
    drawn = (tmp_path / "chart.svg").read_text(encoding="utf-8")
    assert drawn == (DOCS / f"{program.file_of(surroundings)}.svg").read_text(encoding="utf-8")


@EVERYWHERE
def test_the_chart_says_where_and_when(surroundings: Surroundings) -> None:
    found = published(surroundings)
    text = (DOCS / f"{program.file_of(surroundings)}.svg").read_text(encoding="utf-8")
    for said in (found["date"], found["machine"]["processor"], found["machine"]["python"]):
        assert said in text


def test_the_page_tells_of_every_contender_and_every_work() -> None:
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8").partition("<!-- quiet tables -->")[0]
    assert [name for name in (*CONTENDERS, *NAMES) if f"| `{name}` |" not in page] == []
