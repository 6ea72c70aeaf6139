"""A socket on which another user listens, and nobody answers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from trio_ipc.testing import temporary_endpoint

STRANGER = 54_321

needs_another_user = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes root to be another user"
)


@contextmanager
def endpoint_of_a_stranger() -> Iterator[str]:
    """Give the path of a socket on which :data:`STRANGER` listens. Takes :data:`needs_another_user`."""
    with temporary_endpoint() as endpoint, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(endpoint.path)
        os.seteuid(STRANGER)  # who calls listen(2) is the one that a client sees (unix(7), SO_PEERCRED)
        try:
            listening.listen()
        finally:
            os.seteuid(0)
        yield endpoint.path
