"""Unix sockets for any program of Trio's: what is public of them."""

from __future__ import annotations

import errno
import itertools
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

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
    UnixListener,
    UnixStream,
    open_local_stream,
    open_named_pipe,
    open_named_pipe_listeners,
    open_unix_listeners,
    open_unix_stream,
    serve_named_pipe,
    serve_unix,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root: it becomes another user")

#: A group and users of no meaning here.
GROUP, MEMBER, STRANGER = 54_001, 54_002, 54_003


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


async def test_a_live_server_is_refused_and_goes_on_and_the_error_says_what_can_be_done(path: str) -> None:
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
    directory: str, path: str, kind: str, replace: bool
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


@pytest.mark.parametrize("replace", [False, True])
async def test_a_directory_that_others_can_write_is_refused(directory: str, path: str, replace: bool) -> None:
    os.chmod(directory, 0o777)
    with pytest.raises(EndpointUnsafeError, match="others can write the directory"):
        await open_unix_listeners(path, replace=replace)
    assert os.listdir(directory) == []


# --- Taking a server's place --------------------------------------------------------------------------------


#: Connects as fast as it can from two threads until it is told to end; says what it met, and how often.
CLIENTS = """
import collections, json, socket, sys, threading

path, over, met = sys.argv[1], threading.Event(), []

def connect_again_and_again():
    while not over.is_set():
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(path)
                answer = client.recv(10).decode() or "lost"
            except OSError as exc:
                answer = type(exc).__name__
        met.append(answer)

threads = [threading.Thread(target=connect_again_and_again) for _ in range(2)]
for thread in threads:
    thread.start()
sys.stdin.read()
over.set()
for thread in threads:
    thread.join()
print(json.dumps(collections.Counter(met)))
"""

#: How long nobody may come until an old server believes that all who had reached it were served. Seconds.
QUIET = 0.1

#: How many clients each server has before the next one takes its place.
SERVED = 5


async def serve_until_replaced(
    listener: UnixListener, answer: bytes, enough: trio.Event, replaced: trio.Event
) -> None:
    """What docs/pipes.md tells an old server to do: accept until it is replaced and nobody comes any more."""
    quiet = trio.CancelScope()

    async def once_replaced() -> None:
        await replaced.wait()
        quiet.deadline = trio.current_time() + QUIET

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(once_replaced)
        with quiet:
            for served in itertools.count(1):
                async with await listener.accept() as stream:
                    await stream.send_all(answer)
                if served == SERVED:
                    enough.set()
                if replaced.is_set():
                    quiet.deadline = trio.current_time() + QUIET


async def test_no_client_is_refused_or_lost_while_one_server_takes_anothers_place(path: str) -> None:
    takeovers = 20
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            replaced = None
            clients = None
            for number in range(takeovers):
                [listener] = await open_unix_listeners(path, replace=True)
                if replaced is not None:
                    replaced.set()
                enough, replaced = trio.Event(), trio.Event()
                nursery.start_soon(serve_until_replaced, listener, b"%d" % number, enough, replaced)
                if clients is None:
                    clients = await trio.lowlevel.open_process(
                        [sys.executable, "-c", CLIENTS, path],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                    )
                await enough.wait()
            assert clients is not None
            assert clients.stdin is not None
            assert clients.stdout is not None
            await clients.stdin.aclose()
            said = b""
            async for piece in clients.stdout:
                said += piece
            await clients.wait()
            assert replaced is not None
            replaced.set()
    met = json.loads(said)
    assert met.keys() == {str(number) for number in range(takeovers)}, met
    assert all(met[str(number)] >= SERVED for number in range(takeovers))
    assert not os.path.lexists(path)


async def test_the_path_leads_to_the_new_server_and_the_old_one_keeps_its_clients(path: str) -> None:
    [old] = await open_unix_listeners(path)
    async with old, await open_unix_stream(path) as early:
        # The old server must not even notice, since it may not be prepared for a client that says nothing.
        [new] = await open_unix_listeners(path, replace=True)
        async with new, await open_unix_stream(path) as late:
            async with await old.accept() as served:
                await early.send_all(b"early")
                assert await served.receive_some() == b"early"
            async with await new.accept() as served:
                await late.send_all(b"late")
                assert await served.receive_some() == b"late"
            with pytest.raises(BlockingIOError):
                old._sock.accept()


async def test_an_old_servers_close_leaves_the_new_ones_socket(directory: str, path: str) -> None:
    [old] = await open_unix_listeners(path)
    [new] = await open_unix_listeners(path, replace=True)
    assert old.look().file == "replaced"
    assert new.look().file == "there"
    await old.aclose()
    async with new, await open_unix_stream(path), await new.accept():
        assert os.listdir(directory) == ["test.sock"]
    assert os.listdir(directory) == []


async def test_an_old_servers_processs_end_leaves_the_new_ones_socket(path: str) -> None:
    code = (
        "import sys, trio; from trio_ipc.transports import serve_unix\n"
        "async def main():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        await nursery.start(serve_unix, trio.aclose_forcefully, sys.argv[1])\n"
        "        print('listening', flush=True)\n"
        "        await trio.to_thread.run_sync(sys.stdin.read)\n"
        "        nursery.cancel_scope.cancel()\n"
        "trio.run(main)"
    )
    command = [sys.executable, "-c", code, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as old:
        assert old.stdin is not None
        assert old.stdout is not None
        assert old.stdout.readline() == b"listening\n"
        with pytest.raises(EndpointInUseError, match=f"in use by process {old.pid}"):
            await open_unix_listeners(path)
        [new] = await open_unix_listeners(path, replace=True)
        old.stdin.close()
        assert old.wait() == 0
    async with new, await open_unix_stream(path), await new.accept():
        assert new.look().file == "there"


async def test_of_those_who_replace_each_other_at_once_the_last_one_has_the_path(path: str) -> None:
    listeners: list[UnixListener] = []

    async def start() -> None:
        listeners.extend(await open_unix_listeners(path, replace=True))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(start)
    assert [listener.look().file for listener in listeners] == ["replaced"] * 4 + ["there"]
    for listener in listeners[:-1]:
        await listener.aclose()
    assert listeners[-1].look().file == "there"
    await listeners[-1].aclose()
    assert not os.path.lexists(path)


async def test_a_takeover_that_fails_leaves_the_old_server_and_nothing_else(
    directory: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    [old] = await open_unix_listeners(path)
    async with old:
        for module, name in ((os, "rename"), (socket.socket, "listen"), (os, "chmod")):
            with monkeypatch.context() as patch:
                patch.setattr(module, name, refuse)
                with pytest.raises(EndpointError, match="No space left on device"):
                    await open_unix_listeners(path, replace=True)
        assert os.listdir(directory) == ["test.sock"]
        assert old.look().file == "there"
        async with await open_unix_stream(path):
            pass


async def test_a_server_with_a_full_backlog_can_be_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as old, socket.socket(socket.AF_UNIX) as client:
        old.bind(path)
        old.listen(0)
        client.connect(path)
        [new] = await open_unix_listeners(path, replace=True)
        async with new, await open_unix_stream(path), await new.accept():
            pass


async def test_a_path_too_long_to_make_its_socket_beside_it_says_so(directory: str) -> None:
    deep = f"{directory}/{'x' * (MAX_PATH_BYTES - len(directory) - 4)}"
    [listener] = await open_unix_listeners(f"{deep}/s")
    async with listener:
        with pytest.raises(EndpointError, match="where the socket is made, is longer .*; use a shorter dir"):
            await open_unix_listeners(f"{deep}/s", replace=True)
        assert os.listdir(deep) == ["s"]


# --- Mode and backlog ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("mask", [0o000, 0o027])
@pytest.mark.parametrize(
    ("mode", "directory_mode"),
    [(0o600, 0o700), (0o700, 0o700), (0o660, 0o750), (0o640, 0o750), (0o666, 0o755), (0o606, 0o755)],
)
async def test_the_socket_has_its_mode_and_missing_directories_let_through_whom_it_lets_in(
    directory: str, mode: int, directory_mode: int, replace: bool, mask: int
) -> None:
    path = f"{directory}/new/deeper/test.sock"
    before = os.umask(mask)
    try:
        [listener] = await open_unix_listeners(path, mode=mode, replace=replace)
    finally:
        os.umask(before)
    async with listener:
        assert mode_of(path) == mode
        assert mode_of(f"{directory}/new/deeper") == mode_of(f"{directory}/new") == directory_mode
        assert os.lstat(path).st_gid == os.getegid()


@pytest.mark.parametrize(
    ("mode", "who"), [(0o660, f"the group {os.getegid()}, which"), (0o666, "other users, who")]
)
async def test_a_directory_that_keeps_out_whom_the_mode_lets_in_is_refused(
    directory: str, path: str, mode: int, who: str
) -> None:
    with pytest.raises(EndpointError, match=f"{who} shall reach the socket, cannot pass the"):
        await open_unix_listeners(path, mode=mode)
    assert os.listdir(directory) == []


async def test_the_socket_is_never_open_to_more_than_it_shall_be_in_the_end(
    path: str, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = os.chmod

    def look_and_change(name: str, mode: int, **where: int) -> None:
        seen.append(stat.S_IMODE(os.stat(name, dir_fd=where["dir_fd"]).st_mode))
        real(name, mode, dir_fd=where["dir_fd"])

    real(directory, 0o755)
    monkeypatch.setattr(os, "chmod", look_and_change)
    before = os.umask(0)
    try:
        [listener] = await open_unix_listeners(path, mode=0o666)
    finally:
        os.umask(before)
    async with listener:
        assert seen == [0o600]


@as_root
@pytest.mark.parametrize("replace", [False, True])
async def test_a_mode_for_the_group_lets_in_the_group_of_the_directory_and_no_stranger(
    directory: str, replace: bool
) -> None:
    os.chmod(directory, 0o755)
    shared = f"{directory}/shared"
    os.mkdir(shared)
    os.chown(shared, -1, GROUP)
    os.chmod(shared, 0o2750)
    path = f"{shared}/test.sock"
    code = (
        "import os, sys, trio; from trio_ipc.transports import open_unix_stream\n"
        "import trio_ipc; trio_ipc.IpcError\n"
        "os.setgroups([int(group) for group in sys.argv[3:]])\n"
        "os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))\n"
        "async def main():\n"
        "    async with await open_unix_stream(sys.argv[1]) as stream:\n"
        "        print((await stream.receive_some()).decode())\n"
        "try: trio.run(main)\n"
        "except trio_ipc.IpcError as exc: print(type(exc).__name__)"
    )
    seen: list[PeerCredentials] = []

    async def answer(stream: UnixStream) -> None:
        seen.append(stream.peer)
        await stream.send_all(b"welcome")

    async def come(user: int, *groups: int) -> str:
        command = [sys.executable, "-c", code, path, str(user), *map(str, groups)]
        return (await trio.run_process(command, capture_stdout=True)).stdout.decode().strip()

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_unix, answer, path, mode=0o660, replace=replace))
        assert (mode_of(path), os.lstat(path).st_gid) == (0o660, GROUP)
        assert await come(MEMBER, GROUP) == "welcome"
        assert await come(STRANGER) == "EndpointPermissionError"
        nursery.cancel_scope.cancel()
    assert [(peer.uid, GROUP in peer.groups) for peer in seen] == [(MEMBER, True)]


async def test_as_many_clients_wait_as_the_backlog_has_room_for(path: str) -> None:
    [listener] = await open_unix_listeners(path, backlog=2)
    async with listener:
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
        *welcome, turned_away = waiting
        for client in welcome:  # Linux has room for one more than it is told (listen(2))
            client.connect(path)
        with pytest.raises(BlockingIOError):
            turned_away.connect(path)
        for client in waiting:
            client.close()


@pytest.mark.parametrize(("given", "used"), [(None, 0xFFFF), (0, 0), (7, 7), (1_000_000, 0xFFFF)])
async def test_without_a_backlog_the_system_gives_the_most(
    path: str, given: int | None, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = socket.socket.listen

    def listen(sock: socket.socket, backlog: int) -> None:
        seen.append(backlog)
        real(sock, backlog)

    monkeypatch.setattr(socket.socket, "listen", listen)
    [listener] = await open_unix_listeners(path, backlog=given)
    async with listener:
        assert seen == [used]


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
