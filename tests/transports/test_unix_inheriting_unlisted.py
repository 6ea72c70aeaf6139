"""Listening sockets that somebody else opened, below a directory that the service may pass and not list."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

if sys.platform != "linux" or os.geteuid() != 0:
    pytest.skip("takes root on Linux: it becomes another user", allow_module_level=True)
assert sys.platform == "linux"

STRANGER = 54_001

#: Judges a socket as another user; what it says of it is the program's output.
_JUDGE = """
import os, socket, sys
import trio_ipc.transports.unix_opening
from trio_ipc import EndpointUnsafeError
from trio_ipc.transports import inherited_unix_listener
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
try:
    print(inherited_unix_listener(int(sys.argv[1])).look().file)
except EndpointUnsafeError as exc:
    print(exc)
"""


@pytest.mark.parametrize(
    ("owner", "mode", "said"),
    [
        (0, 0o600, "there"),
        (0, 0o666, "has mode 0666, and may have 0600 at most"),
        (STRANGER + 1, 0o600, f"belongs to uid {STRANGER + 1}"),
    ],
)
def test_a_directory_that_may_be_passed_and_not_listed_is_judged_with_what_is_in_it(
    directory: str, owner: int, mode: int, said: str
) -> None:
    path = f"{directory}/test.sock"
    os.chown(directory, owner, -1)
    os.chmod(directory, 0o711)
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(path)
        os.chmod(path, mode)
        theirs.listen()
        fd = theirs.fileno()
        command = [sys.executable, "-c", _JUDGE, str(fd), str(STRANGER)]
        done = subprocess.run(command, pass_fds=[fd], capture_output=True, text=True, check=False)
    assert said in done.stdout, done.stderr
