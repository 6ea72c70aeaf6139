"""The way to a socket: every link and directory on it is judged, and nothing is made before that."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from tests.hardening.record import Attack
from tests.platforms import open_handles
from trio_ipc import (
    EndpointError,
    EndpointInUseError,
    EndpointUnsafeError,
    IpcConfig,
    PeerPolicy,
    TransportType,
)

if sys.platform == "win32":
    pytest.skip("Unix sockets are Unix' own", allow_module_level=True)
assert sys.platform != "win32"

import fcntl  # noqa: E402

from trio_ipc import legacy  # noqa: E402
from trio_ipc.transports import DetachableListener, listen, unix_binding, unix_lock  # noqa: E402

STRANGER = 12_345

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root: it gives links and directories away")

Starts = Callable[[str], Awaitable[DetachableListener[Any]]]


@pytest.fixture
def start(transport: TransportType) -> Starts:
    """Listens at a path, by each transport."""

    async def start(path: str) -> DetachableListener[Any]:
        if transport is TransportType.LEGACY:
            return await legacy.listen(IpcConfig(endpoint_path=path), PeerPolicy.own_user_and_root())
        return await listen(path, PeerPolicy.own_user_and_root())

    return start


# --- Links --------------------------------------------------------------------------------------------------


@as_root
@pytest.mark.parametrize("kind", ["absolute", "relative", "relative to another directory", "twice"])
async def test_every_link_of_a_chain_is_judged(
    directory: str, start: Starts, kind: str, attack: Attack
) -> None:
    """Ours leads to a stranger's, which leads on: the stranger may turn it at any time."""
    os.chmod(directory, 0o1777)
    os.makedirs(f"{directory}/real/own", 0o700)
    os.mkdir(f"{directory}/other", 0o755)
    targets = {
        "absolute": ("theirs", f"{directory}/theirs", f"{directory}/real"),
        "relative": ("theirs", "theirs", "real"),
        "relative to another directory": ("other/theirs", "other/theirs", "../real"),
        "twice": ("theirs", "./ours2", "real"),
    }
    theirs, ours_leads_to, theirs_leads_to = targets[kind]
    if kind == "twice":
        os.symlink(f"{directory}//theirs", f"{directory}/ours2")
    os.symlink(theirs_leads_to, f"{directory}/{theirs}")
    os.symlink(ours_leads_to, f"{directory}/ours")
    listener = await start(f"{directory}/ours/own/test.sock")
    await listener.aclose()
    os.lchown(f"{directory}/{theirs}", STRANGER, -1)
    with pytest.raises(
        EndpointUnsafeError, match=f"uid {STRANGER} can replace the .* by way of {directory}/{theirs}"
    ):
        await start(f"{directory}/ours/own/test.sock")
    attack(
        "a link of root's that leads on by way of another user's link",
        tried=1,
        outcome="`EndpointUnsafeError` that names the link; every one on the way is judged",
    )


@as_root
async def test_the_directory_that_a_link_stands_in_is_judged_too(directory: str, start: Starts) -> None:
    os.makedirs(f"{directory}/real/own", 0o700)
    os.mkdir(f"{directory}/theirs", 0o755)
    os.symlink(f"{directory}/real", f"{directory}/theirs/link")  # root's own link, in a place that is not
    os.symlink(f"{directory}/theirs/link", f"{directory}/ours")
    os.chown(f"{directory}/theirs", STRANGER, -1)
    with pytest.raises(EndpointUnsafeError, match=f"uid {STRANGER} .* by way of {directory}/theirs"):
        await start(f"{directory}/ours/own/test.sock")


@as_root
async def test_dots_lead_where_the_kernel_goes(directory: str, start: Starts) -> None:
    """``link/..`` is the directory above the link's target, not above the link."""
    os.makedirs(f"{directory}/theirs/target", 0o755)
    os.makedirs(f"{directory}/theirs/own", 0o700)
    os.mkdir(f"{directory}/own", 0o700)
    os.symlink("theirs/target", f"{directory}/link")
    listener = await start(f"{directory}/link/../own/test.sock")
    assert os.listdir(f"{directory}/theirs/own") == ["test.sock"]
    await listener.aclose()
    os.chown(f"{directory}/theirs", STRANGER, -1)
    with pytest.raises(EndpointUnsafeError, match=f"uid {STRANGER} .* by way of {directory}/theirs"):
        await start(f"{directory}/link/../own/test.sock")


async def test_links_in_a_ring_are_one_clear_error(directory: str, start: Starts) -> None:
    os.symlink("b", f"{directory}/a")
    os.symlink("a", f"{directory}/b")
    with pytest.raises(EndpointError, match="Too many levels of symbolic links"):
        await start(f"{directory}/a/own/test.sock")


# --- Nothing made too early ---------------------------------------------------------------------------------


@as_root
@pytest.mark.parametrize("how", ["a directory", "a link", "a link to nothing"])
async def test_nothing_is_made_in_a_place_that_another_user_chose(
    directory: str, start: Starts, how: str, attack: Attack
) -> None:
    os.chmod(directory, 0o1777)
    os.mkdir(f"{directory}/precious", 0o755)
    if how == "a directory":
        os.mkdir(f"{directory}/theirs", 0o755)
    else:
        os.symlink("precious" if how == "a link" else "precious/new", f"{directory}/theirs")
    os.lchown(f"{directory}/theirs", STRANGER, STRANGER)
    with pytest.raises(EndpointUnsafeError, match=f"uid {STRANGER} can replace"):
        await start(f"{directory}/theirs/a/b/test.sock")
    assert sorted(os.listdir(directory)) == ["precious", "theirs"]
    assert os.listdir(f"{directory}/precious") == []
    assert how != "a directory" or os.listdir(f"{directory}/theirs") == []
    attack(
        "a path to make directories at, by way of another user's directory or link",
        tried=1,
        outcome="`EndpointUnsafeError`; nothing is made before all that exists was judged",
    )


@as_root
async def test_a_directory_that_a_stranger_makes_first_is_judged_like_any_other(
    directory: str, start: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chmod(directory, 0o1777)
    real = os.mkdir

    def beaten(path: str, mode: int) -> None:
        real(path, mode)
        os.chown(path, STRANGER, STRANGER)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

    monkeypatch.setattr(os, "mkdir", beaten)
    with pytest.raises(EndpointUnsafeError, match=f"{directory}/new belongs to uid {STRANGER}"):
        await start(f"{directory}/new/test.sock")
    with pytest.raises(EndpointUnsafeError, match=f"uid {STRANGER} .* by way of {directory}/newer"):
        await start(f"{directory}/newer/still/test.sock")
    assert os.listdir(f"{directory}/newer") == []


# --- The lock -----------------------------------------------------------------------------------------------


async def test_a_lock_that_disappears_fails_nothing_and_leaks_nothing(
    directory: str, start: Starts, monkeypatch: pytest.MonkeyPatch, attack: Attack
) -> None:
    real = unix_binding._bound

    def bound(*arguments: object) -> object:
        os.unlink(f"{directory}/.test.sock.lock")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(unix_binding, "_bound", bound)
    before = open_handles()
    for _ in range(3):
        listener = await start(f"{directory}/test.sock")
        assert os.listdir(directory) == ["test.sock"]
        await listener.aclose()
        assert os.listdir(directory) == []
    assert open_handles() == before
    attack(
        "the starters' lock is removed while it is held",
        tried=3,
        outcome="the server starts all the same; no descriptor and no file left",
    )


async def test_a_lock_that_cannot_be_removed_fails_nothing_and_keeps_nobody_out(
    directory: str, start: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.unlink

    def unlink(path: str, *, dir_fd: int | None = None) -> None:
        if path.endswith(".lock"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        real(path, dir_fd=dir_fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", unlink)
        for _ in range(2):
            await (await start(f"{directory}/test.sock")).aclose()
    assert os.listdir(directory) == [".test.sock.lock"]


async def test_a_lock_of_the_next_starters_is_left_to_them(directory: str) -> None:
    """Ours was removed by somebody, and they have made another at its name."""
    directory_fd = os.open(directory, os.O_RDONLY)
    try:
        async with unix_lock.locked(directory_fd, f"{directory}/test.sock"):
            os.unlink(f"{directory}/.test.sock.lock")
            async with unix_lock.locked(directory_fd, f"{directory}/test.sock"):
                theirs = os.lstat(f"{directory}/.test.sock.lock").st_ino
                os.rename(f"{directory}/.test.sock.lock", f"{directory}/kept")
                os.link(f"{directory}/kept", f"{directory}/.test.sock.lock")
        assert os.lstat(f"{directory}/kept").st_ino == theirs
    finally:
        os.close(directory_fd)


async def test_a_server_of_another_implementation_that_is_quicker_is_left_alone(
    directory: str, start: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes no lock, and binds between our look and our bind(2)."""
    path = f"{directory}/test.sock"
    with socket.socket(socket.AF_UNIX) as theirs:
        real = unix_binding._make_way

        def beaten(directory_fd: int, endpoint: str) -> None:
            real(directory_fd, endpoint)
            theirs.bind(path)
            theirs.listen()

        monkeypatch.setattr(unix_binding, "_make_way", beaten)
        with pytest.raises(EndpointInUseError, match="in use by another process"):
            await start(path)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
        assert os.listdir(directory) == ["test.sock"]


# --- The end ------------------------------------------------------------------------------------------------


async def test_a_server_removes_its_socket_under_the_starters_lock(
    directory: str, start: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = await start(f"{directory}/test.sock")
    held: list[list[str]] = []
    real = os.unlink

    def unlink(path: str, *, dir_fd: int | None = None) -> None:
        if path.endswith("test.sock"):
            held.append(sorted(os.listdir(directory)))
            with open(f"{directory}/.test.sock.lock", "rb") as lock, pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        real(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    await listener.aclose()
    assert held == [[".test.sock.lock", "test.sock"]]
    assert os.listdir(directory) == []


async def test_a_socket_that_is_replaced_while_the_lock_is_taken_is_left_alone(
    directory: str, start: Starts, monkeypatch: pytest.MonkeyPatch, attack: Attack
) -> None:
    """Between the look and the removal somebody removes ours, and another server starts."""
    path = f"{directory}/test.sock"
    listener = await start(path)
    real = fcntl.flock

    def replaced_first(fd: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX:
            os.rename(path, f"{path}.old")
            with open(path, "w"):
                pass
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", replaced_first)
    await listener.aclose()
    assert sorted(os.listdir(directory)) == ["test.sock", "test.sock.old"]
    attack(
        "the socket is replaced in the moment in which its server removes it",
        tried=1,
        outcome="looked at again under the starters' lock, and left alone",
    )


async def test_a_server_that_ends_while_a_starter_is_stuck_leaves_its_socket_to_the_next(
    directory: str, start: Starts, caplog: pytest.LogCaptureFixture
) -> None:
    path = f"{directory}/test.sock"
    listener = await start(path)
    lock_fd = os.open(f"{directory}/.test.sock.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock_fd, fcntl.LOCK_EX)
    await listener.aclose()
    assert "was left for the next server to remove: another process holds its lock" in caplog.text
    os.close(lock_fd)
    await (await start(path)).aclose()
    assert os.listdir(directory) == []


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOSPC, errno.EACCES])
async def test_without_a_descriptor_or_room_for_the_lock_the_socket_is_removed_all_the_same(
    directory: str, start: Starts, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    listener = await start(f"{directory}/test.sock")
    with monkeypatch.context() as patched:

        def refuse(*_: object, **__: object) -> int:
            raise OSError(code, os.strerror(code))

        patched.setattr(os, "open", refuse)
        await listener.aclose()
    assert os.listdir(directory) == []


async def test_a_cancelled_close_removes_the_socket_too(directory: str, start: Starts) -> None:
    listener = await start(f"{directory}/test.sock")
    with trio.CancelScope() as scope:
        scope.cancel()
        await listener.aclose()
    assert os.listdir(directory) == []
