"""The process at the other end, and not whichever has its number by now."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from subprocess import PIPE
from unittest.mock import Mock

import pytest
import trio

from tests.support import serving, succeed, success, task
from trio_ipc import (
    Call,
    IpcConfig,
    PeerClosedError,
    PeerCredentials,
    PeerNotAllowedError,
    PeerPolicy,
    open_client,
    serve,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.transports import peer_process

if sys.platform != "linux":
    pytest.skip("only Linux tells of which process a connection is", allow_module_level=True)
assert sys.platform == "linux"

from trio_ipc.transports.credentials import peer_credentials  # noqa: E402
from trio_ipc.transports.peer_process import PeerProcess  # noqa: E402


def _has_pidfd() -> bool:
    left, right = socket.socketpair()
    with left, right:
        return PeerProcess(left).still_runs() is not None


needs_pidfd = pytest.mark.skipif(not _has_pidfd(), reason="takes SO_PEERPIDFD, which Linux has from 6.5 on")

CONNECT = """
import socket, sys, time
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
sys.stdin.readline()
"""


@contextmanager
def connected_process(path: str) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """A process that connects, and lives until its standard input says something."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        with subprocess.Popen([sys.executable, "-c", CONNECT, path], stdin=PIPE) as process:
            sock, _ = server.accept()
            with sock:
                yield sock, process
                process.kill()


@pytest.fixture
def path(directory: str) -> str:
    return f"{directory}/test.sock"


@needs_pidfd
def test_a_peer_runs_until_it_has_ended_reaped_or_not(path: str) -> None:
    with connected_process(path) as (sock, process):
        peer = peer_credentials(sock)
        assert peer.pid == process.pid
        assert peer.still_runs() is True
        process.kill()
        select.select([sock], [], [], 10)  # it is gone, and nobody has asked for its status yet
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert peer.still_runs() is False
        process.wait()
        assert peer.still_runs() is False
        assert peer.executable() is None


@needs_pidfd
def test_its_program_is_a_file(path: str) -> None:
    with connected_process(path) as (sock, _):
        found = peer_credentials(sock).executable()
        assert found is not None
        real = os.path.realpath(sys.executable)
        assert str(found) == found.path == real
        assert found.file == (os.stat(real).st_dev, os.stat(real).st_ino)


@needs_pidfd
def test_a_program_that_runs_another_is_the_other(path: str) -> None:
    script = CONNECT.replace("sys.stdin.readline()", "import os; os.execv('/bin/cat', ['cat'])")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        with subprocess.Popen([sys.executable, "-c", script, path], stdin=PIPE) as process:
            sock, _ = server.accept()
            with sock:
                assert sock.recv(1) == b""  # close-on-exec: it runs the other by now
                peer = peer_credentials(sock)
                assert peer.still_runs() is True
                assert os.path.basename(str(peer.executable())) in {"cat", "coreutils"}
            process.kill()


@needs_pidfd
def test_once_the_connection_is_closed_nobody_can_tell(path: str) -> None:
    with connected_process(path) as (sock, _):
        peer = peer_credentials(sock)
        sock.close()
        assert (peer.still_runs(), peer.executable()) == (None, None)


@needs_pidfd
def test_asking_leaves_no_descriptor_open(path: str) -> None:
    with connected_process(path) as (sock, _):
        peer = peer_credentials(sock)
        before = os.listdir("/proc/self/fd")
        for _ in range(3):
            peer.still_runs()
            peer.executable()
        assert os.listdir("/proc/self/fd") == before


def test_it_keeps_no_connection_alive_and_may_be_copied() -> None:
    left, right = socket.socketpair()
    peer = peer_credentials(left)
    assert peer == PeerCredentials(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())
    copied = pickle.loads(pickle.dumps(peer))  # noqa: S301 - our own
    assert (copied, copied.groups, copied.still_runs()) == (peer, peer.groups, None)
    assert copy.deepcopy(peer) == peer
    left.close()
    right.close()
    del left
    assert (peer.still_runs(), peer.executable()) == (None, None)
    assert hash(peer) == hash(copied)


@pytest.mark.parametrize(
    ("code", "runs"), [(errno.EINVAL, False), (errno.ESRCH, False), (errno.ENOPROTOOPT, None)]
)
def test_older_kernels_say_it_by_an_error_or_not_at_all(code: int, runs: bool | None) -> None:
    sock = Mock(getsockopt=Mock(side_effect=OSError(code, os.strerror(code))))
    process = PeerProcess(sock)
    assert process.still_runs() is runs
    assert process.executable() is None


@needs_pidfd
def test_a_program_that_may_not_be_looked_at_cannot_be_told(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected_process(path) as (sock, _):
        peer = peer_credentials(sock)
        denied = PermissionError(errno.EACCES, "Permission denied")
        monkeypatch.setattr(os, "readlink", Mock(side_effect=denied))
        assert peer.executable() is None
        monkeypatch.undo()
        monkeypatch.setattr(peer_process, "_number_of", Mock(side_effect=ValueError))
        assert peer.executable() is None


@needs_pidfd
def test_a_process_that_ends_while_it_is_looked_at_cannot_be_told(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then its number may be somebody else's, and what was read as well."""
    with connected_process(path) as (sock, process):
        peer = peer_credentials(sock)
        real = os.readlink

        def ends(link: str) -> str:
            target = real(link)
            process.send_signal(signal.SIGKILL)
            process.wait()
            return target

        monkeypatch.setattr(os, "readlink", ends)
        assert peer.executable() is None


@needs_pidfd
async def test_a_handler_may_ask_whether_the_caller_still_runs(config: IpcConfig) -> None:
    async def handle(request: DetectionTask, call: Call) -> DetectionResult:
        assert call.peer is not None
        said = f"{call.peer.still_runs()} {call.peer.executable()}"
        return DetectionResult(task_id=request.task_id, success=True, error_message=said)

    async with serving(handle, config), open_client(DETECTION, config) as client:
        assert (await client.call(task())).error_message == f"True {os.path.realpath(sys.executable)}"


@needs_pidfd
async def test_a_policy_by_program_lets_the_right_one_in_and_refuses_the_rest(
    config: IpcConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trio_ipc")
    ours = PeerPolicy.own_user_and_root().running(sys.executable)
    other = PeerPolicy.own_user_and_root().running("/bin/sh")
    real = os.path.realpath(sys.executable)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, succeed, DETECTION, config, peers=ours))
        async with open_client(DETECTION, config, peers=ours) as client:
            assert await client.call(task()) == success()
        with pytest.raises(PeerNotAllowedError, match=f"running {real}.*allowed is user .* running /bin/sh"):
            async with open_client(DETECTION, config, peers=other):
                pass
        server.stop()
    assert f"running {real}, allowed as user {os.geteuid()}" in caplog.text
    caplog.clear()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, succeed, DETECTION, config, peers=other))
        async with open_client(DETECTION, config) as client:
            with pytest.raises(PeerClosedError):
                await client.call(task())
        server.stop()
    assert f"running {real} is not allowed, allowed is user" in caplog.text
