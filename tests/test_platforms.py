"""What tests measure by is tested itself."""

from __future__ import annotations

import subprocess
import sys

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
