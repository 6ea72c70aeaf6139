"""The suite beside processes that keep each core busy: what is run, and what is told of it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from .platforms import unix_only

pytestmark = unix_only

ROOT = Path(__file__).parents[1]

EVERY_SECOND_FAILS = """
import os
import pathlib

import psutil

def test_the_second_fails():
    seen = pathlib.Path(__file__).with_suffix(".seen")
    if seen.exists():
        seen.unlink()
        raise AssertionError("it was here before")
    seen.touch()

def test_each_core_is_busy():
    beside = [" ".join(one.cmdline()) for one in psutil.Process().parent().children()]
    assert sum("number += 1" in line for line in beside) == len(os.sched_getaffinity(0))
"""


def loaded(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.loaded", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def test_each_run_has_its_line_and_what_failed_is_named(tmp_path: Path) -> None:
    test = tmp_path / "test_it.py"
    test.write_text(EVERY_SECOND_FAILS)
    logs = tmp_path / "logs"
    run = loaded("--times", "2", "--jobs", "0", "--logs", str(logs), "-p", "no:cacheprovider", str(test))
    assert run.returncode == 1
    first, second, *named, last = run.stdout.splitlines()
    assert re.fullmatch(r"run 1 of 2: 2 passed, \d+ s", first)
    assert re.fullmatch(r"run 2 of 2: 1 failed, 1 passed, \d+ s", second)
    assert named[0] == f"    pytest ended with 1: {logs / 'run-2.log'}"
    assert "::test_the_second_fails" in named[1]
    assert last == "1 of 2 failed"
    assert "it was here before" in (logs / "run-2.log").read_text()


def test_where_none_fails_the_status_says_so(tmp_path: Path) -> None:
    run = loaded("--times", "1", "--jobs", "0", "--logs", str(tmp_path), "tests/test_quoting.py")
    assert (run.returncode, run.stdout.splitlines()[-1]) == (0, "none of 1 failed")


def test_a_run_without_tests_is_a_failure(tmp_path: Path) -> None:
    run = loaded("--times", "1", "--jobs", "0", "--logs", str(tmp_path), "tests/no_such_file.py")
    assert run.returncode == 1
    assert "pytest ended with 4" in run.stdout


def test_an_interrupt_ends_it_and_its_processes_in_one_line(tmp_path: Path) -> None:
    test = tmp_path / "test_it.py"
    test.write_text("import time\ndef test_it():\n    time.sleep(600)\n")
    command = ["--jobs", "0", "--logs", str(tmp_path), "-p", "no:cacheprovider", str(test)]
    run = subprocess.Popen(
        [sys.executable, "-m", "tests.loaded", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        while not any("collected 1 item" in log.read_text() for log in tmp_path.glob("*.log")):
            time.sleep(0.05)
        beside = psutil.Process(run.pid).children(recursive=True)
        run.send_signal(signal.SIGINT)
        said, _ = run.communicate(timeout=60)
    finally:
        run.kill()
    assert (run.returncode, said) == (130, "interrupted\n")
    assert len(beside) > 1
    assert psutil.wait_procs(beside, timeout=10)[1] == []


def test_a_wrong_number_is_refused() -> None:
    run = loaded("--times", "0")
    assert run.returncode == 2
    assert "--times must be at least 1" in run.stderr
