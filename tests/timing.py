"""A pytest plugin that tells where the time of a run is spent: ``make test ARGS="-p tests.timing"``.

For each file of tests it has the seconds that passed, and how many of them were CPU time: of the worker
itself, and of the processes that its tests have started and waited for. What is neither was waited for, or
taken by others on this machine.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Generator
from typing import Any, Final, NamedTuple

import pytest


class Took(NamedTuple):
    """Seconds: that passed, of the worker's CPU time, of its processes' CPU time."""

    passed: float
    own: float
    processes: float


_BEGAN: Final = pytest.StashKey[Took]()


def _by_now() -> Took:
    used = os.times()
    return Took(time.monotonic(), used.user + used.system, used.children_user + used.children_system)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Timing())


class Timing:
    """What the tests of one run have taken."""

    def __init__(self) -> None:
        self._files: defaultdict[str, list[Took]] = defaultdict(list)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        item.stash[_BEGAN] = _by_now()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, Any]:
        report = yield
        if call.when == "teardown":
            # A worker's report goes to the controller with all of its attributes.
            began = item.stash[_BEGAN]
            report.took = [now - then for now, then in zip(_by_now(), began, strict=True)]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        took = getattr(report, "took", None)
        if took is not None:
            self._files[report.nodeid.partition("::")[0]].append(Took(*took))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("where the time went, in seconds")
        terminalreporter.write_line(f"{'passed':>9} {'CPU':>9} {'processes':>9} {'tests':>6}")
        sums = [(Took(*map(sum, zip(*tests, strict=True))), file) for file, tests in self._files.items()]
        for took, file in sorted(sums, reverse=True):
            numbers = " ".join(f"{seconds:9.2f}" for seconds in took)
            terminalreporter.write_line(f"{numbers} {len(self._files[file]):6} {file}")
