"""Listening sockets that somebody else opened: what is taken over, what is refused, and what stays."""

from __future__ import annotations

import logging
import os
import socket
import stat
import sys
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.support import succeed, success, task
from trio_ipc import (
    ConfigError,
    EndpointError,
    EndpointUnsafeError,
    FramedChannelListener,
    IpcConfig,
    PeerPolicy,
    Server,
    TransportType,
    open_client,
    serve,
    serve_listener,
)
from trio_ipc.daemoneye import DETECTION

if sys.platform == "win32":
    pytest.skip("Unix sockets are Unix' own", allow_module_level=True)
assert sys.platform != "win32"

from trio_ipc.transports import (  # noqa: E402
    inherited_unix_listener,
    open_unix_listeners,
    open_unix_stream,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root: it gives files away")

STRANGER, GROUP = 54_001, 54_002

ANYONE = PeerPolicy.anyone()


@pytest.fixture
def path(directory: str) -> str:
    return f"{directory}/test.sock"


@pytest.fixture
def theirs(path: str) -> Iterator[socket.socket]:
    """The socket of a process that opens it for others, as systemd does, and keeps it."""
    with listening(path) as sock:
        yield sock


def listening(path: str, mode: int = 0o600) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    os.chmod(path, mode)
    sock.listen()
    return sock


def passed(sock: socket.socket) -> int:
    """A descriptor as the next process has it: of the same socket, and inheritable."""
    fd = os.dup(sock.fileno())
    os.set_inheritable(fd, True)
    return fd


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


async def call(config: IpcConfig) -> None:
    async with open_client(DETECTION, config) as client:
        assert await client.call(task()) == success()


# --- What is taken over -------------------------------------------------------------------------------------


async def test_a_listener_takes_the_descriptor_and_leaves_the_file_and_who_waits(
    path: str, theirs: socket.socket
) -> None:
    fd = passed(theirs)
    listener = inherited_unix_listener(fd)
    assert listener.endpoint == path
    assert listener.look().file == "there"
    assert not os.get_inheritable(fd)
    async with await open_unix_stream(path) as near, await listener.accept() as far:
        await near.send_all(b"hello")
        assert await far.receive_some() == b"hello"
    async with await open_unix_stream(path) as waiting:
        await listener.aclose()
        assert not is_open(fd)
        assert stat.S_ISSOCK(os.lstat(path).st_mode)
        await waiting.send_all(b"to the next one")
        async with inherited_unix_listener(passed(theirs)) as successor, await successor.accept() as far:
            assert await far.receive_some() == b"to the next one"


async def test_a_server_serves_on_it_switches_its_transport_and_leaves_the_file(
    path: str, theirs: socket.socket, transport: TransportType
) -> None:
    elsewhere = IpcConfig(endpoint_path=f"{path}.not", transport=transport)
    there = IpcConfig(endpoint_path=path)
    async with trio.open_nursery() as nursery:
        run = partial(serve, succeed, DETECTION, elsewhere, fd=passed(theirs))
        server: Server[Any, Any] = await nursery.start(run)
        assert server.endpoint == server.snapshot().endpoint == path
        await call(there)
        other = next(kind for kind in TransportType if kind is not transport)
        await server.switch_transport(other)
        await call(there)
        assert server.snapshot().transport == other
        server.stop()
    assert stat.S_ISSOCK(os.lstat(path).st_mode)
    assert not os.path.lexists(f"{path}.not")


async def test_two_processes_worth_of_servers_may_share_one(path: str, theirs: socket.socket) -> None:
    config = IpcConfig(endpoint_path=path)
    async with trio.open_nursery() as nursery:
        servers: list[Server[Any, Any]] = [
            await nursery.start(partial(serve, succeed, DETECTION, config, fd=passed(theirs)))
            for _ in range(2)
        ]
        for _ in range(10):
            await call(config)
        servers[0].stop()
        await servers[0].wait_stopped()
        await call(config)
        servers[1].stop()
    assert sum(server.snapshot().requests for server in servers) == 11


async def test_the_log_names_no_mode_that_a_passed_socket_does_not_have(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ipc.transports")
    os.chmod(os.path.dirname(path), 0o755)
    with listening(path, 0o644) as theirs:
        await inherited_unix_listener(passed(theirs)).aclose()
    assert "has mode 0755; the socket in it still lets only its owner and root connect" in caplog.text


async def test_a_path_that_cannot_be_seen_from_here_is_served_and_the_log_says_so(
    path: str, theirs: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a container that was given the socket, and not its directory."""
    hidden = f"{path}.elsewhere"
    os.rename(path, hidden)
    caplog.set_level(logging.INFO, "trio_ipc.transports")
    async with trio.open_nursery() as nursery:
        run = partial(serve, succeed, DETECTION, IpcConfig(), fd=passed(theirs))
        server: Server[Any, Any] = await nursery.start(run)
        await call(IpcConfig(endpoint_path=hidden))
        assert server.snapshot().endpoint_intact
        server.stop()
    assert f"{path} cannot be seen from here" in caplog.text
    assert stat.S_ISSOCK(os.lstat(hidden).st_mode)


# --- What is refused, and stays the caller's ----------------------------------------------------------------


def of_a_network() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


def of_datagrams() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def connected() -> socket.socket:
    near, far = socket.socketpair()
    far.close()
    return near


def abstract() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"\0trio-ipc-{uuid.uuid4().hex}")
    sock.listen()
    return sock


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such sockets")


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (of_a_network, EndpointError, "is a socket of the family AF_INET, must be a listening Unix stream"),
        (of_datagrams, EndpointError, "is a Unix socket of the type SOCK_DGRAM, must be"),
        (connected, EndpointError, "is a Unix stream socket that does not listen, must be"),
        pytest.param(
            abstract, EndpointUnsafeError, "an abstract socket has neither owner nor mode", marks=linux_only
        ),
    ],
)
def test_another_kind_of_socket_is_refused_and_left_open(
    make: Callable[[], socket.socket], kind: type[EndpointError], said: str
) -> None:
    with make() as sock:
        before = sock.getblocking()
        with pytest.raises(kind, match=said) as caught:
            inherited_unix_listener(sock.fileno())
        assert type(caught.value) is kind
        assert sock.getblocking() is before
        assert is_open(sock.fileno())


async def test_what_is_no_socket_or_no_descriptor_is_refused(directory: str) -> None:
    with open(f"{directory}/file", "w") as file:
        with pytest.raises(EndpointError, match=f"descriptor {file.fileno()} is no socket"):
            inherited_unix_listener(file.fileno())
        gone = os.dup(file.fileno())
    os.close(gone)
    with pytest.raises(EndpointError, match=f"descriptor {gone} is not open .Bad file descriptor"):
        await serve(succeed, DETECTION, IpcConfig(), fd=gone)


@pytest.mark.parametrize("fd", ["3", True, None, 3.0])
def test_what_is_no_number_is_a_type_error(fd: Any) -> None:
    with pytest.raises(TypeError, match="must be the number of a descriptor"):
        inherited_unix_listener(fd)


@pytest.mark.parametrize("fd", [-1, 2**31, 10**400])
def test_a_number_that_no_descriptor_has_is_refused(fd: int) -> None:
    with pytest.raises(ConfigError, match="must be the number of a descriptor, from 0 to"):
        inherited_unix_listener(fd)


def test_a_mode_is_one(theirs: socket.socket) -> None:
    with pytest.raises(ConfigError, match="mode is 0o1600"):
        inherited_unix_listener(theirs.fileno(), mode=0o1600)
    with pytest.raises(TypeError, match="mode must be an int, not '0600'"):
        inherited_unix_listener(theirs.fileno(), mode="0600")  # type: ignore[arg-type]


# --- Who could reach or replace it --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o660, 0o606, 0o666])
async def test_a_socket_that_others_may_write_is_served_only_where_a_policy_decides(
    path: str, mode: int
) -> None:
    if mode & 0o006:
        os.chmod(os.path.dirname(path), 0o711)
    elif mode & 0o060:
        os.chmod(os.path.dirname(path), 0o710)
    with listening(path, mode) as theirs:
        with pytest.raises(EndpointUnsafeError, match=f"has mode {mode:04o}, and may have 0600 at most"):
            await serve(succeed, DETECTION, IpcConfig(), fd=theirs.fileno())
        async with trio.open_nursery() as nursery:
            run = partial(serve, succeed, DETECTION, IpcConfig(), fd=passed(theirs), peers=ANYONE)
            server: Server[Any, Any] = await nursery.start(run)
            await call(IpcConfig(endpoint_path=path))
            server.stop()


@as_root
async def test_a_socket_of_the_group_that_is_meant_is_served(path: str) -> None:
    with listening(path, 0o660) as theirs:
        os.chown(path, -1, GROUP)
        os.chown(os.path.dirname(path), -1, GROUP)
        os.chmod(os.path.dirname(path), 0o710)
        with pytest.raises(EndpointUnsafeError, match=f"open to group {GROUP}, and the socket_group is 0"):
            await serve(succeed, DETECTION, IpcConfig(socket_group=0), fd=theirs.fileno())
        async with trio.open_nursery() as nursery:
            config = IpcConfig(socket_group=str(GROUP))
            server = await nursery.start(partial(serve, succeed, DETECTION, config, fd=passed(theirs)))
            await call(IpcConfig(endpoint_path=path))
            server.stop()


@as_root
async def test_a_socket_of_somebody_else_is_refused(path: str, theirs: socket.socket) -> None:
    os.chown(path, STRANGER, -1)
    with pytest.raises(EndpointUnsafeError, match=f"belongs to uid {STRANGER}, not to uid 0 or root"):
        inherited_unix_listener(theirs.fileno())
    async with inherited_unix_listener(passed(theirs), mode=0o666) as listener:
        assert listener.endpoint == path


def test_a_directory_that_others_can_write_is_refused_and_nothing_is_made(
    path: str, theirs: socket.socket
) -> None:
    os.chmod(os.path.dirname(path), 0o777)
    with pytest.raises(EndpointUnsafeError, match="others can write the directory"):
        inherited_unix_listener(theirs.fileno())
    assert os.listdir(os.path.dirname(path)) == ["test.sock"]


def test_another_file_at_its_path_is_refused(path: str, theirs: socket.socket) -> None:
    os.unlink(path)
    with open(path, "w"):
        pass
    with pytest.raises(EndpointUnsafeError, match="does not lead to the socket that was passed"):
        inherited_unix_listener(theirs.fileno())


# --- Listeners that are given as objects --------------------------------------------------------------------


async def test_trios_listener_of_a_unix_socket_is_taken(path: str) -> None:
    config = IpcConfig(endpoint_path=path)
    with listening(path) as theirs:
        given = trio.SocketListener(trio.socket.from_stdlib_socket(theirs.dup()))
    async with trio.open_nursery() as nursery:
        channels = FramedChannelListener(given, config)
        server: Server[Any, Any] = await nursery.start(serve_listener, succeed, DETECTION, channels, config)
        for _ in range(2):
            await call(config)
        server.stop()
    assert stat.S_ISSOCK(os.lstat(path).st_mode), "who made it removes it"
    assert given.socket.fileno() == -1


async def trios(sock: socket.socket) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (of_a_network, "a socket of family AF_INET, must be a Unix socket: no network"),
        pytest.param(abstract, "the abstract socket b'.x00trio-ipc-", marks=linux_only),
    ],
)
async def test_other_listeners_of_trio_are_refused_at_once(
    make: Callable[[], socket.socket], said: str
) -> None:
    async with await trios(make()) as given:
        with pytest.raises(TypeError, match=said):
            FramedChannelListener(given, IpcConfig())
        assert given.socket.fileno() != -1, "it is the caller's still"


async def test_what_is_no_listener_of_local_streams_is_refused_at_once(path: str) -> None:
    listeners = await open_unix_listeners(path)
    async with listeners[0], await trios(of_a_network()) as other:
        encrypted: Any = trio.SSLListener(other, None)  # type: ignore[arg-type]
        for given, said in [
            (listeners, "must be a listener of local streams: give the one that is in it"),
            (path, "must be a listener of local streams$"),
            (encrypted, "listener is an SSLListener"),
        ]:
            with pytest.raises(TypeError, match=said):
                FramedChannelListener(given, IpcConfig())


async def test_a_listener_of_streams_is_refused_where_channels_are_wanted(path: str) -> None:
    [unix] = await open_unix_listeners(path)
    async with unix, await trios(of_a_network()) as other:
        for given in (unix, other):
            with pytest.raises(TypeError, match="which gives streams: it must give channels"):
                await serve_listener(succeed, DETECTION, given, IpcConfig())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="which is no listener: it must give channels"):
            await serve_listener(succeed, DETECTION, [unix], IpcConfig())  # type: ignore[arg-type]


async def test_a_listener_of_somebody_elses_streams_is_named_with_its_first_client() -> None:
    class Strange(trio.abc.Listener[Any]):
        async def accept(self) -> Any:
            await trio.lowlevel.checkpoint()
            return trio.testing.memory_stream_pair()[0]

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    with pytest.raises(TypeError, match="a Strange gave a StapledStream, which is no LocalStream"):
        await FramedChannelListener(Strange(), IpcConfig()).accept()
    with pytest.raises(ExceptionGroup) as caught:
        await serve_listener(succeed, DETECTION, Strange(), IpcConfig())
    assert caught.group_contains(TypeError, match="gave a StapledStream, must give channels")
