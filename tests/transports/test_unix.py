from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.hardening.record import Attack
from trio_ipc import (
    EndpointInUseError,
    PeerCredentials,
)
from trio_ipc.transports import PeerState, connect

if sys.platform == "win32":
    pytest.skip("Unix sockets are Unix' own", allow_module_level=True)
assert sys.platform != "win32"


from tests.transports.sockets import (  # noqa: E402
    as_root,
    dead_socket,
    for_both,
    mode_of,
    on_linux,
    umask,
)
from trio_ipc.transports import forks  # noqa: E402
from trio_ipc.transports.unix import UnixStream  # noqa: E402
from trio_ipc.transports.unix_listener import UnixListener  # noqa: E402
from trio_ipc.transports.unix_listener import listen_unix as listen  # noqa: E402


def pair() -> tuple[UnixStream, UnixStream]:
    left, right = socket.socketpair()
    return UnixStream(left, "left"), UnixStream(right, "right")


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


async def test_a_second_socket_shows_what_comes_and_the_end_and_takes_nothing() -> None:
    def is_readable(sock: socket.socket) -> bool:
        return bool(select.select([sock], [], [], 0)[0])

    left, right = pair()
    with left.second_socket() as second:
        assert not is_readable(second)
        await right.send_all(b"news")
        assert is_readable(second)
        assert await left.receive_some() == b"news"
        assert not is_readable(second)
        await left.aclose()
        assert is_readable(second), "a close here ends a wait there"
        assert await right.receive_some() == b"", "and the peer sees it, though the second one is still open"
    with pytest.raises(trio.ClosedResourceError):
        left.second_socket()
    await right.aclose()


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


async def test_a_wait_in_a_closed_stream_raises_where_it_is_awaited_as_other_streams_do() -> None:
    left, right = pair()
    async with right:
        left.close()
        wait = left.wait_readable()
        with pytest.raises(trio.ClosedResourceError):
            await wait


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


async def test_a_second_socket_that_cannot_be_kept_from_children_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[socket.socket] = []

    def fail(sock: socket.socket) -> None:
        made.append(sock)
        raise MemoryError

    left, right = pair()
    async with left, right:
        monkeypatch.setattr(forks, "keep_from_children", fail)
        with pytest.raises(MemoryError):
            left.second_socket()
        assert [sock.fileno() for sock in made] == [-1]


@pytest.mark.parametrize("told", [True, False])
async def test_a_stream_that_is_lent_leaves_its_descriptor_to_the_last_who_uses_it(*, told: bool) -> None:
    left, right = pair()
    async with right:
        number, closing = left._sock.fileno(), list[Callable[[], None]]()
        inode = os.fstat(number).st_ino
        left.lend(closing.append)
        left.close()
        left.close()
        assert await right.receive_some() == b""
        assert left.peer_state() is PeerState.GONE
        with pytest.raises(trio.ClosedResourceError):
            left.read(1)
        assert os.fstat(number).st_ino == inode
        [close] = closing
        if told:
            close()
            close()
        else:
            del close
            closing.clear()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


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
