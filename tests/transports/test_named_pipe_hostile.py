"""What a peer may do to a named pipe's stream."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

if sys.platform != "win32":
    pytest.skip("named pipes are Windows' own", allow_module_level=True)
assert sys.platform == "win32"


from tests.transports.pipes import (  # noqa: E402
    blocked,
    no_handle_left,
    pair,
)
from trio_ipc.transports import PeerState  # noqa: E402
from trio_ipc.transports.windows import win32  # noqa: E402
from trio_ipc.transports.windows.pipe import (  # noqa: E402
    NamedPipeStream,
)
from trio_ipc.transports.windows.win32.operations import cancel_operation  # noqa: E402


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


async def test_a_stream_can_be_closed_while_such_a_read_is_in_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
