"""Unix sockets: what a client is told."""

from __future__ import annotations

import errno
import os
import socket
import sys
from unittest.mock import Mock

import pytest
import trio
import trio.testing

from tests.hardening.record import Attack
from trio_ipc import (
    ConnectError,
    EndpointPermissionError,
    EndpointUnsafeError,
    ServerNotFoundError,
    ServerRefusedError,
)
from trio_ipc.transports import connect

if sys.platform == "win32":
    pytest.skip("Unix sockets are Unix' own", allow_module_level=True)
assert sys.platform != "win32"


from tests.transports.sockets import (  # noqa: E402
    as_root,
    dead_socket,
    for_both,
)
from trio_ipc.transports.unix_listener import listen_unix as listen  # noqa: E402

not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="no mode stops root")


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
