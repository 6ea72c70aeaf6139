"""How processes start under Wine: again after the failure that is Wine's own, and after no other."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("there it is installed", allow_module_level=True)
assert sys.platform != "win32"

INTERNAL_ERROR = 1359
FILE_NOT_FOUND = 2


@pytest.fixture
def started_again(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[..., Any]]:
    monkeypatch.setattr(sys, "meta_path", sys.meta_path.copy())  # it puts something there
    found: Any = runpy.run_path(str(Path(__file__).with_name("bootstrap.py")))["started_again"]
    return found  # type: ignore[no-any-return]


class Creating:
    """A ``CreateProcess`` that fails with these errors, in turn, and then starts a process."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.asked: list[tuple[object, ...]] = []

    def __call__(self, *arguments: object) -> str:
        self.asked.append(arguments)
        if self.errors:
            exc = OSError("it failed")
            exc.winerror = self.errors.pop(0)  # type: ignore[attr-defined]
            raise exc
        return "a process"


def test_a_process_that_wine_lost_is_started_again_with_the_same_arguments(
    started_again: Callable[..., Callable[..., Any]],
) -> None:
    create = Creating(INTERNAL_ERROR, INTERNAL_ERROR)
    assert started_again(create)("python.exe", None) == "a process"
    assert create.asked == [("python.exe", None)] * 3


@pytest.mark.parametrize(
    ("errors", "asked"),
    [([INTERNAL_ERROR] * 4, 3), ([FILE_NOT_FOUND], 1), ([INTERNAL_ERROR, FILE_NOT_FOUND], 2)],
)
def test_other_failures_and_too_many_are_raised(
    started_again: Callable[..., Callable[..., Any]], errors: list[int], asked: int
) -> None:
    create = Creating(*errors)
    with pytest.raises(OSError, match="it failed"):
        started_again(create)("python.exe")
    assert len(create.asked) == asked
