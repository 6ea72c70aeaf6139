"""Where the time of a run goes can be seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from .platforms import unix_only

ROOT = Path(__file__).parents[1]

#: Takes CPU time, however quick the machine is.
BUSY = "import time\nwhile time.process_time() < {}:\n    pass\n"


@unix_only  # Windows does not say what a process's children have used
@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_tests_and_their_processes_took_is_told_by_file(
    workers: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(
        test_process=f"""
            import subprocess, sys

            def test_started():
                subprocess.run([sys.executable, "-c", {BUSY.format(0.2)!r}], check=True)
            """,
        test_own="""
            import time
            import pytest

            @pytest.fixture(params=range(2))
            def busy():
                end = time.process_time() + 0.2
                while time.process_time() < end:
                    pass

            def test_own(busy):
                pass
            """,
    )
    run = pytester.runpytest_subprocess("-p", "tests.timing", "-n", workers, "-p", "no:cacheprovider")
    run.assert_outcomes(passed=3)
    told = {
        words[4]: [float(word) for word in words[:4]]
        for line in run.outlines
        if len(words := line.split()) == 5 and words[4].startswith("test_")
    }
    assert told.keys() == {"test_process.py", "test_own.py"}
    passed, own, processes, tests = told["test_process.py"]
    assert processes >= 0.15, "of 0.2 s, by a clock that may count in hundredths"
    assert tests == 1
    passed, own, processes, tests = told["test_own.py"]
    assert min(passed, own) >= 0.3
    assert (processes, tests) == (0, 2)
