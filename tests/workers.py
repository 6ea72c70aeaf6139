"""A pytest plugin for runs of several workers (``pytest -n 2``): what they share, and what they keep apart.

The marker ``alone`` is for a test that needs the machine for itself: it waits until no other test of the run
is running, and the others wait for it. Without workers, and on Windows, it does nothing.

Coverage is measured where it says something: not while tests run that look at programs from outside.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

if sys.platform != "win32":
    import fcntl

_TESTS: Final = Path(__file__).parent

#: What tells coverage to begin by itself in each process, and by which settings.
_MEASURING: Final = "COVERAGE_PROCESS_START"
#: Where code runs in processes of the tests alone. Elsewhere measuring them would only take time.
_MEASURED_PACKAGES: Final = ("aio", "blocking", "cli", "service")
#: Tests that run programs, or look from far off at what others look at near by. Of 16,512 statements they
#: alone run a dozen, and measured they take twice as long: CPython 3.11 traces all of its code then.
_UNMEASURED: Final = (
    *("benchmarks", "distribution", "examples", "hardening", "interop", "mutants", "site"),
    *("test_docs.py", "test_docs_messages.py", "test_docs_names.py", "test_guides.py"),
)
_settings = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alone: wait until no other test of this run is running")
    if is_worker(config) or not config.getoption("numprocesses", None):
        # By this a worker's own coverage was begun; few of the processes that its tests start are measured.
        config.stash[_settings] = os.environ.pop(_MEASURING, "")
    elif (measuring := _measuring()) is not None:
        measuring.stop()  # the controller runs no tests


def pytest_collection_finish() -> None:
    # What was collected stays until the end. Each collection of garbage would look at all of it.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    measuring = _measuring()
    if measuring is None or not is_unmeasured(item.path):
        return (yield)
    measuring.stop()
    try:
        return (yield)
    finally:
        measuring.start()


def _measuring() -> Any:
    """Return the measuring of coverage that goes on in this process, or None."""
    coverage = sys.modules.get("coverage")
    return coverage and coverage.Coverage.current()


def is_unmeasured(path: Path) -> bool:
    """Return whether the tests of a file run without coverage."""
    return path.is_relative_to(_TESTS) and path.relative_to(_TESTS).parts[0] in _UNMEASURED


@pytest.fixture(autouse=True)
def _measured_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = request.config.stash.get(_settings, "")
    if settings and request.path.parent.name in _MEASURED_PACKAGES:
        monkeypatch.setenv(_MEASURING, settings)


def is_worker(config: pytest.Config) -> bool:
    """Return whether this process runs tests for another one, which has the results."""
    return hasattr(config, "workerinput")


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Let what a test wrote be sent to the controller, though it is no Unicode, as names of files may be."""
    return _writable((yield))


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_writable(key): _writable(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_writable, value))
    return value


if sys.platform != "win32":

    @contextlib.contextmanager
    def taking_turns(directory: Path, *, alone: bool) -> Iterator[None]:
        """Wait until one may be in, together with others or alone, and be in for a block.

        A worker that wants to be alone waits with the first lock held, so that no other one passes it.
        """
        with open(directory / ".next", "w") as first, open(directory / ".inside", "w") as inside:
            fcntl.flock(first, fcntl.LOCK_EX)
            fcntl.flock(inside, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            fcntl.flock(first, fcntl.LOCK_UN)
            try:
                yield
            finally:
                fcntl.flock(inside, fcntl.LOCK_UN)  # said too, as a forked child may hold a copy

    @pytest.fixture(autouse=True)
    def _alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        if not is_worker(request.config):
            yield
            return
        marked = request.node.get_closest_marker("alone") is not None
        # What is above a worker's own directory all workers of a run have in common.
        with taking_turns(tmp_path_factory.getbasetemp().parent, alone=marked):
            yield
