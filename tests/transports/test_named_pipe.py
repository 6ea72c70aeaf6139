"""Named pipes, on Windows and under Wine. What only real Windows can show is marked so."""

from __future__ import annotations

import errno
import gc
import os
import re
import subprocess
import sys
import threading
import uuid
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

if sys.platform != "win32":
    pytest.skip("named pipes are Windows' own", allow_module_level=True)
assert sys.platform == "win32"

import ctypes  # noqa: E402
from ctypes import wintypes  # noqa: E402

from tests.platforms import fails_under_wine, open_handles  # noqa: E402
from tests.support import succeed  # noqa: E402
from trio_ipc import (  # noqa: E402
    ConfigError,
    ConnectError,
    EndpointError,
    EndpointInUseError,
    EndpointPermissionError,
    IpcConfig,
    OutOfResourcesError,
    ServerNotFoundError,
    serve,
)
from trio_ipc.daemoneye import DETECTION  # noqa: E402
from trio_ipc.transports import PeerPolicy, PeerState, credentials, policy  # noqa: E402
from trio_ipc.transports.windows import win32  # noqa: E402
from trio_ipc.transports.windows.pipe import (  # noqa: E402
    NamedPipeListener,
    NamedPipeStream,
    listen,
    open_named_pipe,
    open_named_pipe_listener,
)
from trio_ipc.transports.windows.win32.operations import cancel_operation  # noqa: E402

Pair = tuple[NamedPipeStream, NamedPipeStream]
MORE_THAN_FITS = bytes(4 * 1024 * 1024)


#: Seconds. A test that waits for ever should fail as itself, and not as the whole run.
DEADLINE = 120


@pytest.fixture
async def deadline() -> AsyncIterator[None]:
    with trio.fail_after(DEADLINE):
        yield


@pytest.fixture
def name(deadline: None) -> str:  # pytest-trio forgets a fixture that nobody asks for
    return f"trio-ipc-test-{uuid.uuid4().hex}"


async def connected_to(listener: NamedPipeListener) -> Pair:
    client = await open_named_pipe(listener.endpoint)
    return client, await listener.accept()


async def new_pair() -> Pair:
    async with await open_named_pipe_listener(uuid.uuid4().hex) as listener:
        return await connected_to(listener)


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    with trio.fail_after(DEADLINE):
        client, server = await new_pair()
        async with client, server:
            yield client, server


@asynccontextmanager
async def no_handle_left(*, threads: int = 4) -> AsyncIterator[None]:
    # Trio's worker threads live on for a while and hold handles of their own: they are made beforehand.
    all_here = threading.Barrier(threads)
    limiter = trio.CapacityLimiter(threads)
    async with trio.open_nursery() as nursery:
        for _ in range(threads):
            nursery.start_soon(lambda: trio.to_thread.run_sync(all_here.wait, limiter=limiter))
    before = open_handles()
    yield
    assert open_handles() <= before


async def blocked(task: Callable[[], Awaitable[object]], nursery: trio.Nursery) -> None:
    nursery.start_soon(task)
    await trio.testing.wait_all_tasks_blocked(0.02)


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


# --- What a peer may do to it -------------------------------------------------------------------------------


class PendingWrite:
    """A write that the pipe has no room for, which its writer can take back."""

    def __init__(self, stream: NamedPipeStream, data: bytes) -> None:
        self._handle = stream._end.handle
        self._data = data
        self._event = win32.create_event()
        self._overlapped = win32.operation(self._event)
        win32.begin_write(self._handle, data, self._overlapped)
        assert not win32.has_completed(self._overlapped)

    def take_back(self) -> None:
        cancel_operation(self._handle, self._overlapped)
        with pytest.raises(OSError, match=r"."):
            win32.result_of(self._handle, self._overlapped)
        win32.close_handle(self._event)


def take_back_once_seen(monkeypatch: pytest.MonkeyPatch, write: PendingWrite) -> None:
    """Let a writer change its mind in the worst moment: between the look at what is there and the read."""
    peek = win32.peek_named_pipe

    def see(handle: int) -> int:
        monkeypatch.setattr(win32, "peek_named_pipe", peek)
        seen = peek(handle)
        assert seen
        write.take_back()
        return seen

    monkeypatch.setattr(win32, "peek_named_pipe", see)


@asynccontextmanager
async def rescued(stream: NamedPipeStream) -> AsyncIterator[None]:
    """Have a thread write a byte after some time, so that a read that holds the event loop ends and fails."""
    over = threading.Event()
    handle = stream._end.handle

    def rescue() -> None:
        if not over.wait(10):
            event = win32.create_event()
            overlapped = win32.operation(event)
            win32.begin_write(handle, b"late", overlapped)
            win32.result_of(handle, overlapped)
            win32.close_handle(event)

    thread = threading.Thread(target=rescue)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def test_a_writer_that_takes_back_what_was_seen_does_not_stop_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pair() as (client, server), no_handle_left(), rescued(client):
        take_back_once_seen(monkeypatch, PendingWrite(client, bytes(140_000)))
        assert server.read(10) is None
        assert server.peer_state() is PeerState.OPEN
        await client.send_all(b"abc")
        assert server.read(10) == b"abc"


def late_to_cancel(stream: NamedPipeStream, peer: NamedPipeStream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a read that finds nothing, with a system that does not cancel it at once."""
    take_back_once_seen(monkeypatch, PendingWrite(peer, bytes(140_000)))
    with monkeypatch.context() as patch:
        patch.setattr(win32, "cancel_operation", lambda *_: None)
        assert stream.read(10) is None
    assert stream.read(10) is None


async def test_a_read_that_is_not_cancelled_at_once_loses_nothing_and_stops_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pair() as (client, server), no_handle_left(), rescued(client):
        late_to_cancel(server, client, monkeypatch)
        with trio.move_on_after(0.01) as scope:
            await server.wait_readable()
        assert scope.cancelled_caught
        await client.send_all(b"abc")
        await server.wait_readable()
        assert server.peer_state() is PeerState.HAS_INPUT
        assert server.read(2) == b"ab"
        await client.send_all(b"d")
        assert await server.receive_some() == b"c"
        assert await server.receive_some() == b"d"


async def test_a_stream_can_be_closed_while_such_a_read_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async with no_handle_left():
        async with pair() as (client, server), rescued(client):
            late_to_cancel(server, client, monkeypatch)
            await server.aclose()
            assert await client.receive_some() == b""
        async with pair() as (client, server), rescued(client), trio.open_nursery() as nursery:
            late_to_cancel(server, client, monkeypatch)

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await server.wait_readable()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await server.aclose()


async def test_closing_between_two_parts_of_a_send_is_noticed() -> None:
    part = 1024 * 1024
    async with pair() as (client, server), trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await client.send_all(bytes(4 * part))

        await blocked(send, nursery)
        taken = 0
        while taken < part:
            data = server.read(min(part - taken, 65_536))
            if data is None:
                await server.wait_readable()
            else:
                taken += len(data)
        client.close()  # before the sender runs again: its first part is through
        await client.aclose()
        assert await server.receive_some() == b""


async def test_closing_between_two_rounds_of_a_read_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Wine never tells a reader that no bytes were written, as Windows does.
    async with pair() as (_, server):

        async def close_and_read_nothing(*_: object) -> int:
            monkeypatch.undo()
            await trio.lowlevel.checkpoint()
            server.close()
            return 0

        monkeypatch.setattr(trio.lowlevel, "readinto_overlapped", close_and_read_nothing)
        with pytest.raises(trio.ClosedResourceError):
            await server.receive_some()
        await server.aclose()


async def test_bytes_that_come_after_none_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair() as (client, server):

        async def read_nothing(*_: object) -> int:
            monkeypatch.undo()
            await trio.lowlevel.checkpoint()
            return 0

        monkeypatch.setattr(trio.lowlevel, "readinto_overlapped", read_nothing)
        await client.send_all(b"x")
        await server.wait_readable()
        assert server.read(10) == b"x"


# --- The listener -------------------------------------------------------------------------------------------


async def test_closing_wakes_a_task_that_accepts_and_frees_the_name(name: str) -> None:
    for _ in range(20):
        listener = await open_named_pipe_listener(name)
        async with trio.open_nursery() as nursery:

            async def accept(listener: NamedPipeListener = listener) -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await listener.accept()

            await blocked(accept, nursery)
            await listener.aclose()
            with pytest.raises(ServerNotFoundError, match="does not exist"):
                await open_named_pipe(name)
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()
        await listener.aclose()


async def test_a_second_task_that_accepts_is_told_so(name: str) -> None:
    async with await open_named_pipe_listener(name) as listener, trio.open_nursery() as nursery:
        await blocked(listener.accept, nursery)
        with pytest.raises(trio.BusyResourceError):
            await listener.accept()
        nursery.cancel_scope.cancel()


async def test_a_cancelled_accept_loses_no_client(name: str) -> None:
    async with await open_named_pipe_listener(name) as listener:
        for _ in range(20):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    await blocked(listener.accept, nursery)
                    scope.cancel()
            client, server = await connected_to(listener)
            async with client, server:
                await client.send_all(b"x")
                assert await server.receive_some() == b"x"


async def test_an_accept_that_is_cancelled_as_a_client_comes_returns_it_or_leaves_it(name: str) -> None:
    accepted: list[NamedPipeStream] = []
    async with await open_named_pipe_listener(name) as listener:

        async def accept(scope: trio.CancelScope) -> None:
            with scope:
                accepted.append(await listener.accept())

        for _ in range(20):
            scope = trio.CancelScope()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(accept, scope)
                await trio.testing.wait_all_tasks_blocked()
                client = await open_named_pipe(name)
                scope.cancel()
            if not accepted:
                accepted.append(await listener.accept())
            async with client, accepted.pop() as server:
                await client.send_all(b"x")
                assert await server.receive_some() == b"x"


async def test_a_client_that_left_before_it_was_accepted_is_still_read(name: str) -> None:
    async with await open_named_pipe_listener(name) as listener:
        async with await open_named_pipe(name) as client:
            await client.send_all(b"farewell")
        async with await listener.accept() as server:
            assert await server.receive_some() == b"farewell"
            assert await server.receive_some() == b""


async def test_a_client_that_was_not_accepted_reads_the_end_when_the_listener_closes(name: str) -> None:
    listener = await open_named_pipe_listener(name)
    async with await open_named_pipe(name) as client:
        await listener.aclose()
        assert await client.receive_some() == b""


async def test_a_client_is_kept_while_no_further_instance_can_be_made(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ctypes.WinError(win32.ERROR_NO_SYSTEM_RESOURCES)

    async with await open_named_pipe_listener(name) as listener, await open_named_pipe(name) as client:
        await client.send_all(b"x")
        with monkeypatch.context() as patch:
            patch.setattr(win32, "create_named_pipe", fail)
            for _ in range(2):
                with pytest.raises(OSError, match=r".") as caught:
                    await listener.accept()
                assert caught.value.errno == errno.ENOBUFS
        async with await listener.accept() as server:
            assert await server.receive_some() == b"x"


# --- Many at a time -----------------------------------------------------------------------------------------


async def echo(server: NamedPipeStream) -> None:
    async with server:
        async for data in server:
            await server.send_all(data)


async def test_a_thousand_connections_in_a_row_leave_no_handle(name: str) -> None:
    async with no_handle_left(), await open_named_pipe_listener(name) as listener:
        for _ in range(1_000):
            client, server = await connected_to(listener)
            await client.aclose()
            await server.aclose()


async def test_a_hundred_at_once_are_all_served_and_leave_no_handle(name: str) -> None:
    answers: list[bytes | bytearray] = []
    all_here = trio.Event()
    here = 0

    async def call(number: int) -> None:
        nonlocal here
        async with await open_named_pipe(name) as client:
            here += 1
            if here == 100:
                all_here.set()
            await all_here.wait()
            await client.send_all(b"%d" % number)
            answers.append(await client.receive_some())

    async with no_handle_left(threads=100), trio.open_nursery() as serving:
        serving.start_soon(trio.serve_listeners, echo, [await open_named_pipe_listener(name)])
        async with trio.open_nursery() as calling:
            for number in range(100):
                calling.start_soon(call, number)
        serving.cancel_scope.cancel()
    assert sorted(int(answer) for answer in answers) == list(range(100))


async def test_clients_wait_for_a_server_that_is_busy(name: str) -> None:
    async with await open_named_pipe_listener(name) as listener, trio.open_nursery() as nursery:
        connected = 0

        async def call() -> None:
            nonlocal connected
            async with await open_named_pipe(name):
                connected += 1

        for _ in range(10):
            nursery.start_soon(call)
        while connected == 0:
            await trio.testing.wait_all_tasks_blocked()
        # The first took the only instance. The others may wait, and wait for nothing else.
        for _ in range(10):
            async with await listener.accept():
                pass


async def test_a_client_that_waits_for_a_busy_server_can_be_cancelled(name: str) -> None:
    async with await open_named_pipe_listener(name), await open_named_pipe(name):
        with trio.move_on_after(0.2) as scope:
            await open_named_pipe(name)
        assert scope.cancelled_caught
        assert trio.current_time() - scope.deadline < 1


async def test_a_client_that_waits_sleeps_between_its_tries(
    name: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    tries = 0
    create = win32.create_file

    def count(*arguments: Any) -> int:
        nonlocal tries
        tries += 1
        return create(*arguments)

    async with await open_named_pipe_listener(name), await open_named_pipe(name):
        monkeypatch.setattr(win32, "create_file", count)
        with trio.move_on_after(10):
            await open_named_pipe(name)
    assert 200 <= tries <= 220  # one in 50 ms, after some quicker ones


async def test_hundreds_of_clients_at_once_are_served_without_a_thread_for_any_of_them(name: str) -> None:
    threads = threading.active_count()
    most = 0
    served = 0

    async def call() -> None:
        nonlocal most, served
        async with await open_named_pipe(name) as client:
            most = max(most, threading.active_count())
            await client.send_all(b"x")
            assert await client.receive_some() == b"x"
            served += 1

    async with trio.open_nursery() as serving:
        serving.start_soon(trio.serve_listeners, echo, [await open_named_pipe_listener(name)])
        async with trio.open_nursery() as calling:
            for _ in range(300):
                calling.start_soon(call)
        serving.cancel_scope.cancel()
    assert served == 300
    assert most <= threads


async def test_a_client_that_waits_learns_that_the_server_has_gone(name: str) -> None:
    listener = await open_named_pipe_listener(name)
    async with await open_named_pipe(name) as first, trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(ServerNotFoundError):
                await open_named_pipe(name)

        nursery.start_soon(call)
        await trio.sleep(0.1)
        await listener.aclose()
        assert await first.receive_some() == b""


SERVER = """
import sys, trio
from trio_ipc.transports.windows.pipe import open_named_pipe_listener

async def main():
    async with await open_named_pipe_listener(sys.argv[1]) as listener:
        print("listening", flush=True)
        while True:
            stream = await listener.accept()
            await stream.send_all(await stream.receive_some() + b", and the rest never co")
            async with stream:
                await trio.sleep_forever()

trio.run(main)
"""


async def test_a_server_killed_in_mid_answer_leaves_no_handle(name: str) -> None:
    async with no_handle_left():
        server = await trio.lowlevel.open_process(
            [sys.executable, "-c", SERVER, name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert server.stdout is not None
        async with server.stdout:
            assert await server.stdout.receive_some()
            async with await open_named_pipe(name) as client:
                assert client.peer.pid == server.pid
                assert client.peer.sid == credentials.user_of(win32.current_process())
                await client.send_all(b"an answer")
                assert await client.receive_some() == b"an answer, and the rest never co"
                server.kill()
                assert await client.receive_some() == b""
                with pytest.raises(trio.BrokenResourceError):
                    await client.send_all(b"x")
            await server.wait()
        del server
        with pytest.raises(ServerNotFoundError):
            await open_named_pipe(name)


# --- Who may, and who does ----------------------------------------------------------------------------------


async def test_each_side_knows_the_other_ones_process_and_user() -> None:
    async with pair() as (client, server):
        for stream in (client, server):
            assert stream.peer.pid == os.getpid()
            assert stream.peer.sid == credentials.user_of(win32.current_process())
            assert PeerPolicy.own_user_and_root().allows(stream.peer)
            assert not PeerPolicy.users({"S-1-5-18"}).allows(stream.peer)


async def test_names_are_in_full_on_both_sides(name: str) -> None:
    async with await open_named_pipe_listener(name) as listener:
        client, server = await connected_to(listener)
        async with client, server:
            assert listener.endpoint == client.endpoint == server.endpoint == rf"\\.\pipe\{name}"


@pytest.mark.parametrize("name", ["", r"\\server\pipe\x", "a/b", "x" * 248])
async def test_a_wrong_name_is_refused_by_both_sides(name: str) -> None:
    with pytest.raises(ConfigError):
        await open_named_pipe(name)
    with pytest.raises(ConfigError):
        await open_named_pipe_listener(name)


def dacl_of(stream: NamedPipeStream) -> str:
    """Read the access list back from the pipe itself (GetSecurityInfo)."""
    advapi32 = ctypes.WinDLL("advapi32")
    dacl_information, kernel_object = 4, 6
    descriptor, text = ctypes.c_void_p(), wintypes.LPWSTR()
    with stream._end.in_use() as handle:
        error = advapi32.GetSecurityInfo(
            wintypes.HANDLE(handle),
            kernel_object,
            dacl_information,
            None,
            None,
            None,
            None,
            ctypes.byref(descriptor),
        )
    assert error == 0
    assert advapi32.ConvertSecurityDescriptorToStringSecurityDescriptorW(
        descriptor, 1, dacl_information, ctypes.byref(text), None
    )
    assert text.value is not None
    return text.value


def entries_of(dacl: str) -> dict[str, str]:
    """The rights that an access list allows, by security identifier; their usual spellings undone."""
    rights = {}
    for entry in re.findall(r"\(([^)]*)\)", dacl):
        kind, flags, right, *_, trustee = entry.split(";")
        assert (kind, flags) == ("A", "")
        if not trustee.startswith("S-"):
            trustee = sid_of_alias(trustee)
        rights[trustee] = {"GA": "FA", "0x1f01ff": "FA"}.get(right, right)
    return rights


def sid_of_alias(alias: str) -> str:
    known = ["S-1-5-18", "S-1-5-11", credentials.user_of(win32.current_process())]
    [sid] = {
        sid
        for sid in known
        if win32.security_descriptor(f"O:{sid}") == win32.security_descriptor(f"O:{alias}")
    }
    return sid


async def test_the_owner_and_system_may_connect_and_nobody_else() -> None:
    user = credentials.user_of(win32.current_process())
    async with pair() as (_, server):
        found = dacl_of(server)
    assert found.startswith("D:P")
    assert entries_of(found) == {"S-1-5-18": "FA", user: "FA"}


USER, GUEST = "S-1-5-21-1004336348-1177238915-682003330-1001", "S-1-5-21-1004336348-1177238915-682003330-501"


async def test_whom_a_policy_allows_may_connect_and_not_serve(name: str) -> None:
    me = credentials.user_of(win32.current_process())
    own = {"S-1-5-18": "FA", me: "FA"}
    for peers, expected in (
        (PeerPolicy.own_user_and_root(), own),
        (PeerPolicy.users([]), own),
        (PeerPolicy.users([USER, me, GUEST]), {**own, USER: "0x12019b", GUEST: "0x12019b"}),
        (PeerPolicy.anyone(), {**own, "S-1-5-11": "0x12019b"}),
    ):
        async with await listen(name, peers) as listener:
            client, server = await connected_to(listener)
            async with client, server:
                found = dacl_of(server)
                assert found.startswith("D:P")
                assert entries_of(found) == expected
                with client._end.in_use() as handle:
                    assert win32.owner(handle) == me


async def test_a_server_gives_its_pipe_the_policy_that_it_was_given(name: str) -> None:
    config = IpcConfig(endpoint_path=name)
    for peers, also in (
        (None, set()),
        (PeerPolicy.users([USER]), {USER}),
        (PeerPolicy.anyone(), {"S-1-5-11"}),
    ):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, succeed, DETECTION, config, peers=peers))
            async with await open_named_pipe(name) as client:
                assert entries_of(dacl_of(client)).keys() == {
                    "S-1-5-18",
                    credentials.user_of(win32.current_process()),
                    *also,
                }
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("user", [7, "BU", "somebody", f"{USER})(A;;GA;;;WD", f"{USER}\n", ""])
async def test_a_user_who_is_no_security_identifier_is_refused(name: str, user: int | str) -> None:
    with pytest.raises(ConfigError, match="which is no security identifier"):
        await listen(name, PeerPolicy.users([user]))


@pytest.mark.parametrize("group", ["S-1-1-0", "S-1-5-11", "S-1-5-32-544", "S-1-5-32-545"])
def test_a_groups_identifier_is_refused_at_once(group: str) -> None:
    """Everyone, who has logged on, administrators, users: no process runs as any of them."""
    with pytest.raises(ConfigError, match=f"allows {group}, which is a .*group.* and no user; name its mem"):
        PeerPolicy.users([group])


def test_users_services_and_whom_the_system_cannot_place_are_users() -> None:
    me = credentials.user_of(win32.current_process())
    users = [me, USER, GUEST, "S-1-5-18", "S-1-5-19", "S-1-5-20", "S-1-5-80-1-2-3-4-5"]
    assert PeerPolicy.users(users).allowed == frozenset(users)


def test_a_single_string_and_a_group_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="must be a list of users"):
        PeerPolicy.users("S-1-5-18")
    with pytest.raises(ConfigError, match="groups are judged on Unix only; name the users"):
        PeerPolicy.group("S-1-5-32-544")
    with pytest.raises(ConfigError, match="socket_group is 'users', must be left out on Windows"):
        IpcConfig(socket_group="users")


def refuse_all(monkeypatch: pytest.MonkeyPatch, *calls: str) -> None:
    def refuse(*_: object) -> int:
        raise ctypes.WinError(win32.ERROR_ACCESS_DENIED)

    for call in calls:
        monkeypatch.setattr(win32, call, refuse)


async def test_a_process_that_may_not_be_looked_into_is_known_by_what_it_lends_or_owns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse_all(monkeypatch, "open_process")
    async with pair() as (client, server):
        assert PeerPolicy.own_user_and_root().allows(client.peer)
        assert PeerPolicy.own_user_and_root().allows(server.peer)
        assert server.peer.sid == credentials.user_of(win32.current_process())


async def test_a_client_that_lends_nothing_is_known_by_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_all(monkeypatch, "open_client_token")
    async with pair() as (_, server):
        assert server.peer.sid == credentials.user_of(win32.current_process())
    refuse_all(monkeypatch, "open_process")
    async with pair() as (_, server):
        assert server.peer.sid is None
        assert not PeerPolicy.own_user_and_root().allows(server.peer)


async def test_a_clients_token_is_put_off_again_at_once() -> None:
    advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel32.GetCurrentThread.restype = wintypes.HANDLE
    token_query, no_token = 0x8, 1008
    async with pair() as (client, server), no_handle_left():
        with server._end.in_use() as handle:
            win32.close_handle(win32.open_client_token(handle))
        thread, token = wintypes.HANDLE(kernel32.GetCurrentThread()), wintypes.HANDLE()
        assert not advapi32.OpenThreadToken(thread, token_query, True, ctypes.byref(token))
        assert ctypes.get_last_error() == no_token
        assert gc.isenabled()
        with client._end.in_use() as handle, pytest.raises(OSError, match=r"."):
            win32.open_client_token(handle)  # a client's end is lent nothing
        assert gc.isenabled()


async def test_of_the_administrators_pipes_the_process_tells_whose_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(win32, "owner", lambda _: "S-1-5-32-544")
    async with pair() as (client, _):
        assert client.peer.sid == credentials.user_of(win32.current_process())
    refuse_all(monkeypatch, "open_process")
    async with pair() as (client, _):
        assert client.peer.sid == "S-1-5-32-544"


async def test_the_descriptor_can_be_chosen(name: str) -> None:
    chosen = policy.descriptor_for(PeerPolicy.own_user_and_root()) + "(A;;GRGW;;;BU)"
    async with await open_named_pipe_listener(name, sddl=chosen) as listener:
        client, server = await connected_to(listener)
        async with client, server:
            assert ";;;BU)" in dacl_of(server)


async def test_a_descriptor_without_meaning_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="'everyone, please'"):
        await open_named_pipe_listener(name, sddl="everyone, please")


@fails_under_wine("a pipe's access list is kept and not enforced", versions=[8, 10])
async def test_a_user_whom_the_descriptor_does_not_name_cannot_connect(name: str) -> None:
    async with await open_named_pipe_listener(name, sddl="D:P(A;;GA;;;SY)"):
        with pytest.raises(EndpointPermissionError):
            async with await open_named_pipe(name):
                pass


@fails_under_wine("a pipe's access list is kept and not enforced", versions=[8, 10])
async def test_who_may_connect_need_not_be_able_to_serve(name: str) -> None:
    # All that GENERIC_READ and GENERIC_WRITE mean, less FILE_CREATE_PIPE_INSTANCE.
    sddl = f"D:P(A;;0x12019b;;;{credentials.user_of(win32.current_process())})"
    async with await open_named_pipe_listener(name, sddl=sddl) as listener, await open_named_pipe(name):
        with pytest.raises(EndpointError, match="further instance"):
            async with await listener.accept():
                pass


@fails_under_wine("the level of impersonation that a client allows is ignored", versions=[8, 10])
async def test_a_server_learns_who_the_client_is_and_cannot_act_for_it() -> None:
    advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel32.GetCurrentThread.restype = wintypes.HANDLE
    token_query, level_of_impersonation, identification = 0x8, 9, 1
    async with pair() as (client, server):
        await client.send_all(b"x")
        await server.receive_some()
        token, level, size = wintypes.HANDLE(), wintypes.DWORD(), wintypes.DWORD()
        with server._end.in_use() as handle:
            assert advapi32.ImpersonateNamedPipeClient(wintypes.HANDLE(handle))
        try:
            thread = wintypes.HANDLE(kernel32.GetCurrentThread())
            assert advapi32.OpenThreadToken(thread, token_query, True, ctypes.byref(token))
        finally:
            assert advapi32.RevertToSelf()
        assert token.value is not None
        assert advapi32.GetTokenInformation(
            token, level_of_impersonation, ctypes.byref(level), ctypes.sizeof(level), ctypes.byref(size)
        )
        win32.close_handle(token.value)
        assert level.value == identification


@fails_under_wine("FILE_FLAG_FIRST_PIPE_INSTANCE is ignored", versions=[8, 10])
async def test_a_name_that_is_served_is_refused_and_says_by_whom(name: str) -> None:
    async with await open_named_pipe_listener(name):
        with pytest.raises(EndpointInUseError, match=f"in use by process {os.getpid()}") as caught:
            async with await open_named_pipe_listener(name):
                pass
        assert caught.value.pid == os.getpid()


# The same once more with Windows' answers played to it, so that what is made of them is tested under Wine.


def refuse_first_instances(monkeypatch: pytest.MonkeyPatch, times: float) -> None:
    create = win32.create_named_pipe
    refused = 0

    def refuse(path: str, open_mode: int, *args: Any, **kwargs: Any) -> int:
        nonlocal refused
        if open_mode & win32.FILE_FLAG_FIRST_PIPE_INSTANCE and refused < times:
            refused += 1
            raise ctypes.WinError(win32.ERROR_ACCESS_DENIED)
        return create(path, open_mode, *args, **kwargs)

    monkeypatch.setattr(win32, "create_named_pipe", refuse)


async def test_a_refused_name_that_is_served_is_in_use(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await open_named_pipe_listener(name):
        refuse_first_instances(monkeypatch, times=1)
        with pytest.raises(EndpointInUseError, match=f"in use by process {os.getpid()}") as caught:
            await open_named_pipe_listener(name)
        assert caught.value.pid == os.getpid()


async def test_a_refused_name_that_is_served_and_busy_is_in_use(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await open_named_pipe_listener(name), await open_named_pipe(name):
        refuse_first_instances(monkeypatch, times=1)
        with pytest.raises(EndpointInUseError, match="in use by another process") as caught:
            await open_named_pipe_listener(name)
        assert caught.value.pid is None


async def test_a_name_that_only_clients_held_on_to_is_had_once_they_let_go(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_first_instances(monkeypatch, times=3)
    async with await open_named_pipe_listener(name) as listener:
        client, server = await connected_to(listener)
        await client.aclose()
        await server.aclose()


async def test_a_refused_name_that_nobody_serves_is_given_up_in_the_end(
    name: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    refuse_first_instances(monkeypatch, times=float("inf"))
    with pytest.raises(EndpointError, match="nobody listens") as caught:
        await open_named_pipe_listener(name)
    assert not isinstance(caught.value, EndpointInUseError)
    assert 1 <= autojump_clock.current_time() < 1.1


@pytest.mark.parametrize(
    ("winerror", "error"),
    [
        (win32.ERROR_FILE_NOT_FOUND, ServerNotFoundError),
        (win32.ERROR_ACCESS_DENIED, EndpointPermissionError),
        (win32.ERROR_NO_SYSTEM_RESOURCES, OutOfResourcesError),
    ],
)
async def test_what_the_system_says_to_a_client_becomes_the_precise_error(
    name: str, winerror: int, error: type[ConnectError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise ctypes.WinError(winerror)

    monkeypatch.setattr(win32, "create_file", refuse)
    with pytest.raises(ConnectError) as caught:
        await open_named_pipe(name)
    assert type(caught.value) is error
    assert caught.value.endpoint == rf"\\.\pipe\{name}"
    assert isinstance(caught.value.__cause__, OSError)


async def test_another_failure_to_listen_says_its_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise ctypes.WinError(win32.ERROR_NO_SYSTEM_RESOURCES)

    monkeypatch.setattr(win32, "create_named_pipe", refuse)
    with pytest.raises(EndpointError, match="error 1450"):
        await open_named_pipe_listener(name)


async def test_a_system_that_does_not_tell_who_the_peer_is_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse_all(monkeypatch, "owner", "open_client_token", "open_process")
    for call in (None, "server_process_id"):
        if call is not None:
            refuse_all(monkeypatch, call)
        async with pair() as (client, _):
            assert client.peer.sid is None
            assert (client.peer.pid is None) == (call == "server_process_id")
            assert not PeerPolicy.own_user_and_root().allows(client.peer)
            assert PeerPolicy.anyone().allows(client.peer)
