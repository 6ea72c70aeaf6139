"""What tests measure by is tested itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import platforms

#: In a process of its own: the threads of other tests have handles, too, and end when they like.
LEAVE_OPEN = """
import os, sys
from tests.platforms import open_handles

if sys.platform == "win32":
    from trio_ipc.transports.windows import win32
    open_one, close_one = win32.create_event, win32.close_handle
else:
    open_one, close_one = lambda: os.dup(0), os.close

before = open_handles()
left = [open_one() for _ in range(10)]
during = open_handles()
for each in left:
    close_one(each)
print(before > 0, during - before, open_handles() - before)
"""


def test_what_is_left_open_is_counted() -> None:
    command = [sys.executable, "-c", LEAVE_OPEN]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "10", "0"]


@pytest.mark.parametrize(
    ("wine", "is_expected"), [(None, False), (8, True), (10, True), (9, False), (11, False)]
)
def test_a_failure_is_expected_under_the_versions_of_wine_that_it_names(
    wine: int | None, is_expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platforms, "WINE", wine)
    mark = platforms.fails_under_wine("does not", versions=[8, 10], run=False).mark
    assert mark.args == (is_expected,)
    assert mark.kwargs == {"reason": "Wine 8, 10: does not", "strict": True, "run": False}
