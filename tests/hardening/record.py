"""What the tests of hardening tried and saw: a pytest plugin that gathers it, and what of it the code says.

A test says at its end what it did, by the fixture ``attack``. What passed is written to
``build/hardening.json`` when the run is over; `tests.hardening.table` makes the table in the docs of that.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Protocol

import attrs
import pytest

from tests.workers import is_worker

ROOT: Final = Path(__file__).parents[2]
RECORDED: Final = Path("build", "hardening.json")
#: The same of what runs on Windows alone.
RECORDED_ON_WINDOWS: Final = Path("build", "hardening-windows.json")
#: Names the file to write on Windows; nothing is written without it.
RECORD_IN: Final = "TRIO_IPC_TEST_RECORD"

_PROPERTY: Final = "attack"


class Attack(Protocol):
    """The type of the fixture ``attack``."""

    def __call__(self, name: str, *, tried: int, outcome: str) -> None: ...


@attrs.frozen
class Entry:
    """One attack that one test tried, with one set of its parameters."""

    name: str
    tried: int
    outcome: str
    test: str


@pytest.fixture
def attack(request: pytest.FixtureRequest) -> Attack:
    """Record ``attack("name", tried=N, outcome="…")`` as a row of docs/hardening.md, if the test passes.

    Call it after the last assertion, so that only what was shown is said. The name and the outcome are
    literals, alike wherever the same attack is tried, and N does not vary from run to run. Tests with
    parameters are added up.
    """

    def record(name: str, *, tried: int, outcome: str) -> None:
        assert tried > 0
        entry = Entry(name, tried, outcome, request.node.nodeid)
        request.node.user_properties.append((_PROPERTY, attrs.asdict(entry)))

    return record


class _Recorder:
    def __init__(self, file: Path) -> None:
        self.file = file
        self.entries: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.entries += [value for name, value in report.user_properties if name == _PROPERTY]  # type: ignore[misc]

    def pytest_sessionfinish(self) -> None:
        file: Path | None = self.file
        if sys.platform == "win32":
            asked = os.environ.get(RECORD_IN)
            file = Path(asked) if asked else None
        if self.entries and file is not None:
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(self.entries, indent=1) + "\n", encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    if not is_worker(config):  # the controller hears of all results
        config.pluginmanager.register(_Recorder(config.rootpath / RECORDED))


def recorded(file: Path) -> list[Entry]:
    """Return what the last run wrote."""
    return [Entry(**entry) for entry in json.loads(file.read_text(encoding="utf-8"))]


def claimed(files: Iterable[Path]) -> dict[str, str]:
    """Return the outcome of each attack that tests record, by name, as their source says it.

    Raises:
        ValueError: a name or an outcome is no literal, or two tests say different outcomes of one attack.
    """
    outcomes: dict[str, str] = {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "attack"
            ):
                continue
            try:
                name = ast.literal_eval(node.args[0])
                outcome = ast.literal_eval(next(kw.value for kw in node.keywords if kw.arg == "outcome"))
            except (IndexError, StopIteration, ValueError):
                raise ValueError(f"{file.name}:{node.lineno}: attack(…) needs literals") from None
            if outcomes.setdefault(name, outcome) != outcome:
                raise ValueError(f"{file.name}:{node.lineno}: {name!r} has another outcome elsewhere")
    return outcomes


def modules(*, windows: bool = False) -> list[Path]:
    """Return the modules whose tests may record: those that run on Windows alone, or all others."""
    found = sorted((ROOT / "tests").rglob("test_*.py"))
    return [module for module in found if _is_for_windows(module) == windows]


def _is_for_windows(module: Path) -> bool:
    """Return what a module says to the type checker."""
    return '\nassert sys.platform == "win32"\n' in module.read_text(encoding="utf-8")
