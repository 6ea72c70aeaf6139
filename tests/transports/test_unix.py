from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import Mock

import pytest
import trio
import trio.testing

from tests.hardening.record import Attack
from tests.platforms import refuse_to_accept
from tests.support import cancelled_once_begun
from trio_ipc import (
    Channel,
    ConnectError,
    EndpointError,
    EndpointInUseError,
    EndpointPermissionError,
    EndpointUnsafeError,
    IpcConfig,
    PeerCredentials,
    PeerPolicy,
    ServerNotFoundError,
    ServerRefusedError,
    TransportType,
)
from trio_ipc.endpoint import MAX_PATH_BYTES
from trio_ipc.transports import DetachableListener, Detached, PeerState, connect

if sys.platform == "win32":
    pytest.skip("Unix sockets are Unix' own", allow_module_level=True)
assert sys.platform != "win32"

import fcntl  # noqa: E402

from trio_ipc import legacy  # noqa: E402
from trio_ipc.transports import unix, unix_binding, unix_placing  # noqa: E402
from trio_ipc.transports.unix import UnixStream  # noqa: E402
from trio_ipc.transports.unix_listener import UnixListener  # noqa: E402
from trio_ipc.transports.unix_listener import listen_unix as listen  # noqa: E402

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="takes root: it becomes another user, or does what modes forbid"
)
not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="no mode stops root")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells this, other systems do not")


@pytest.fixture
def both(transport: TransportType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the legacy transport in the default's place, all that this module calls by name."""

    async def listen(path: str) -> DetachableListener[Channel]:
        return await legacy.listen(IpcConfig(endpoint_path=path), PeerPolicy.own_user_and_root())

    async def connect(path: str) -> Channel:
        return await legacy.connect(IpcConfig(endpoint_path=path))

    if transport is TransportType.LEGACY:
        for name, substitute in (
            ("listen", listen),
            ("connect", connect),
        ):
            monkeypatch.setitem(globals(), name, substitute)


for_both = pytest.mark.usefixtures("both")


@pytest.fixture
def path(directory: str) -> str:
    return f"{directory}/test.sock"


def pair() -> tuple[UnixStream, UnixStream]:
    left, right = socket.socketpair()
    return UnixStream(left, "left"), UnixStream(right, "right")


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


# --- The stream ---------------------------------------------------------------------------------------------


async def test_it_is_a_stream_by_trios_own_checker() -> None:
    async def make() -> tuple[UnixStream, UnixStream]:
        return pair()

    async def make_clogged() -> tuple[UnixStream, UnixStream]:
        both = pair()
        for stream in both:
            while stream.write(bytes(65_536)):
                pass
        return both

    await trio.testing.check_half_closeable_stream(make, make_clogged)


async def test_a_connected_pair_through_a_listener_is_a_stream_by_trios_own_checker(path: str) -> None:
    async with await listen(path) as listener:

        async def make() -> tuple[UnixStream, UnixStream]:
            return await connect(path), await listener.accept()

        await trio.testing.check_half_closeable_stream(make, None)


async def test_a_cancelled_read_loses_no_bytes() -> None:
    left, right = pair()
    async with left, right:
        with trio.CancelScope() as scope:
            scope.cancel()
            await right.receive_some()
        await left.send_all(b"still here")
        assert await right.receive_some() == b"still here"


async def test_a_peer_that_left_bytes_unread_breaks_the_stream() -> None:
    left, right = pair()
    async with left, right:
        await left.send_all(b"unread")
        await right.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await left.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await left.send_all(b"x")


@on_linux
async def test_a_half_closed_peer_is_told_from_one_that_is_gone() -> None:
    left, right = pair()
    async with left, right:
        assert left.peer_state() is PeerState.OPEN
        await right.send_all(b"x")
        assert left.peer_state() is PeerState.HAS_INPUT
        await right.send_eof()
        assert left.peer_state() is PeerState.HAS_INPUT
        assert await left.receive_some() == b"x"
        assert left.peer_state() is PeerState.HALF_CLOSED
        assert await left.receive_some() == b""
        assert left.peer_state() is PeerState.HALF_CLOSED
        await right.aclose()
        assert left.peer_state() is PeerState.GONE
        await left.aclose()
        assert left.peer_state() is PeerState.GONE


async def test_a_closed_stream_is_seen_closed_though_a_fork_holds_a_copy() -> None:
    left, right = pair()
    async with left, right:
        copy = os.dup(right._sock.fileno())  # what a forked child has
        try:
            await right.aclose()
            assert await left.receive_some() == b""
            assert left.peer_state() is PeerState.GONE
        finally:
            os.close(copy)


async def test_a_deadly_sigpipe_of_the_host_program_kills_nobody(attack: Attack) -> None:
    code = (
        "import signal, socket, trio; from trio_ipc.transports.unix import UnixStream\n"
        "async def main():\n"
        "    signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "    left, right = socket.socketpair(); right.close()\n"
        "    try: await UnixStream(left, 'x').send_all(b'x')\n"
        "    except trio.BrokenResourceError: print('broken, not dead')\n"
        "trio.run(main)"
    )
    run = await trio.run_process([sys.executable, "-W", "ignore", "-c", code], capture_stdout=True)
    assert run.stdout.strip() == b"broken, not dead"
    attack(
        "a host program with SIGPIPE's deadly default, and a peer that is gone",
        tried=1,
        outcome="an error, and nobody dies",
    )


async def test_end_of_file_to_a_peer_that_is_gone_is_a_broken_stream() -> None:
    left, right = pair()
    async with left, right:
        await right.aclose()
        left._sock.close()
        with pytest.raises(trio.ClosedResourceError):
            await left.send_eof()


# --- Listening ----------------------------------------------------------------------------------------------


async def test_both_sides_know_each_others_process_and_user(path: str) -> None:
    me = PeerCredentials(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())
    async with (
        await listen(path) as listener,
        await connect(path) as client,
        await listener.accept() as served,
    ):
        assert client.peer == served.peer == me
        assert client.endpoint == served.endpoint == path


@for_both
@pytest.mark.parametrize("mask", [0o000, 0o022, pytest.param(0o777, marks=as_root)])
async def test_directory_and_socket_are_the_owners_alone_whatever_the_umask(
    directory: str, mask: int
) -> None:
    path = f"{directory}/new/deeper/test.sock"
    with umask(mask):
        listener = await listen(path)
    async with listener:
        assert mode_of(path) == 0o600
        assert mode_of(f"{directory}/new/deeper") == 0o700 & ~mask
        assert mode_of(f"{directory}/new") == 0o700 & ~mask


@for_both
@on_linux
async def test_the_socket_is_never_wider_than_0600_not_even_for_an_instant(path: str) -> None:
    seen: set[int] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            try:
                seen.add(mode_of(path))
            except FileNotFoundError:
                continue

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        with umask(0):
            for _ in range(200):
                await (await listen(path)).aclose()
    finally:
        over.set()
        watcher.join()
    assert seen <= {0o600}


@for_both
async def test_closing_removes_the_socket_and_wakes_who_waits(path: str) -> None:
    listener = await listen(path)

    async def accept() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()
    assert not os.path.lexists(path)
    await listener.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_a_cancelled_accept_loses_no_client(path: str) -> None:
    async with await listen(path) as listener, await connect(path) as client:
        with trio.CancelScope() as scope:
            scope.cancel()
            await listener.accept()
        async with await listener.accept() as served:
            await client.send_all(b"hello")
            assert await served.receive_some() == b"hello"


@for_both
async def test_a_live_servers_endpoint_is_refused_by_its_process_and_left_alone(path: str) -> None:
    async with await listen(path) as listener:
        with pytest.raises(EndpointInUseError, match=f"{path}: in use by process {os.getpid()}") as caught:
            await listen(path)
        assert caught.value.pid == os.getpid()
        async with await connect(path), await listener.accept():
            pass
    assert not os.path.lexists(path)


@for_both
async def test_a_live_server_with_a_full_backlog_is_still_alive(path: str, attack: Attack) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen(0)
        client.connect(path)
        with pytest.raises(EndpointInUseError, match="in use by another process"):
            await listen(path)
    attack(
        "a starter finds a live server whose backlog is full",
        tried=1,
        outcome="`EndpointInUseError`; the server is left alone",
    )


@for_both
async def test_a_dead_servers_socket_is_reclaimed(path: str) -> None:
    dead_socket(path)
    async with await listen(path), await connect(path):
        assert mode_of(path) == 0o600


async def test_a_server_that_was_killed_leaves_a_socket_that_the_next_one_reclaims(path: str) -> None:
    hold = (
        "import trio; from trio_ipc.transports.unix_listener import listen_unix as listen\n"
        "async def main():\n"
        f"    listener = await listen({path!r}); print('up', flush=True); await trio.sleep_forever()\n"
        "trio.run(main)"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        with pytest.raises(EndpointInUseError, match=f"process {process.pid}"):
            await listen(path)
        process.send_signal(signal.SIGKILL)
        process.wait()
    async with await listen(path):
        pass


@for_both
async def test_of_many_starters_over_a_dead_socket_exactly_one_wins(path: str) -> None:
    for _ in range(20):
        dead_socket(path)
        won: list[UnixListener] = []
        lost: list[EndpointInUseError] = []

        async def start(won: list[UnixListener], lost: list[EndpointInUseError]) -> None:
            try:
                won.append(await listen(path))
            except EndpointInUseError as exc:
                lost.append(exc)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(start, won, lost)
        assert (len(won), len(lost)) == (1, 7)
        async with won[0], await connect(path):
            pass


async def test_of_two_processes_over_a_dead_socket_exactly_one_wins(path: str) -> None:
    code = (
        "import sys, trio; from trio_ipc import EndpointInUseError\n"
        "from trio_ipc.transports.unix_listener import listen_unix as listen\n"
        "async def main():\n"
        "    sys.stdin.readline()\n"
        f"    try: listener = await listen({path!r})\n"
        "    except EndpointInUseError: print('lost', flush=True)\n"
        "    else: print('won', flush=True)\n"
        "    sys.stdin.readline()\n"
        "trio.run(main)"
    )
    dead_socket(path)
    starters = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.write(b"go\n")
        starter.stdin.flush()
    said = [starter.stdout.readline() for starter in starters if starter.stdout is not None]
    for starter in starters:
        starter.communicate(b"done\n")
    assert sorted(said) == [b"lost\n", b"lost\n", b"won\n"]


@for_both
@pytest.mark.parametrize("kind", ["file", "directory", "link to nothing", "link to a dead socket", "fifo"])
async def test_what_is_no_socket_is_refused_and_never_touched(path: str, kind: str) -> None:
    if kind == "file":
        with open(path, "w") as file:
            file.write("precious")
    elif kind == "directory":
        os.mkdir(path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        if kind == "link to a dead socket":
            dead_socket(path + "2")
        os.symlink(path + "2", path)
    before = os.lstat(path)
    what = "a symbolic link" if kind.startswith("link") else "not a socket"
    with pytest.raises(EndpointUnsafeError, match=f"exists and is {what}; it was not touched"):
        await listen(path)
    assert os.lstat(path) == before


@for_both
async def test_a_directory_that_is_a_symbolic_link_is_refused(directory: str) -> None:
    os.mkdir(f"{directory}/real", 0o700)
    os.symlink(f"{directory}/real", f"{directory}/link")
    with pytest.raises(EndpointUnsafeError, match="link is a symbolic link"):
        await listen(f"{directory}/link/test.sock")
    with open(f"{directory}/file", "w"):
        pass
    with pytest.raises(EndpointUnsafeError, match="file is not a directory"):
        await listen(f"{directory}/file/test.sock")


@for_both
@pytest.mark.parametrize(
    ("mode", "advice"),
    [(0o720, "chmod 700"), (0o702, "chmod 700"), (0o777, "chmod 700"), (0o1777, "a missing one is created")],
)
async def test_a_directory_that_others_can_write_is_refused(directory: str, mode: int, advice: str) -> None:
    os.chmod(directory, mode)
    with pytest.raises(EndpointUnsafeError, match=f"can write the directory {directory}.*{advice}"):
        await listen(f"{directory}/test.sock")


@for_both
@pytest.mark.parametrize(
    ("mode", "uid", "gid", "who"),
    [
        (0o777, -1, -1, "anyone"),
        pytest.param(0o775, -1, 12_345, "group 12345", marks=as_root),
        pytest.param(0o755, 12_345, -1, "uid 12345", marks=as_root),
        # The owner of a sticky directory may rename anything in it.
        pytest.param(0o1777, 12_345, -1, "uid 12345", marks=as_root),
    ],
)
async def test_a_directory_that_somebody_else_could_replace_is_refused(
    directory: str, mode: int, uid: int, gid: int, who: str
) -> None:
    os.makedirs(f"{directory}/own/deeper", 0o700)
    os.chown(directory, uid, gid)
    os.chmod(directory, mode)
    deeper = f"{directory}/own/deeper"
    with pytest.raises(EndpointUnsafeError, match=f"{who} can replace the directory {deeper}, by way"):
        await listen(f"{deeper}/test.sock")


@for_both
@pytest.mark.parametrize("mode", [0o1777, 0o755, 0o775])
async def test_a_directory_that_others_can_not_replace_is_good(directory: str, mode: int) -> None:
    """In a sticky directory nobody renames what is ours; and a group of one's own is usual."""
    os.mkdir(f"{directory}/own", 0o700)
    os.chmod(directory, mode)
    async with await listen(f"{directory}/own/test.sock"):
        pass


@for_both
@as_root
async def test_a_way_through_somebody_elses_link_is_refused(directory: str) -> None:
    os.chmod(directory, 0o1777)
    os.makedirs(f"{directory}/real/own", 0o700)
    os.symlink(f"{directory}/real", f"{directory}/link")
    async with await listen(f"{directory}/link/own/test.sock"):
        pass
    os.lchown(f"{directory}/link", 12_345, -1)
    with pytest.raises(EndpointUnsafeError, match=f"uid 12345 can replace .*by way of {directory}/link"):
        await listen(f"{directory}/link/own/test.sock")


@for_both
@as_root
async def test_another_users_directory_is_refused(directory: str) -> None:
    os.chown(directory, 12_345, -1)
    with pytest.raises(EndpointUnsafeError, match=f"{directory} belongs to uid 12345"):
        await listen(f"{directory}/test.sock")


@for_both
async def test_a_directory_that_others_may_only_read_is_taken_and_left_as_it_is(directory: str) -> None:
    os.chmod(directory, 0o755)
    async with await listen(f"{directory}/test.sock"):
        assert mode_of(f"{directory}/test.sock") == 0o600
    assert mode_of(directory) == 0o755


@for_both
async def test_a_directory_that_cannot_be_made_is_one_clear_error(directory: str) -> None:
    with open(f"{directory}/file", "w"):
        pass
    with pytest.raises(
        EndpointError, match=f"cannot listen as uid .*: Not a directory .{directory}/file/deeper"
    ):
        await listen(f"{directory}/file/deeper/test.sock")


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
    before = len(os.listdir("/dev/fd"))
    os.chmod(directory, 0o777)
    with pytest.raises(EndpointUnsafeError):
        await listen(path)
    os.chmod(directory, 0o700)
    monkeypatch.setattr(socket.socket, "listen", Mock(side_effect=OSError(errno.ENOBUFS, "No buffer space")))
    with pytest.raises(EndpointError, match="No buffer space"):
        await listen(path)
    assert os.listdir(directory) == []
    assert len(os.listdir("/dev/fd")) == before


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


# --- Connecting ---------------------------------------------------------------------------------------------


@for_both
async def test_a_client_without_a_free_descriptor_is_told_so(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await listen(path):
        with monkeypatch.context() as patched:
            patched.setattr(socket, "socket", Mock(side_effect=OSError(errno.EMFILE, "Too many open files")))
            with pytest.raises(ConnectError, match="cannot connect: Too many open files; close what is not"):
                await connect(path)


@for_both
async def test_no_socket_is_no_server(path: str) -> None:
    with pytest.raises(ServerNotFoundError, match=f"{path}: no server: the socket does not exist; start"):
        await connect(path)


@for_both
async def test_a_socket_without_a_listener_refuses(path: str) -> None:
    dead_socket(path)
    with pytest.raises(ServerRefusedError, match="nobody listens.*start it again"):
        await connect(path)


@for_both
async def test_a_file_at_the_path_is_no_dead_server(path: str) -> None:
    with open(path, "w"):
        pass
    with pytest.raises(ConnectError, match="something else than a socket; check the path"):
        await connect(path)


@for_both
async def test_any_other_refusal_of_the_system_is_passed_on(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(path)
        with pytest.raises(ConnectError, match="cannot connect: "):
            await connect(path)
        with pytest.raises(EndpointUnsafeError, match="a socket of another kind .*; it was not touched"):
            await listen(path)
        assert os.path.lexists(path)


@as_root
def test_another_user_is_stopped_by_the_mode_of_the_socket_and_told_so(directory: str) -> None:
    os.chmod(directory, 0o755)
    path = f"{directory}/test.sock"
    code = (
        "import os, trio; from trio_ipc import EndpointPermissionError\n"
        "from trio_ipc.transports import connect\n"
        "os.setuid(12345)\n"
        f"try: trio.run(connect, {path!r})\n"
        "except EndpointPermissionError as exc: print(exc)"
    )

    async def main() -> bytes:
        async with await listen(path):
            return (await trio.run_process([sys.executable, "-c", code], capture_stdout=True)).stdout

    said = trio.run(main).decode()
    assert "permission denied to uid 12345; run as the server's user" in said


@for_both
@not_as_root
async def test_a_directory_that_is_closed_to_us_is_permission_denied(directory: str) -> None:
    os.mkdir(f"{directory}/closed", 0o000)
    with pytest.raises(EndpointPermissionError, match="permission denied"):
        await connect(f"{directory}/closed/test.sock")
    os.chmod(f"{directory}/closed", 0o700)


@for_both
async def test_a_full_backlog_is_waited_out(
    path: str, autojump_clock: trio.testing.MockClock, attack: Attack
) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(0)
        async with await connect(path), trio.open_nursery() as nursery:

            async def make_room() -> None:
                await trio.sleep(1)
                server.accept()[0].close()

            nursery.start_soon(make_room)
            await (await connect(path)).aclose()
            assert 1 <= trio.current_time() < 1.2
    attack(
        "a client meets a full backlog",
        tried=1,
        outcome="waited out, within `accept_timeout_ms`; then served",
    )


def somaxconn() -> int:
    try:
        with open("/proc/sys/net/core/somaxconn") as file:
            return int(file.read())
    except OSError:
        return socket.SOMAXCONN


@for_both
@pytest.mark.skipif(somaxconn() < 500, reason="this system allows no longer backlog")
async def test_clients_that_connect_without_waiting_find_room_in_the_backlog(
    path: str, attack: Attack
) -> None:
    """As Tokio's do; in a row, before the server has its turn."""
    clients = []
    async with await listen(path):
        try:
            for _ in range(500):
                clients.append(socket.socket(socket.AF_UNIX))
                clients[-1].setblocking(False)
                assert clients[-1].connect_ex(path) == 0
        finally:
            for client in clients:
                client.close()
    attack(
        "500 honest clients that connect in a row without waiting, before the server has its turn",
        tried=500,
        outcome="all find room: the backlog is as long as the system allows",
    )


@for_both
async def test_a_cancelled_connect_leaves_nothing_open(
    path: str, autojump_clock: trio.testing.MockClock
) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(0)
        async with await connect(path):
            before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
            with trio.move_on_after(1) as scope:
                await connect(path)
            assert scope.cancelled_caught
            after = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
            assert after == before
