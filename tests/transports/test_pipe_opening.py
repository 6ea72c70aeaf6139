"""Named pipes for any program of Trio's: what is public of them. On Windows, and under Wine."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.testing

if sys.platform != "win32":
    pytest.skip("named pipes are Windows' own", allow_module_level=True)
assert sys.platform == "win32"

from tests.hardening.record import Attack  # noqa: E402
from tests.platforms import exists, fails_under_wine, open_handles  # noqa: E402
from tests.support import succeed, success, task  # noqa: E402
from trio_ipc import (  # noqa: E402
    Client,
    ConfigError,
    ConnectError,
    EndpointError,
    EndpointInUseError,
    FramedChannel,
    FramedChannelListener,
    IpcConfig,
    serve_listener,
)
from trio_ipc.daemoneye import DETECTION  # noqa: E402
from trio_ipc.transports import (  # noqa: E402
    LocalStream,
    NamedPipeStream,
    PeerCredentials,
    PeerPolicy,
    open_local_stream,
    open_named_pipe,
    open_named_pipe_listeners,
    open_unix_listeners,
    open_unix_stream,
    serve_named_pipe,
    serve_unix,
)
from trio_ipc.transports.windows import listener as listener_module  # noqa: E402
from trio_ipc.transports.windows import win32  # noqa: E402

ME = PeerCredentials.of_this_process()


@pytest.fixture
async def name() -> AsyncIterator[str]:
    with trio.fail_after(120):
        yield f"trio-ipc-test-{uuid.uuid4().hex}"


async def echo(stream: NamedPipeStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def ask(name: str) -> bytes | bytearray:
    async with await open_named_pipe(name) as stream:
        await stream.send_all(b"hello")
        return await stream.receive_some()


async def test_streams_through_a_listener_are_streams_by_trios_own_checker(name: str) -> None:
    [listener] = await open_named_pipe_listeners(name)
    async with listener:

        async def make() -> tuple[NamedPipeStream, NamedPipeStream]:
            return await open_named_pipe(name), await listener.accept()

        await trio.testing.check_two_way_stream(make, None)  # test_named_pipe.py has the clogged ones


@pytest.mark.parametrize("connect", [open_named_pipe, open_local_stream])
@pytest.mark.parametrize("in_full", [False, True])
async def test_both_ends_know_each_other(
    name: str, in_full: bool, connect: Callable[[str], Awaitable[LocalStream]]
) -> None:
    full = rf"\\.\pipe\{name}"
    [listener] = await open_named_pipe_listeners(full if in_full else name)
    async with (
        listener,
        await connect(name if in_full else full) as client,
        await listener.accept() as served,
    ):
        assert client.peer == served.peer == ME
        assert client.endpoint == served.endpoint == listener.endpoint == full
        assert PeerPolicy.own_user_and_root().allows(client.peer)


async def test_a_server_runs_until_it_is_cancelled_and_then_the_name_is_free(name: str) -> None:
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(serve_named_pipe, echo, name)
        assert await ask(name) == b"hello"
        nursery.cancel_scope.cancel()
    assert not exists(listener.endpoint)
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_handlers_run_where_they_are_told_to_and_outlive_the_server(name: str) -> None:
    async with trio.open_nursery() as handlers:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_named_pipe, echo, name, handler_nursery=handlers))
            client = await open_named_pipe(name)
            await client.send_all(b"1")
            assert await client.receive_some() == b"1"
            nursery.cancel_scope.cancel()
        async with client:
            await client.send_all(b"2")
            assert await client.receive_some() == b"2"


async def test_a_stream_that_its_handler_leaves_open_is_closed(name: str) -> None:
    async def do_nothing(_: NamedPipeStream) -> None:
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        await nursery.start(serve_named_pipe, do_nothing, name)
        async with await open_named_pipe(name) as client:
            assert await client.receive_some() == b""
        nursery.cancel_scope.cancel()


async def test_trios_own_serve_listeners_takes_them(name: str) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, echo, await open_named_pipe_listeners(name))
        async with trio.open_nursery() as clients:
            for _ in range(10):
                clients.start_soon(ask, name)
        nursery.cancel_scope.cancel()


async def test_channels_are_made_of_them(name: str) -> None:
    config = IpcConfig(endpoint_path=name)
    [listener] = await open_named_pipe_listeners(name)
    async with trio.open_nursery() as nursery:
        channels = FramedChannelListener(listener, config)
        server = await nursery.start(serve_listener, succeed, DETECTION, channels, config)
        stream = await open_named_pipe(name)
        channel = FramedChannel(stream, config, endpoint=name, peer=stream.peer)
        client = Client(channel, DETECTION, config)
        assert await client.call(task("1")) == success("1")
        await client.aclose()
        server.stop()


def test_a_program_that_uses_them_loads_no_protobuf() -> None:
    code = (
        "import sys, trio, trio_ipc.transports as pipes\n"
        "async def answer(stream):\n"
        "    await stream.send_all(b'hello')\n"
        "async def main(name):\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        await nursery.start(pipes.serve_named_pipe, answer, name)\n"
        "        async with await pipes.open_local_stream(name) as stream:\n"
        "            print(await stream.receive_some(), stream.peer.user == pipes.PeerCredentials"
        ".of_this_process().user)\n"
        "        nursery.cancel_scope.cancel()\n"
        "trio.run(main, sys.argv[1])\n"
        "print([name for name in sys.modules if name.startswith('google.protobuf')])\n"
    )
    command = [sys.executable, "-c", code, f"trio-ipc-test-{uuid.uuid4().hex}"]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["b'hello' True", "[]"]


async def test_a_cancelled_start_leaves_nothing(name: str, attack: Attack) -> None:
    before = open_handles()
    with trio.CancelScope() as scope:
        scope.cancel()
        await open_named_pipe_listeners(name)
    assert scope.cancelled_caught
    assert open_handles() <= before
    assert not exists(rf"\\.\pipe\{name}")
    attack(
        "`open_named_pipe_listeners` cancelled at its start",
        tried=1,
        outcome="no pipe and no handle left",
    )


async def test_a_cancelled_connection_is_no_client(name: str) -> None:
    [listener] = await open_named_pipe_listeners(name)
    async with listener:
        with trio.CancelScope() as scope:
            scope.cancel()
            await open_local_stream(name)
        assert scope.cancelled_caught
        async with await open_named_pipe(name) as client, await listener.accept() as served:
            await client.send_all(b"the first")
            assert await served.receive_some() == b"the first"


async def test_a_listeners_close_leaves_its_streams(name: str) -> None:
    [listener] = await open_named_pipe_listeners(name)
    async with await open_named_pipe(name) as client, await listener.accept() as served:
        await listener.aclose()
        await client.send_all(b"still here")
        assert await served.receive_some() == b"still here"


@fails_under_wine("ignores FILE_FLAG_FIRST_PIPE_INSTANCE", versions=[8, 10])
async def test_a_live_server_is_refused(name: str) -> None:
    [listener] = await open_named_pipe_listeners(name)
    async with listener:
        with pytest.raises(EndpointInUseError, match="choose another name"):
            await open_named_pipe_listeners(name)


async def test_a_refusal_speaks_of_the_name(
    name: str, monkeypatch: pytest.MonkeyPatch, attack: Attack
) -> None:
    """As Windows says it, which Wine does not."""
    [listener] = await open_named_pipe_listeners(name)

    def refuse(*_: object, **__: object) -> int:
        raise OSError(0, "Access is denied", None, win32.ERROR_ACCESS_DENIED)

    async with listener:
        with monkeypatch.context() as patch:
            patch.setattr(win32, "create_named_pipe", refuse)
            with pytest.raises(EndpointInUseError) as caught:
                await serve_named_pipe(echo, name)
        full = rf"\\.\pipe\{name}"
        who = f"process {ME.pid}; stop it first, or choose another name"
        assert str(caught.value) == f"{full}: in use by {who}"
        served = await listener.accept()  # the look at who serves
        await served.aclose()
    attack(
        "`serve_named_pipe` at a live server's name, as Windows answers it (played)",
        tried=1,
        outcome="`EndpointInUseError` that names its process; the server goes on",
    )


async def test_the_descriptor_is_the_one_that_was_given(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real = listener_module._descriptor

    def note(sddl: str) -> bytes:
        seen.append(sddl)
        return real(sddl)

    monkeypatch.setattr(listener_module, "_descriptor", note)
    given = f"O:{ME.sid}D:P(A;;GA;;;{ME.sid})"
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_named_pipe, echo, name, sddl=given))
        assert await ask(name) == b"hello"
        nursery.cancel_scope.cancel()
    assert seen == [given]
    with pytest.raises(ConfigError, match="'nonsense', which Windows cannot read"):
        await open_named_pipe_listeners(name, sddl="nonsense")


async def test_a_wrong_name_and_wrong_types_are_refused_at_once(name: str) -> None:
    for connect in (open_named_pipe, open_local_stream, open_named_pipe_listeners):
        with pytest.raises(ConfigError, match="a file's path is none"):
            await connect("C:\\x")
        with pytest.raises(TypeError, match="the name of a pipe must be a str, not b'x'"):
            await connect(b"x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="sddl must be a str or None, not 3"):
        await open_named_pipe_listeners(name, sddl=3)  # type: ignore[arg-type]


async def test_a_function_for_unix_says_what_to_use_here() -> None:
    why = "^/x: Unix sockets are not for Windows; "
    server = why + r"use open_named_pipe_listeners\(\) or serve_named_pipe\(\) here$"
    with pytest.raises(EndpointError, match=server):
        await open_unix_listeners("/x", mode=0o660)
    with pytest.raises(EndpointError, match=server):
        await serve_unix(echo, "/x")
    with pytest.raises(
        ConnectError, match=why + r"use open_named_pipe\(\) here, or open_local_stream\(\) on every system$"
    ):
        await open_unix_stream("/x")
