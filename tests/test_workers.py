"""Several workers run the tests, and some tests run alone."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from .workers import _UNMEASURED, _writable

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the locks are flock(2)'s")

#: Enters, says so, and leaves when its standard input ends.
GUEST = """
import sys
from pathlib import Path
from tests.workers import taking_turns
with taking_turns(Path(sys.argv[1]), alone=sys.argv[2] == "alone"):
    print("in", flush=True)
    sys.stdin.read()
print("out", flush=True)
"""


ROOT = Path(__file__).parents[1]


class Guest:
    def __init__(self, directory: Path, how: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", GUEST, str(directory), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.says() == "out"
        self.end()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()


def test_who_wants_to_be_alone_is_and_who_comes_later_waits(tmp_path: Path) -> None:
    first, second = Guest(tmp_path, "with others"), Guest(tmp_path, "with others")
    assert (first.says(), second.says()) == ("in", "in")
    alone = Guest(tmp_path, "alone")
    first.leave()
    assert holds(tmp_path, ".inside"), "the second is in"
    second.leave()
    assert alone.says() == "in"
    late = Guest(tmp_path, "with others")
    assert holds(tmp_path, ".inside")
    alone.leave()
    assert late.says() == "in"
    late.leave()
    assert not holds(tmp_path, ".inside")


def holds(directory: Path, name: str) -> bool:
    """Whether somebody has a lock."""
    import fcntl

    assert sys.platform != "win32"
    with open(directory / name, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_garbage_is_not_looked_for_among_what_was_collected_for_this_run() -> None:
    assert gc.get_freeze_count() > 10_000


def test_what_is_no_unicode_can_be_sent() -> None:
    report = {"sections": [("log", "a\udcff")], "when": "call", "duration": 1.5, "why": (None, ["\udc80"])}
    sent = {"sections": [("log", "a\\udcff")], "when": "call", "duration": 1.5, "why": (None, ["\\udc80"])}
    assert _writable(report) == sent


def test_a_run_of_two_workers_carries_all_that_its_tests_wrote_and_measures_them_alone(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeconftest("pytest_plugins = ['tests.workers']")
    pytester.makepyfile(
        """
        import logging, os, pytest

        @pytest.mark.parametrize("nth", range(3))
        def test_log(nth):
            logging.getLogger().warning("a\\udcff")
            assert "PYTEST_XDIST_WORKER" in os.environ
            assert "COVERAGE_PROCESS_START" not in os.environ

        @pytest.mark.alone
        @pytest.mark.parametrize("nth", range(3))
        def test_alone(nth):
            assert "a\\udcff" == ""
        """
    )
    settings = pytester.makefile(".ini", coverage="[run]\nparallel = true\ndata_file = measured\n")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COVERAGE_PROCESS_START", str(settings))
    monkeypatch.delenv("COVERAGE_FILE", raising=False)
    run = pytester.runpytest_subprocess("-n", "2", "-p", "no:randomly", "-p", "no:cacheprovider")
    run.assert_outcomes(passed=3, failed=3)
    assert "INTERNALERROR" not in run.stdout.str()
    assert len([*pytester.path.glob("measured.*")]) == 3, "the controller's and the workers'"


def test_only_tests_near_to_the_code_are_measured(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeconftest(
        "from pathlib import Path\nfrom tests import workers\n"
        "workers._TESTS = Path(__file__).parent\npytest_plugins = ['tests.workers']"
    )
    for name, measured in (("client/test_a", True), ("examples/test_b", False), ("server/test_c", True)):
        file = pytester.path / f"{name}.py"
        file.parent.mkdir()
        file.write_text(
            "import coverage\ndef test_it():\n"
            f"    assert (coverage.Coverage.current() is not None) is {measured}\n"
        )
    settings = pytester.makefile(".ini", coverage="[run]\nparallel = true\ndata_file = measured\n")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COVERAGE_PROCESS_START", str(settings))
    monkeypatch.delenv("COVERAGE_FILE", raising=False)
    run = pytester.runpytest_subprocess("-n", "1", "-p", "no:randomly", "-p", "no:cacheprovider")
    run.assert_outcomes(passed=3)


def test_what_is_not_measured_is_there() -> None:
    assert [name for name in _UNMEASURED if not (ROOT / "tests" / name).exists()] == []
