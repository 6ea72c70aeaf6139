"""Unix sockets: starters that meet, and what goes wrong while one listens."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from typing import Any
from unittest.mock import Mock

import pytest
import trio
import trio.testing

from tests.platforms import open_handles, refuse_to_accept
from tests.support import cancelled_once_begun
from trio_ipc import (
    EndpointError,
    EndpointInUseError,
    EndpointUnsafeError,
    PeerCredentials,
)
from trio_ipc.endpoint import MAX_PATH_BYTES
from trio_ipc.transports import Detached, connect

if sys.platform == "win32":
    pytest.skip("Unix sockets are Unix' own", allow_module_level=True)
assert sys.platform != "win32"

import fcntl  # noqa: E402

from tests.transports.sockets import (  # noqa: E402
    dead_socket,
    for_both,
    mode_of,
    on_linux,
    umask,
)
from trio_ipc.transports import unix, unix_binding, unix_placing  # noqa: E402
from trio_ipc.transports.unix_listener import listen_unix as listen  # noqa: E402


def hold_lock(directory: str) -> int:
    lock_fd = os.open(f"{directory}/.test.sock.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock_fd, fcntl.LOCK_EX)
    return lock_fd


@for_both
async def test_the_lock_of_a_starter_that_is_stuck_is_waited_for_and_then_named(
    path: str, directory: str, autojump_clock: trio.testing.MockClock
) -> None:
    lock_fd = hold_lock(directory)
    try:
        with pytest.raises(EndpointError, match=r"has held .test.sock.lock .* for 5.0 s; find it"):
            await listen(path)
        assert trio.current_time() == pytest.approx(5)
    finally:
        os.close(lock_fd)


@for_both
@pytest.mark.parametrize("removes_it", [False, True])
async def test_a_starter_waits_for_another_that_is_quick(
    path: str, directory: str, autojump_clock: trio.testing.MockClock, removes_it: bool
) -> None:
    lock_fd = hold_lock(directory)

    async def release() -> None:
        await trio.sleep(1)
        if removes_it:
            os.unlink(f"{directory}/.test.sock.lock")
        os.close(lock_fd)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(release)
        async with await listen(path):
            assert trio.current_time() >= 1
            assert os.listdir(directory) == ["test.sock"]


@for_both
async def test_a_lock_that_was_removed_while_it_was_waited_for_is_no_lock(
    path: str, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last holder has removed it: the next starter will make another, and not wait for us."""
    real = fcntl.flock
    removed: list[str] = []

    def remove_first(fd: int, operation: int) -> None:
        if not removed:
            removed.append(f"{directory}/.test.sock.lock")
            os.unlink(removed[0])
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    async with await listen(path):
        assert removed
        assert os.listdir(directory) == ["test.sock"]


def test_between_finding_a_dead_socket_and_listening_no_other_starter_comes(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead_socket(path)
    way_made, second_waits = threading.Event(), threading.Event()
    real_bind, real_flock = unix_binding._bound, fcntl.flock

    def bind_late(*arguments: Any) -> Detached:
        monkeypatch.setattr(unix_binding, "_bound", real_bind)
        way_made.set()
        assert second_waits.wait(10), "the second starter never met the first one's lock"
        return real_bind(*arguments)

    def notice(fd: int, operation: int) -> None:
        try:
            real_flock(fd, operation)
        except BlockingIOError:
            second_waits.set()
            raise

    monkeypatch.setattr(unix_binding, "_bound", bind_late)
    monkeypatch.setattr(fcntl, "flock", notice)

    async def first() -> None:
        async with await listen(path):
            await trio.to_thread.run_sync(second_done.wait, 10)

    async def second() -> None:
        with pytest.raises(EndpointInUseError):
            await listen(path)

    second_done = threading.Event()
    starter = threading.Thread(target=trio.run, args=(first,))
    starter.start()
    try:
        assert way_made.wait(10)
        trio.run(second)
    finally:
        second_done.set()
        starter.join()


@for_both
@on_linux
async def test_on_linux_no_chmod_is_needed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mode is there before the name is; a later chmod would mean that it was wider."""
    chmod = Mock()
    monkeypatch.setattr(os, "chmod", chmod)
    with umask(0):
        async with await listen(path):
            assert mode_of(path) == 0o600
    chmod.assert_not_called()


@for_both
async def test_a_start_that_fails_leaves_neither_descriptor_nor_file(
    path: str, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_handles()
    os.chmod(directory, 0o777)
    with pytest.raises(EndpointUnsafeError):
        await listen(path)
    os.chmod(directory, 0o700)
    monkeypatch.setattr(socket.socket, "listen", Mock(side_effect=OSError(errno.ENOBUFS, "No buffer space")))
    with pytest.raises(EndpointError, match="No buffer space"):
        await listen(path)
    assert os.listdir(directory) == []
    assert open_handles() == before


@for_both
async def test_a_socket_that_was_replaced_while_served_is_left_alone(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with await listen(path):
        os.unlink(path)
        dead_socket(path)
    assert os.path.lexists(path)
    assert "was replaced while it was served" in caplog.text


@for_both
async def test_a_socket_that_was_removed_while_served_is_told(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with await listen(path):
        os.unlink(path)
    assert "was removed while it was served" in caplog.text


@for_both
async def test_a_socket_that_cannot_be_removed_is_told(
    path: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await listen(path):
        denied = PermissionError(errno.EPERM, "Operation not permitted")
        monkeypatch.setattr(os, "unlink", Mock(side_effect=denied))
    monkeypatch.undo()
    assert f"{path} could not be removed: Operation not permitted" in caplog.text


@for_both
@pytest.mark.parametrize("directory_mode", [0o700, 0o755])
async def test_where_bind_ignores_fchmod_the_socket_is_made_where_nobody_looks(
    directory: str, directory_mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What macOS and the BSDs do; it works on Linux all the same."""
    path = f"{directory}/test.sock"
    os.chmod(directory, directory_mode)
    monkeypatch.setattr(unix_placing, "_BIND_HONOURS_FCHMOD", False)
    with umask(0):
        async with await listen(path) as listener, await connect(path), await listener.accept():
            assert mode_of(path) == 0o600
            assert os.listdir(directory) == ["test.sock"]
    assert os.listdir(directory) == []


@for_both
async def test_where_the_private_place_would_be_too_deep_the_way_out_is_told(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = f"{directory}/{'x' * (MAX_PATH_BYTES - len(directory) - 4)}"
    os.mkdir(deep)
    os.chmod(deep, 0o755)
    monkeypatch.setattr(unix_placing, "_BIND_HONOURS_FCHMOD", False)
    with pytest.raises(EndpointError, match=f"is longer than .*chmod 700 {deep}"):
        await listen(f"{deep}/s")
    assert os.listdir(deep) == []


@for_both
@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.EPROTO])
async def test_a_client_that_left_before_it_was_accepted_costs_nothing(
    path: str, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    async with await listen(path) as listener, await connect(path):
        refuse_to_accept(monkeypatch, code, times=1)
        await (await listener.accept()).aclose()


async def test_a_client_that_nobody_can_ask_who_it_is_costs_no_other(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Mock(side_effect=[OSError(errno.EINVAL, "Invalid argument"), PeerCredentials(uid=7)])
    async with await listen(path) as listener, await connect(path) as lost, await connect(path):
        monkeypatch.setattr(unix, "peer_credentials", ask)
        async with await listener.accept() as served:
            assert served.peer == PeerCredentials(uid=7)
        assert await lost.receive_some() == b""


async def test_what_came_with_a_cancellation_is_not_lost(path: str) -> None:
    """The cancellation comes in the very step in which there is something to return."""
    async with await listen(path) as listener, await connect(path) as client:
        async with await listener.accept() as served:
            for _ in range(20):  # the two tasks run in either order
                await client.send_all(b"x")
                assert await cancelled_once_begun(served.receive_some) == b"x"
                async with await connect(path):
                    accepted = await cancelled_once_begun(listener.accept)
                    assert accepted is not None
                    await accepted.aclose()


@for_both
async def test_running_out_of_descriptors_is_for_the_caller_to_wait_out(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await listen(path) as listener:
        refuse_to_accept(monkeypatch, errno.EMFILE, times=2)
        for _ in range(2):
            with pytest.raises(OSError, match="Too many open files"):
                await listener.accept()
