"""What the programs that measure refuse, and what they say that they have written."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trio

from tests.benchmarks import __main__ as suite
from tests.benchmarks import programs, surroundings
from tests.benchmarks.scaling import __main__ as scaling
from tests.benchmarks.surroundings import Surroundings, surrounded
from tests.benchmarks.workers import ROOT, ContenderError
from tests.platforms import unix_only

pytestmark = unix_only

PROGRAMS: dict[str, Any] = {"benchmarks": suite, "scaling": scaling}

Refusal: TypeAlias = Callable[..., str]

BOTH = pytest.mark.parametrize("name", PROGRAMS)


@pytest.fixture(autouse=True)
def _measures_and_publishes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def carry_out(*_: Any) -> None:
        raise AssertionError("it measures")

    monkeypatch.setattr(programs, "carry_out", carry_out)
    for program in PROGRAMS.values():
        monkeypatch.setattr(program, "_DOCS", str(tmp_path / "docs"))
        monkeypatch.setattr(program, "_PAGE", str(tmp_path / "docs" / "page.md"))


def run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    status: int = PROGRAMS[name].main()
    return status


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Gives what a program says when it refuses its arguments."""

    def refused(name: str, *arguments: str) -> str:
        with pytest.raises(SystemExit) as caught:
            run(name, monkeypatch, *arguments)
        assert caught.value.code == 2
        return capsys.readouterr().err.splitlines()[-1].partition(" error: ")[2]

    return refused


@BOTH
@pytest.mark.parametrize("rounds", [0, -3])
def test_there_is_at_least_one_round(name: str, rounds: int, refusal: Refusal) -> None:
    said = refusal(name, f"--rounds={rounds}", "--publish")
    assert said == f"--rounds is {rounds}, must be from 1"


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_a_load_is_timed_for_a_time(seconds: str, refusal: Refusal) -> None:
    said = refusal("benchmarks", f"--seconds={seconds}")
    assert said == f"--seconds is {seconds}, must be above 0 and finite"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("benchmarks", "--quick"),
        ("benchmarks", "--work=a"),
        ("benchmarks", "--contender=trio_ipc"),
        ("scaling", "--quick"),
        ("scaling", "--curves=pauses"),
    ],
)
def test_a_part_of_a_run_is_not_published(name: str, part: str, refusal: Refusal) -> None:
    said = refusal(name, part, "--publish")
    assert said == f"--publish needs a whole run, and {part.partition('=')[0]} make it a part of one"


@pytest.mark.parametrize(
    ("name", "given", "whole"),
    [
        ("benchmarks", ["--rounds=6"], 7),
        ("benchmarks", ["--rounds=1"], 7),
        ("benchmarks", ["--one-core", "--rounds=9"], 10),
        ("benchmarks", ["--busy", "--rounds=7"], 10),
        ("scaling", ["--rounds=4"], 5),
    ],
)
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_run_of_fewer_rounds_is_not_published(
    name: str, given: list[str], whole: int, refusal: Refusal
) -> None:
    said = refusal(name, *given, "--publish")
    rounds = given[-1].partition("=")[2]
    assert said == f"--publish needs a whole run of {whole} rounds, and --rounds is {rounds}"


def published(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(ROOT, "docs", f"{name}.json").read_text(encoding="utf-8"))
    return found


@BOTH
@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "cannot read .*: No such file"), ("?", "is no JSON"), ("[]", "is no result of this program")],
)
def test_a_file_that_is_no_result_is_refused(
    name: str,
    text: str | None,
    said: str,
    tmp_path: Path,
    refusal: Refusal,
) -> None:
    path = tmp_path / "result.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert re.search(said, refusal(name, f"--render={path}"))


@BOTH
def test_a_result_of_the_other_program_is_refused(name: str, refusal: Refusal) -> None:
    [other] = {*PROGRAMS} - {name}
    path = Path(ROOT, "docs", f"{other}.json")
    assert refusal(name, f"--render={path}").endswith("is no result of this program")


@BOTH
def test_a_quick_result_is_not_published(name: str, tmp_path: Path, refusal: Refusal) -> None:
    path = tmp_path / "quick.json"
    path.write_text(json.dumps({**published(name), "quick": True}), encoding="utf-8")
    said = refusal(name, f"--render={path}", "--publish")
    assert said == f"--publish needs a whole run, and {path} is of a quick one"


@BOTH
def test_a_result_of_fewer_rounds_is_not_published(name: str, tmp_path: Path, refusal: Refusal) -> None:
    path = tmp_path / "short.json"
    path.write_text(json.dumps({**published(name), "rounds": 2}), encoding="utf-8")
    said = refusal(name, f"--render={path}", "--publish")
    assert re.fullmatch(rf"--publish needs a whole run of [57] rounds, and {path} has 2", said)


@BOTH
def test_a_result_of_a_part_is_not_published(name: str, tmp_path: Path, refusal: Refusal) -> None:
    whole = published(name)
    path = tmp_path / "part.json"
    left = dict([*whole["measured"].items()][:1])
    path.write_text(json.dumps({**whole, "measured": left}), encoding="utf-8")
    said = refusal(name, f"--render={path}", "--publish")
    assert said.startswith(f"--publish needs a whole run, and {path} lacks ")


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.md"
    path.write_text("old", encoding="utf-8")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as here:
        here.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            programs.replace(str(path), "new")
    assert (path.read_text(encoding="utf-8"), os.listdir(tmp_path)) == ("old", ["page.md"])
    programs.replace(str(path), "new")
    assert (path.read_text(encoding="utf-8"), os.listdir(tmp_path)) == ("new", ["page.md"])


async def _while_its_burners_end(burners: list[trio.Process]) -> None:
    async with surrounded(Surroundings.BUSY):
        for burner in burners:
            await burner.wait()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
async def test_a_machine_that_is_not_busy_any_longer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    open_process = trio.lowlevel.open_process
    burners: list[trio.Process] = []

    async def noted(*arguments: Any, **options: Any) -> trio.Process:
        burners.append(await open_process(*arguments, **options))
        return burners[-1]

    monkeypatch.setattr(trio.lowlevel, "open_process", noted)
    monkeypatch.setattr(surroundings, "_BURNER", "raise SystemExit(3)")
    with pytest.raises(ContenderError, match="has ended, by 3"):
        await _while_its_burners_end(burners)


@BOTH
def test_a_directory_that_cannot_be_made_is_told_before_anything_is_measured(
    name: str, tmp_path: Path, refusal: Refusal
) -> None:
    (tmp_path / "file").touch()
    said = refusal(name, f"--output={tmp_path}/file/out")
    assert said == f"cannot make {tmp_path}/file/out: Not a directory"


@BOTH
@pytest.mark.parametrize("draws", [True, False])
def test_what_was_written_is_said_and_no_more(
    name: str,
    draws: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def draw(_found: dict[str, Any], path: str) -> None:
        if not draws:
            raise ImportError("No module named 'matplotlib'")
        Path(path).touch()

    monkeypatch.setattr(PROGRAMS[name].chart, "draw", draw)
    monkeypatch.chdir(tmp_path)
    assert run(name, monkeypatch, f"--render={ROOT}/docs/{name}.json", "--output=out") == 0
    said = capsys.readouterr().out.splitlines()[-1]
    wanted = [f"{name}.json", *([f"{name}.svg"] if draws else [])]
    assert said == f"written: out/{' and '.join(wanted)}"
    assert sorted(os.listdir("out")) == wanted
