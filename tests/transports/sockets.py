"""What the tests of Unix sockets share."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

if sys.platform == "win32":
    pytest.skip("Unix sockets are Unix' own", allow_module_level=True)
assert sys.platform != "win32"


as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="takes root: it becomes another user, or does what modes forbid"
)

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells this, other systems do not")


for_both = pytest.mark.usefixtures("both")


def dead_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
