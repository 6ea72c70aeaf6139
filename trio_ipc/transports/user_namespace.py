"""Which numbers of users and groups can be believed.

In a user namespace (user_namespaces(7)) the kernel shows every user that has no number there as the overflow
uid, 65534 unless it was told otherwise, and every such group as the overflow gid. A process with that number
may be anybody: the namespace's own ``nobody``, or a stranger. This module must never take one for known
that is not.
"""

from __future__ import annotations

import os
import sys
from typing import Final

#: "DEFAULT_OVERFLOWUID" and "DEFAULT_OVERFLOWGID" of the kernel's include/linux/highuid.h.
_DEFAULT_OVERFLOW: Final = 65_534

#: The map in which every number stands for itself: the initial namespace's, or that of one without limits.
_WHOLE: Final = [b"0", b"0", b"4294967295"]


def hidden_uid() -> int | None:
    """Return the user id that stands for everyone unknown, or None where every number is somebody's own."""
    return _hidden("uid")


def hidden_gid() -> int | None:
    """Return the group id that stands for every unknown group, or None as :func:`hidden_uid` does."""
    return _hidden("gid")


def hidden_words(kind: str, number: int) -> str:
    """Say of a ``uid`` or ``gid`` that it says nothing, as the name of somebody."""
    return f"{kind} {number}, which here stands for all whom this user namespace does not map"


def _hidden(kind: str) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        if _read(f"/proc/self/{kind}_map").split() == _WHOLE:
            return None
    except FileNotFoundError:
        if os.path.exists("/proc/self/status"):
            return None  # a kernel without user namespaces
    except OSError:
        pass  # it can't be told, so that the number is not to be believed
    try:
        return int(_read(f"/proc/sys/kernel/overflow{kind}"))
    except (OSError, ValueError):
        return _DEFAULT_OVERFLOW


def _read(path: str) -> bytes:
    # Without the layers of open(): each connection asks.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
