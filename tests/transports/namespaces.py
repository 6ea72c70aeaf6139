"""Programs in user namespaces of their own, for tests: who a namespace does not map is nobody known there."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from subprocess import PIPE
from typing import Final

import pytest

from tests.hardening.record import ROOT

#: linux/sched.h.
CLONE_NEWUSER: Final = 0x10000000

#: What a container's user namespace maps: its users 0 to 65535 to some that nobody else has.
CONTAINER: Final = "0 100000 65536"
WHOLE: Final = "0 0 4294967295"

#: Run before a program: it imports what there is, as the other user may not read it; leaves for a namespace
#: of its own and waits until its maps are written; and then becomes the user that it is told.
_PROLOGUE: Final = f"""
import ctypes, os, sys
import trio
import tests.support, trio_ipc.channel.interprocess, trio_ipc.legacy, trio_ipc.transports.unix_listener
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare({CLONE_NEWUSER}):
    sys.exit(f"unshare: {{os.strerror(ctypes.get_errno())}}")
print("unshared", flush=True)
user = sys.stdin.readline().strip()
if user:
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
"""


def _refused() -> str | None:
    """Why this process may not make a user namespace, if so."""
    if sys.platform != "linux":
        return "user namespaces are Linux's"
    child = os.fork()
    if child == 0:
        failed = ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER)
        os._exit(ctypes.get_errno() if failed else 0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if code == 0 else f"this system refuses a user namespace: {os.strerror(code)}"


_WHY_NOT = _refused()

needs_user_namespaces = pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT))

#: Only root may map users that are not its own.
needs_maps = pytest.mark.skipif(
    _WHY_NOT is not None or (sys.platform != "win32" and os.geteuid() != 0),
    reason=_WHY_NOT or "takes root: a map of other users than one's own",
)


def run_in_namespace(
    program: str, *arguments: str, maps: str = "", user: int | None = None, timeout: float = 60
) -> str:
    """Run a program in a user namespace, and return what it printed.

    Args:
        program: Python code.
        arguments: for it, from ``sys.argv[1]`` on.
        maps: of users and of groups; empty for none at all.
        user: whom to become once there, as the namespace numbers users.
        timeout: in seconds.
    """
    command = [sys.executable, "-c", _PROLOGUE + program, *arguments]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        said = process.stdout.readline()
        if said == "unshared\n" and maps:
            for kind in ("uid", "gid"):
                with open(f"/proc/{process.pid}/{kind}_map", "w") as file:
                    file.write(maps)
        out, err = process.communicate("" if user is None else f"{user}\n", timeout=timeout)
        assert process.returncode == 0, said + out + err
        return out
