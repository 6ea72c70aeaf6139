"""A socket that one process made and another serves, as with systemd: whom the kernel shows to a client."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.hardening.record import Attack

if sys.platform != "linux":
    pytest.skip("speaks of Linux's SO_PEERCRED", allow_module_level=True)
assert sys.platform == "linux"

from trio_ipc.transports import PeerPolicy, open_unix_stream  # noqa: E402

#: The user that the service becomes, where this process is root.
SERVICE = 54_004

#: Listens, forks, and has the child become a program to which it leaves the socket as descriptor 3.
MANAGER = """
import os, socket, sys

path, user, *service = sys.argv[1:]
sock = socket.socket(socket.AF_UNIX)
sock.bind(path)
sock.listen()
if os.fork() == 0:
    os.dup2(sock.fileno(), 3)
    os.set_inheritable(3, True)
    os.execv(sys.executable, [sys.executable, "-I", "-c", *service, user])
sock.close()
print(os.getpid(), flush=True)
sys.stdin.read()
os.wait()
"""

#: Becomes the user that it is told, and tells each client its process and user, until its input ends.
SERVICE_PROGRAM = """
import os, socket, sys, threading

sock = socket.socket(fileno=3)
if sys.argv[-1]:
    os.setgroups([])
    os.setgid(int(sys.argv[-1]))
    os.setuid(int(sys.argv[-1]))
if "listens" in sys.argv:
    sock.listen()

def answer():
    while True:
        client, _ = sock.accept()
        client.sendall(f"{os.getpid()} {os.geteuid()}".encode())
        client.close()

threading.Thread(target=answer, daemon=True).start()
print("serving", flush=True)
sys.stdin.read()
"""


@contextmanager
def passed_on(path: str, *arguments: str) -> Iterator[int]:
    """Have a service with the socket of its manager, whose process id this gives."""
    user = str(SERVICE) if os.geteuid() == 0 else ""
    command = [sys.executable, "-I", "-c", MANAGER, path, user, SERVICE_PROGRAM, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as manager:
        assert manager.stdin is not None
        assert manager.stdout is not None
        said = sorted(manager.stdout.readline().strip() for _ in range(2))  # in either order
        assert said == [str(manager.pid), "serving"]
        yield manager.pid
        manager.stdin.close()
    assert manager.returncode == 0


async def asked(path: str) -> tuple[tuple[int | None, int | None], tuple[int, int], bool]:
    """Return process and user that the kernel shows, those that serve, and whether the former are trusted."""
    async with await open_unix_stream(path) as client:
        answer = b"".join([piece async for piece in client])
        pid, uid = map(int, answer.split())
        peer = client.peer
        return (peer.pid, peer.uid), (pid, uid), PeerPolicy.own_user_and_root().allows(peer)


async def test_a_client_is_shown_who_called_listen_and_not_who_serves(directory: str, attack: Attack) -> None:
    path = f"{directory}/test.sock"
    tries = 5
    with passed_on(path) as manager:
        for _ in range(tries):
            shown, serving, trusted = await asked(path)
            assert shown == (manager, os.geteuid())
            assert serving[0] != manager
            assert serving[1] == (SERVICE if os.geteuid() == 0 else os.geteuid())
            assert trusted, "as root's socket, with any user who serves"
    if os.geteuid() != 0:
        return  # the row speaks of two users
    attack(
        "a client asks who is at the other end of a socket that root made and another user's process serves",
        tried=tries,
        outcome="root is shown, who called `listen`; see [security.md](security.md#who-is-at-the-other-end)",
    )


async def test_a_service_that_calls_listen_itself_is_shown_from_then_on(directory: str) -> None:
    path = f"{directory}/test.sock"
    with passed_on(path, "listens"):
        shown, serving, trusted = await asked(path)
        assert shown == serving
        assert trusted == (os.geteuid() != 0), "root's client does not trust another user"
