"""Unix sockets for any program of Trio's: what is public of them."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.hardening.record import Attack
from tests.support import succeed, success, task
from trio_ipc import (
    Client,
    ConfigError,
    ConnectError,
    EndpointError,
    EndpointInUseError,
    EndpointUnsafeError,
    FramedChannel,
    FramedChannelListener,
    IpcConfig,
    serve_listener,
)
from trio_ipc.daemoneye import DETECTION
from trio_ipc.endpoint import MAX_PATH_BYTES
from trio_ipc.transports import LocalStream, PeerCredentials, PeerPolicy

if sys.platform == "win32":
    pytest.skip("Unix sockets are Unix' own", allow_module_level=True)
assert sys.platform != "win32"

from trio_ipc.transports import (  # noqa: E402
    UnixStream,
    open_local_stream,
    open_named_pipe,
    open_named_pipe_listeners,
    open_unix_listeners,
    open_unix_stream,
    serve_named_pipe,
    serve_unix,
)


@pytest.fixture
def path(directory: str) -> str:
    return f"{directory}/test.sock"


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


async def echo(stream: UnixStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def ask(path: str, data: bytes = b"hello") -> bytes:
    """What a server answers until it has answered as much."""
    answer = b""
    async with await open_unix_stream(path) as stream:
        await stream.send_all(data)
        while len(answer) < len(data):
            piece = await stream.receive_some()
            assert piece, "the server closed"
            answer += piece
    return answer


# --- Listening and connecting -------------------------------------------------------------------------------


async def test_streams_through_a_listener_are_streams_by_trios_own_checker(path: str) -> None:
    [listener] = await open_unix_listeners(path)
    async with listener:

        async def make() -> tuple[UnixStream, UnixStream]:
            return await open_unix_stream(path), await listener.accept()

        async def make_clogged() -> tuple[UnixStream, UnixStream]:
            both = await make()
            for stream in both:
                while stream.write(bytes(65_536)):
                    pass
            return both

        await trio.testing.check_half_closeable_stream(make, make_clogged)
        await trio.testing.check_two_way_stream(make, make_clogged)


@pytest.mark.parametrize("connect", [open_unix_stream, open_local_stream])
async def test_both_ends_know_each_other(path: str, connect: Callable[[str], Awaitable[LocalStream]]) -> None:
    me = PeerCredentials(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())
    [listener] = await open_unix_listeners(path)
    async with listener, await connect(path) as client, await listener.accept() as served:
        assert client.peer == served.peer == me
        assert client.endpoint == served.endpoint == listener.endpoint == path
        assert PeerPolicy.own_user_and_root().allows(client.peer)
    assert not os.path.lexists(path)


async def test_paths_may_be_path_objects(path: str) -> None:
    [listener] = await open_unix_listeners(Path(path))
    async with listener, await open_unix_stream(Path(path)), await open_local_stream(Path(path)):
        assert listener.endpoint == path


async def test_a_server_runs_until_it_is_cancelled_and_its_socket_goes_with_it(path: str) -> None:
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(serve_unix, echo, path)
        assert listener.endpoint == path
        assert mode_of(path) == 0o600
        assert await ask(path) == b"hello"
        nursery.cancel_scope.cancel()
    assert not os.path.lexists(path)
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_handlers_run_where_they_are_told_to_and_outlive_the_server(path: str) -> None:
    async with trio.open_nursery() as handlers:
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[object]) -> None:
                await serve_unix(echo, path, handler_nursery=handlers, task_status=task_status)

            await nursery.start(serve)
            client = await open_unix_stream(path)
            await client.send_all(b"1")
            assert await client.receive_some() == b"1"
            nursery.cancel_scope.cancel()
        async with client:
            await client.send_all(b"2")
            assert await client.receive_some() == b"2"


async def test_a_stream_that_its_handler_leaves_open_is_closed(path: str) -> None:
    async def do_nothing(_: UnixStream) -> None:
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        await nursery.start(serve_unix, do_nothing, path)
        async with await open_unix_stream(path) as client:
            assert await client.receive_some() == b""
        nursery.cancel_scope.cancel()


async def test_trios_own_serve_listeners_takes_them(path: str) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, echo, await open_unix_listeners(path))
        assert await ask(path) == b"hello"
        nursery.cancel_scope.cancel()


async def test_channels_are_made_of_them(path: str) -> None:
    config = IpcConfig(endpoint_path=path)
    [listener] = await open_unix_listeners(path)
    async with trio.open_nursery() as nursery:
        channels = FramedChannelListener(listener, config)
        server = await nursery.start(serve_listener, succeed, DETECTION, channels, config)
        stream = await open_unix_stream(path)
        channel = FramedChannel(stream, config, endpoint=path, peer=stream.peer)
        client = Client(channel, DETECTION, config)
        assert await client.call(task("1")) == success("1")
        await client.aclose()
        server.stop()


def test_a_program_that_uses_them_loads_no_protobuf(path: str) -> None:
    code = (
        "import sys, trio, trio_ipc.transports as pipes\n"
        "async def answer(stream):\n"
        "    await stream.send_all(b'hello')\n"
        "async def main(path):\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        await nursery.start(pipes.serve_unix, answer, path)\n"
        "        async with await pipes.open_local_stream(path) as stream:\n"
        "            print(await stream.receive_some(), stream.peer.user == pipes.PeerCredentials"
        ".of_this_process().user)\n"
        "        nursery.cancel_scope.cancel()\n"
        "trio.run(main, sys.argv[1])\n"
        "print([name for name in sys.modules if name.startswith('google.protobuf')])\n"
    )
    command = [sys.executable, "-c", code, path]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["b'hello' True", "[]"]


# --- Cancellation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replace", [False, True])
async def test_a_cancelled_start_leaves_nothing(directory: str, replace: bool) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await open_unix_listeners(f"{directory}/test.sock", replace=replace)
    assert scope.cancelled_caught
    assert os.listdir(directory) == []


async def test_a_cancelled_connection_is_no_client(path: str) -> None:
    [listener] = await open_unix_listeners(path)
    async with listener:
        with trio.CancelScope() as scope:
            scope.cancel()
            await open_local_stream(path)
        assert scope.cancelled_caught
        async with await open_unix_stream(path) as client, await listener.accept() as served:
            await client.send_all(b"the first")
            assert await served.receive_some() == b"the first"


# --- What is in the way -------------------------------------------------------------------------------------


async def test_a_live_server_is_refused_and_goes_on_and_the_error_says_what_can_be_done(
    path: str, attack: Attack
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_unix, echo, path)
        with pytest.raises(EndpointInUseError) as caught:
            await open_unix_listeners(path)
        assert str(caught.value) == (
            f"{path}: in use by process {os.getpid()}; stop it first, or choose another path, "
            "or take its place with replace=True"
        )
        with pytest.raises(EndpointInUseError):
            await serve_unix(echo, path)
        assert await ask(path) == b"hello"
        nursery.cancel_scope.cancel()
    attack(
        "`open_unix_listeners` and `serve_unix` at a live server's path",
        tried=2,
        outcome="`EndpointInUseError` that names its process; the server goes on",
    )


@pytest.mark.parametrize("replace", [False, True])
async def test_a_dead_servers_socket_makes_way(directory: str, path: str, replace: bool) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    os.chmod(path, 0o666)
    [listener] = await open_unix_listeners(path, replace=replace)
    async with listener, await open_unix_stream(path), await listener.accept():
        assert mode_of(path) == 0o600
        assert os.listdir(directory) == ["test.sock"]
    assert os.listdir(directory) == []


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("kind", ["file", "directory", "link to a socket", "datagrams", "packets"])
async def test_what_is_no_socket_of_streams_is_never_touched(
    directory: str, path: str, kind: str, replace: bool, attack: Attack
) -> None:
    kinds = {"datagrams": socket.SOCK_DGRAM, "packets": socket.SOCK_SEQPACKET}
    with socket.socket(socket.AF_UNIX, kinds.get(kind, socket.SOCK_STREAM)) as other:
        if kind == "file":
            Path(path).write_text("precious")
        elif kind == "directory":
            os.mkdir(path)
        elif kind == "link to a socket":
            other.bind(f"{directory}/other.sock")
            other.listen()
            os.symlink(f"{directory}/other.sock", path)
        else:
            other.bind(path)
            if kind == "packets":
                other.listen()
        before, names = os.lstat(path), sorted(os.listdir(directory))
        with pytest.raises(EndpointUnsafeError, match="it was not touched; choose another path, or remove"):
            await open_unix_listeners(path, replace=replace)
        assert os.path.samestat(os.lstat(path), before)
        assert sorted(os.listdir(directory)) == names
    if kind == "file":
        assert Path(path).read_text() == "precious"
    attack(
        "`open_unix_listeners`, with and without `replace=True`, at a file, a directory, a link, or a socket "
        "of datagrams or packets",
        tried=1,
        outcome="`EndpointUnsafeError`; it is not touched",
    )


@pytest.mark.parametrize("replace", [False, True])
async def test_a_directory_that_others_can_write_is_refused(
    directory: str, path: str, replace: bool, attack: Attack
) -> None:
    os.chmod(directory, 0o777)
    with pytest.raises(EndpointUnsafeError, match="others can write the directory"):
        await open_unix_listeners(path, replace=replace)
    assert os.listdir(directory) == []
    attack(
        "`open_unix_listeners`, with and without `replace=True`, in a directory that others can write",
        tried=1,
        outcome="`EndpointUnsafeError`; nothing is made in it",
    )


# --- What cannot be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"path": "test.sock"}, "the path is 'test.sock', must be an absolute path"),
        ({"path": "/"}, "must be the path of a socket, not of a directory"),
        ({"path": f"/{'x' * MAX_PATH_BYTES}"}, f"at most {MAX_PATH_BYTES} bytes"),
        ({"mode": 0o1600}, "mode is 0o1600, must be from 0o600 to 0o777"),
        (
            {"mode": 0o440},
            "mode is 0o440, must be .* with both of its owner's bits; 0o600 for its owner alone",
        ),
        ({"mode": -1}, "mode is -0o1, must be"),
        ({"backlog": -1}, "backlog is -1, must be at least 0; leave it out for the most"),
    ],
)
async def test_a_wrong_value_is_refused_at_once(
    directory: str, path: str, arguments: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        await open_unix_listeners(**{"path": path, **arguments})  # type: ignore[arg-type]
    assert os.listdir(directory) == []


@pytest.mark.parametrize("arguments", [{"path": b"/x"}, {"path": 3}, {"mode": "0600"}, {"backlog": "5"}])
async def test_a_wrong_type_is_refused_at_once(path: str, arguments: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        await open_unix_listeners(**{"path": path, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize("connect", [open_unix_stream, open_local_stream])
async def test_a_path_that_no_socket_can_have_is_refused_by_clients(
    connect: Callable[[object], Awaitable[object]],
) -> None:
    with pytest.raises(ConfigError, match="the path is '@name', must be an absolute path"):
        await connect("@name")
    with pytest.raises(TypeError, match="the path of a socket must be a str, not b'/x'"):
        await connect(b"/x")


async def test_a_function_for_windows_says_what_to_use_here() -> None:
    why = r"^\\\\.\\pipe\\x: named pipes are for Windows only; "
    name = r"\\.\pipe\x"
    server = why + r"use open_unix_listeners\(\) or serve_unix\(\) here$"
    with pytest.raises(EndpointError, match=server):
        await open_named_pipe_listeners(name, sddl="D:")
    with pytest.raises(EndpointError, match=server):
        await serve_named_pipe(echo, name)
    with pytest.raises(
        ConnectError, match=why + r"use open_unix_stream\(\) here, or open_local_stream\(\) on every system$"
    ):
        await open_named_pipe(name)
