"""What is a legacy channel's own on Windows; what both transports must do is tested for both elsewhere."""

from __future__ import annotations

import sys

import pytest
import trio
import trio.testing

if sys.platform != "win32":
    pytest.skip("named pipes are Windows' own", allow_module_level=True)
assert sys.platform == "win32"


from tests.legacy.pipes import (  # noqa: E402
    LARGE,
    OWN,
    blocked,
    connected_to,
    pair,
    until_noticed,
)
from tests.platforms import open_handles  # noqa: E402
from tests.transports.pipes import each_refusal_of_a_client, refuse_clients  # noqa: E402
from trio_ipc import (  # noqa: E402
    ChannelClosedError,
    ConnectError,
    IpcConfig,
    PeerClosedError,
    TruncatedFrameError,
)
from trio_ipc.legacy import connect, listen  # noqa: E402
from trio_ipc.transports import PeerState  # noqa: E402
from trio_ipc.transports.windows import win32  # noqa: E402


async def test_a_read_that_goes_on_does_not_make_a_connection_quiet_or_not(config: IpcConfig) -> None:
    async with pair(config) as (client, server):
        with trio.move_on_after(0.05):
            await server.receive()
        assert server.is_reusable()
        await client.send(b"x")
        await until_noticed(server)
        assert await server.receive() == b"x"
        assert server.is_reusable()
        await client.aclose()
        await until_noticed(server)


async def test_a_write_of_no_bytes_is_not_the_end(config: IpcConfig) -> None:
    async with pair(config) as (client, server):
        client._writing.begin(lambda state: win32.begin_write(client._handle, b"", state))
        client._writing.result()
        await client.send(b"x")
        assert await server.receive() == b"x"


async def test_a_peer_that_writes_no_bytes_again_and_again_stops_nobody(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Windows says of a zero-byte write, and Wine does not: a read that has completed with nothing."""
    async with pair(config) as (_, server):
        with monkeypatch.context() as patch:
            patch.setattr(win32, "begin_read", lambda *_: None)
            patch.setattr(win32, "has_completed", lambda _: True)
            patch.setattr(win32, "result_of", lambda *_: 0)
            with trio.move_on_after(0.05) as scope:
                await server.receive()
            assert scope.cancelled_caught
            assert server.peer_state() is PeerState.OPEN


async def test_looking_after_the_peer_reads_ahead_and_keeps_it(config: IpcConfig) -> None:
    async with pair(config) as (client, server):
        assert server.peer_state() is PeerState.OPEN
        for number in range(3):
            await client.send(b"%d" % number)
        while server.peer_state() is PeerState.OPEN:  # noqa: ASYNC110 - the kernel completes the read when it likes
            await trio.sleep(0.01)
        assert not server.is_reusable()
        await client.aclose()
        while server.peer_state() is not PeerState.GONE:  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert [await server.receive() for _ in range(3)] == [b"0", b"1", b"2"]
        with pytest.raises(PeerClosedError):
            await server.receive()
    assert server.peer_state() is PeerState.GONE


async def test_looking_after_the_peer_reads_ahead_no_more_than_a_frame(config: IpcConfig) -> None:
    limit = 100_000
    async with pair(config.replace(max_frame_bytes=limit)) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_many, [bytes(limit)] * 20)
            while len(server._arrived) <= limit:
                server.peer_state()
                await trio.sleep(0.01)
            for _ in range(20):  # and no more
                server.peer_state()
                await trio.sleep(0.01)
            assert limit < len(server._arrived) < limit + 8 + 65_536
            for _ in range(20):
                assert await server.receive() == bytes(limit)


async def test_closing_with_a_read_and_a_write_in_progress_ends_both(config: IpcConfig) -> None:
    async with pair(config) as (client, server), trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(ChannelClosedError):
                await client.send(LARGE)

        async def receive() -> None:
            with pytest.raises(ChannelClosedError):
                await client.receive()

        await blocked(receive, nursery)
        await blocked(send, nursery)
        await client.aclose()
        with pytest.raises((PeerClosedError, TruncatedFrameError)):
            await server.receive()


async def test_the_peers_closing_wakes_a_task_that_sends(config: IpcConfig) -> None:
    async with pair(config) as (client, server), trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(PeerClosedError):
                await client.send(LARGE)

        await blocked(send, nursery)
        await server.aclose()


async def test_what_was_sent_right_before_closing_arrives(config: IpcConfig) -> None:
    async with pair(config) as (client, server):
        await client.send(bytes(60_000))
        await client.aclose()
        assert await server.receive() == bytes(60_000)
        with pytest.raises(PeerClosedError):
            await server.receive()


async def test_a_channel_that_is_forgotten_is_closed_with_a_warning(config: IpcConfig) -> None:
    async with await listen(config, OWN) as listener:
        ends = list(await connected_to(listener, config))
    server = ends.pop()
    assert ends[0]._read_now(1) is None  # a read has begun
    with pytest.warns(ResourceWarning, match="not closed"):
        ends.clear()
    with pytest.raises(PeerClosedError):
        await server.receive()
    await server.aclose()


async def test_hundreds_of_connections_leave_no_handle(config: IpcConfig) -> None:
    async with await listen(config, OWN) as listener:

        async def some(count: int) -> int:
            for _ in range(count):
                client, server = await connected_to(listener, config)
                await client.send(b"x")
                assert await server.receive() == b"x"
                await client.aclose()
                await server.aclose()
            return open_handles()

        before = await some(20)
        assert await some(200) <= before
        assert listener.connections.open == 0


# --- Connecting ---------------------------------------------------------------------------------------------


@each_refusal_of_a_client
async def test_what_the_system_says_to_a_client_becomes_the_precise_error(
    config: IpcConfig, winerror: int, error: type[ConnectError], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_clients(monkeypatch, winerror)
    with pytest.raises(ConnectError) as caught:
        await connect(config)
    assert type(caught.value) is error
    assert isinstance(caught.value.__cause__, OSError)


async def test_clients_wait_for_a_server_that_is_busy_and_can_be_cancelled(config: IpcConfig) -> None:
    async with await listen(config, OWN) as listener, await connect(config):
        with trio.move_on_after(0.2) as scope:
            await connect(config)
        assert scope.cancelled_caught

        async def call() -> None:
            async with await connect(config):
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            for _ in range(2):
                async with await listener.accept():
                    pass
