"""The soak sees what it is there to see: growth, and what a short run shows. CI runs it for longer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.hardening.soak import JUDGES_MEMORY, Soak, main
from tests.hardening.soak_programs import Watched
from tests.platforms import unix_only

MIB = 1 << 20


@unix_only  # as its endpoints are
@pytest.mark.parametrize(
    ("seconds", "last", "problems"),
    [(JUDGES_MEMORY, 100, 1), (JUDGES_MEMORY, 41, 0), (JUDGES_MEMORY - 1, 100, 0)],
)
def test_memory_that_grows_through_a_long_run_is_a_leak(
    tmp_path: Path, seconds: float, last: int, problems: int
) -> None:
    soak = Soak(tmp_path, seconds, seed=0)
    warming_up = [MIB * held for held in range(10, 40)]
    growing = [MIB * (40 + (last - 40) * at // 90) for at in range(90)]
    soak.watched.append(Watched("collector", 1, memory=[*warming_up, *growing]))
    soak._judge_memory()
    assert len(soak.problems) == problems


@unix_only
@pytest.mark.skipif(sys.platform != "linux", reason="counts by Linux's /proc")
def test_a_second_of_chaos_leaves_nothing_and_says_what_was_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = main(["--seconds", "1", "--seed", "5"])
    said = capsys.readouterr().out
    assert status == 0, said
    assert "calls" in said
    assert "seed 5" in said
