"""Named pipes, on Windows and under Wine. What only real Windows can show is marked so."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
import trio.testing

if sys.platform != "win32":
    pytest.skip("named pipes are Windows' own", allow_module_level=True)
assert sys.platform == "win32"


from tests.transports.pipes import (  # noqa: E402
    Pair,
    blocked,
    new_pair,
    no_handle_left,
    pair,
)
from trio_ipc.transports import PeerState  # noqa: E402
from trio_ipc.transports.windows.pipe import (  # noqa: E402
    NamedPipeStream,
)

MORE_THAN_FITS = bytes(4 * 1024 * 1024)


# --- The stream ---------------------------------------------------------------------------------------------


async def test_it_passes_trios_check_of_two_way_streams() -> None:
    # Without a maker of clogged streams: Windows tells no pipe's free room, so that
    # wait_send_all_might_not_block() never waits, and the checker wants it to. All else that it asks of a
    # clogged stream is tested below.
    await trio.testing.check_two_way_stream(new_pair, None)


async def test_and_the_same_with_the_ends_exchanged() -> None:
    async def exchanged() -> Pair:
        client, server = await new_pair()
        return server, client

    await trio.testing.check_two_way_stream(exchanged, None)


async def fill(stream: NamedPipeStream) -> None:
    """Send until not a single byte more is taken."""

    async def send(size: int) -> None:
        while True:
            await stream.write_some(bytes(size))

    for size in (65_536, 4096, 256, 16, 1):
        async with trio.open_nursery() as nursery:
            await blocked(partial(send, size), nursery)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def clogged(who: int) -> AsyncIterator[Pair]:
    """A stream that takes nothing more, and its peer."""
    async with pair() as both:
        await fill(both[who])
        yield both[who], both[1 - who]


@pytest.mark.parametrize("who", [0, 1])
async def test_a_clogged_pipe_does_all_that_trios_check_asks_of_it_but_wait_for_room(who: int) -> None:
    async with clogged(who) as (sender, receiver), trio.open_nursery() as nursery:
        with trio.testing.assert_checkpoints():
            await sender.wait_send_all_might_not_block()  # "might not" is all that it promises
        await blocked(partial(sender.send_all, b"123"), nursery)
        assert sender._sending._busy  # it does wait
        received = bytearray()
        while not received.endswith(b"123"):
            received += await receiver.receive_some()

    waits, sends = (lambda s: s.wait_send_all_might_not_block), (lambda s: partial(s.send_all, b"123"))
    for first, second in ((waits, waits), (waits, sends), (sends, sends)):
        async with clogged(who) as (sender, _):
            with pytest.RaisesGroup(trio.BusyResourceError):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(first(sender))
                    nursery.start_soon(second(sender))

    async with clogged(who) as (sender, receiver):
        await trio.aclose_forcefully(receiver)
        with suppress(trio.BrokenResourceError), trio.testing.assert_checkpoints():
            await sender.wait_send_all_might_not_block()
        with pytest.raises(trio.BrokenResourceError):
            await sender.send_all(b"123")

    async with clogged(who) as (sender, _):

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await sender.send_all(b"xyzzy")

        async with trio.open_nursery() as nursery:
            await blocked(send, nursery)
            await trio.aclose_forcefully(sender)
        with pytest.raises(trio.ClosedResourceError), trio.testing.assert_checkpoints():
            await sender.wait_send_all_might_not_block()


async def test_more_than_a_pipe_holds_is_sent_as_the_reader_takes_it() -> None:
    sent = os.urandom(3 * 1024 * 1024 + 17)
    received = bytearray()
    async with pair() as (client, server), trio.open_nursery() as nursery:

        async def send() -> None:
            await client.send_all(sent)
            await client.aclose()

        await blocked(send, nursery)
        async for data in server:
            received += data
    assert received == sent


async def test_any_buffer_is_sent_by_its_bytes() -> None:
    async with pair() as (client, server):
        await client.send_all(memoryview(b"abcdefgh").cast("I"))
        assert await server.receive_some() == b"abcdefgh"


async def test_a_write_of_no_bytes_is_not_the_end() -> None:
    async with pair() as (client, server):
        with client._end.in_use() as handle:
            await trio.lowlevel.write_overlapped(handle, b"")
        await client.send_all(b"x")
        assert await server.receive_some() == b"x"


@pytest.mark.parametrize("who", [0, 1])
async def test_what_was_sent_right_before_closing_arrives(who: int) -> None:
    sent = os.urandom(60_000)
    async with pair() as both:
        writer, reader = both[who], both[1 - who]
        await writer.send_all(sent)
        await writer.aclose()
        received = bytearray()
        async for data in reader:
            received += data
        assert received == sent
        assert await reader.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            await reader.send_all(b"x")


async def test_what_is_there_is_read_without_a_wait() -> None:
    async with pair() as (client, server), no_handle_left():
        assert server.read(10) is None
        await client.send_all(b"abc")
        assert server.read(2) == b"ab"
        assert server.read(2) == b"c"
        assert server.read(2) is None
        await client.send_all(b"d")
        assert await server.receive_some() == b"d"


async def test_what_a_wait_has_brought_is_there_to_be_read() -> None:
    async with pair() as (client, server):
        await client.send_all(b"abc")
        for _ in range(2):  # the second has nothing to wait for
            await server.wait_readable()
        assert server.peer_state() is PeerState.HAS_INPUT
        assert server.read(2) == b"ab"
        assert server.peer_state() is PeerState.HAS_INPUT
        assert await server.receive_some() == b"c"
        assert server.peer_state() is PeerState.OPEN
        assert server.read(2) is None


async def test_one_task_waits_and_another_one_reads_nothing_meanwhile() -> None:
    async with pair() as (_, server), trio.open_nursery() as nursery:
        await blocked(server.receive_some, nursery)
        assert server.read(10) is None
        with pytest.raises(trio.BusyResourceError):
            await server.wait_readable()
        nursery.cancel_scope.cancel()


async def test_without_a_wait_the_end_comes_after_what_was_sent() -> None:
    async with pair() as (client, server):
        await client.send_all(b"abc")
        await client.aclose()
        assert [server.read(10) for _ in range(3)] == [b"abc", b"", b""]
        await server.wait_readable()
        with pytest.raises(trio.ClosedResourceError):
            client.read(10)
        with pytest.raises(trio.ClosedResourceError):
            await client.wait_readable()


async def test_the_peer_is_gone_once_it_has_closed_and_was_read_to_the_end() -> None:
    async with pair() as (client, server):
        assert server.peer_state() is PeerState.OPEN
        await client.send_all(b"x")
        assert server.peer_state() is PeerState.HAS_INPUT
        await client.aclose()
        assert client.peer_state() is PeerState.GONE
        assert server.peer_state() is PeerState.HAS_INPUT  # Windows does not tell before that is read
        assert await server.receive_some() == b"x"
        assert server.peer_state() is PeerState.GONE
        assert await server.receive_some() == b""
        assert server.peer_state() is PeerState.GONE


async def test_a_peer_that_has_closed_is_gone_also_while_bytes_of_it_are_kept() -> None:
    async with pair() as (client, server):
        await client.send_all(b"x")
        await server.wait_readable()
        await client.aclose()
        assert server.peer_state() is PeerState.GONE
        assert await server.receive_some() == b"x"


async def test_nothing_is_written_without_a_wait() -> None:
    async with pair() as (client, server):
        assert client.write(b"abc") == 0
        assert await client.write_some(bytes(3 * 1024 * 1024)[:5]) == 5
        assert await server.receive_some() == bytes(5)
        await client.aclose()
        with pytest.raises(trio.ClosedResourceError):
            client.write(b"abc")
        with pytest.raises(trio.ClosedResourceError):
            await client.write_some(b"abc")


async def test_closing_wakes_a_task_that_sends() -> None:
    async with pair() as (client, _), trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await client.send_all(MORE_THAN_FITS)

        await blocked(send, nursery)
        await client.aclose()


async def test_the_peers_closing_wakes_a_task_that_sends() -> None:
    async with pair() as (client, server), trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await client.send_all(MORE_THAN_FITS)

        await blocked(send, nursery)
        await server.aclose()


async def test_a_send_that_waits_can_be_cancelled() -> None:
    async with pair() as (client, _):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                await blocked(lambda: client.send_all(MORE_THAN_FITS), nursery)
                scope.cancel()
        assert scope.cancelled_caught


async def test_a_second_sender_is_told_so() -> None:
    async with pair() as (client, _), trio.open_nursery() as nursery:
        await blocked(lambda: client.send_all(MORE_THAN_FITS), nursery)
        with pytest.raises(trio.BusyResourceError):
            await client.send_all(b"x")
        with pytest.raises(trio.BusyResourceError):
            await client.wait_send_all_might_not_block()
        nursery.cancel_scope.cancel()


async def test_a_cancelled_read_loses_nothing() -> None:
    async with pair() as (client, server):
        for number in range(50):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    await blocked(server.receive_some, nursery)
                    scope.cancel()
            await client.send_all(b"%d" % number)
            assert await server.receive_some() == b"%d" % number


async def test_a_read_that_is_cancelled_as_bytes_come_returns_them_or_leaves_them() -> None:
    received = bytearray()
    async with pair() as (client, server):

        async def receive(scope: trio.CancelScope) -> None:
            with scope:
                received.extend(await server.receive_some())

        for _ in range(50):
            scope = trio.CancelScope()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive, scope)
                await trio.testing.wait_all_tasks_blocked()
                await client.send_all(b"x")
                scope.cancel()
        await client.aclose()
        async for data in server:
            received += data
    assert received == b"x" * 50


async def test_closing_and_cancelling_in_one_breath_names_no_closed_handle() -> None:
    # Trio cancels by the handle, and would stop the whole program if that were closed by then.
    async with pair() as (client, server), trio.open_nursery() as nursery:
        await blocked(server.receive_some, nursery)
        server._end.close()
        nursery.cancel_scope.cancel()
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.aclose()


async def test_closing_returns_once_the_handle_is_closed() -> None:
    async with pair() as (client, server), trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await server.receive_some()

        await blocked(receive, nursery)
        await server.aclose()
        assert await client.receive_some() == b""


async def test_a_stream_that_is_forgotten_is_closed_with_a_warning() -> None:
    ends = list(await new_pair())
    server = ends.pop()
    with pytest.warns(ResourceWarning, match="not closed"):
        ends.clear()
    assert await server.receive_some() == b""
    await server.aclose()


async def test_a_stream_that_has_ended_is_freed_without_the_garbage_collector() -> None:
    for ends_while_it_waits in (False, True):
        client, server = await new_pair()
        async with trio.open_nursery() as nursery:
            if ends_while_it_waits:
                await blocked(server.receive_some, nursery)
            await client.aclose()
        assert await server.receive_some() == b""
        await server.aclose()
        there = weakref.ref(server)
        gc.disable()
        try:
            del server
            assert there() is None
        finally:
            gc.enable()
