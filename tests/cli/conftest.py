"""A table of commands as others write them, and a way to run the program within the test."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click
import pytest

from trio_ipc.cli import program
from trio_ipc.cli.commands import Entry
from trio_ipc.cli.group import Command

#: Makes a table of one command, which takes ENDPOINT, ``--json`` or what else its decorators say.
MakeTable = Callable[[Callable[..., Any]], Mapping[str, Entry]]
#: Runs the program with arguments; returns the exit status.
Run = Callable[..., int]


@pytest.fixture(scope="session", autouse=True)
def _the_forker_ends() -> Iterator[None]:
    yield
    if sys.platform != "win32":
        from tests.cli.processes import forker

        if forker.cache_info().currsize:
            forker().close()


@pytest.fixture
def table_of(monkeypatch: pytest.MonkeyPatch) -> MakeTable:
    """A table with one command, ``probe``, in a module of its own."""

    def table(function: Callable[..., Any]) -> Mapping[str, Entry]:
        module = types.ModuleType("tests.cli.probe_of_a_test")
        module.command = click.command("probe", cls=Command)(function)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return {"probe": Entry(module.__name__, "Try something.")}

    return table


@pytest.fixture
def run(table_of: MakeTable) -> Run:
    """Run ``trio-ipc probe ARGUMENTS`` with this function for a command."""

    def run_it(function: Callable[..., Any], *arguments: str) -> int:
        return program.run(["probe", *arguments], table_of(function))

    return run_it
