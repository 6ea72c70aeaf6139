"""A process id that is somebody else's by the time it is looked at, forced.

The attacker connects and leaves the connection to a child, so that its own id is free. Then a trusted program
is started by that very id (``/proc/sys/kernel/ns_last_pid``, in a pid namespace of its own). Only then the
server looks.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.hardening.record import ROOT, Attack
from tests.platforms import unix_only

pytestmark = unix_only

PROGRAM = """
import os, signal, socket, subprocess, sys
from trio_ipc import PeerPolicy
from trio_ipc.transports.credentials import peer_credentials

path, tries = sys.argv[1], int(sys.argv[2])
trusted = os.path.realpath("/bin/sleep")
policy = PeerPolicy.anyone().running(trusted)
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen()

def attackers_pid():
    attacker = os.fork()
    if attacker == 0:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        if os.fork() == 0:
            sock.recv(1)  # until the server closes
        os._exit(0)
    os.waitpid(attacker, 0)
    return attacker

reused = fooled = let_in = 0
while reused < tries:
    attacker = attackers_pid()
    with open("/proc/sys/kernel/ns_last_pid", "w") as last:
        last.write(str(attacker - 1))
    with subprocess.Popen([trusted, "60"]) as process:
        connection, _ = server.accept()
        with connection:
            peer = peer_credentials(connection)
            assert peer.pid == attacker
            reused += process.pid == attacker
            if process.pid == attacker:
                fooled += os.readlink(f"/proc/{peer.pid}/exe") == trusted
                let_in += policy.allows(peer) or peer.still_runs() is not False
        process.kill()
    while True:  # this is the namespace's first process, to which orphans go
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break
print(reused, fooled, let_in)
"""

_IN_A_PID_NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def _why_not() -> str | None:
    if sys.platform != "linux" or os.geteuid() != 0:
        return "takes root on Linux: a pid namespace, and a say in its next number"
    try:
        code = "test -w /proc/sys/kernel/ns_last_pid"
        done = subprocess.run([*_IN_A_PID_NAMESPACE, "sh", "-c", code], capture_output=True, check=False)
    except FileNotFoundError:
        return "needs unshare(1)"
    if done.returncode:
        return f"this system has no pid namespace for us: {done.stderr.decode().strip() or 'no ns_last_pid'}"
    return None


_REASON = _why_not()


def force(path: str, tries: int) -> tuple[int, int, int]:
    """Force so many reuses; return how many there were, fooled a look by number, and were let in by us."""
    command = [*_IN_A_PID_NAMESPACE, sys.executable, "-c", PROGRAM, path, str(tries)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    reused, fooled, let_in = map(int, done.stdout.split())
    return reused, fooled, let_in


@pytest.mark.skipif(_REASON is not None, reason=str(_REASON))
def test_a_forced_reuse_of_a_pid_wins_never(directory: str, attack: Attack) -> None:
    reused, fooled, let_in = force(f"{directory}/s", 100)
    assert (reused, fooled) == (100, 100), "the attack itself works on who looks by the number"
    assert let_in == 0
    attack(
        "a trusted program started by the process id that a client had, before the server looks",
        tried=100,
        outcome="refused each time; a look by the number is fooled each time",
    )
