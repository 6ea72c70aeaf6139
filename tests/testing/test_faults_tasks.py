"""Several tasks at one stream with faults: what one of them finds is not lost to another."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.platforms import unix_only
from trio_ipc.testing import Faults, Reset, at_byte, memory_streams
from trio_ipc.transports import LocalStream, PeerState


def over_a_socket() -> tuple[LocalStream, LocalStream]:
    if sys.platform != "win32":
        import socket

        from trio_ipc.transports.unix import UnixStream

        near, far = socket.socketpair()
        return UnixStream(near, "near"), UnixStream(far, "far")
    raise AssertionError("for Unix only")


kinds = pytest.mark.parametrize(
    "make", [memory_streams, pytest.param(over_a_socket, marks=unix_only)], ids=["memory", "socket"]
)
Make = Callable[[], tuple[LocalStream, LocalStream]]


async def look(stream: LocalStream, how: str) -> None:
    if how == "peer_state":
        stream.peer_state()
    elif how == "send_all":
        await stream.send_all(b"x")
    else:
        await stream.wait_send_all_might_not_block()


class Reader:
    """Reads once, in a task of its own."""

    def __init__(self, stream: LocalStream) -> None:
        self.stream = stream
        self.read: list[bytes] = []
        self.done = trio.Event()

    async def run(self) -> None:
        self.read.append(bytes(await self.stream.receive_some()))
        self.done.set()


@kinds
@pytest.mark.parametrize("how", ["peer_state", "send_all", "wait_send_all_might_not_block"])
async def test_a_reader_gets_what_another_task_has_found(make: Make, how: str) -> None:
    near, far = make()
    async with near, far, Faults().wrap(near) as faulty, trio.open_nursery() as nursery:
        reader = Reader(faulty)
        nursery.start_soon(reader.run)
        await trio.testing.wait_all_tasks_blocked()
        assert far.write(b"response") == 8
        await look(faulty, how)
        with trio.fail_after(5):
            await reader.done.wait()
        assert reader.read == [b"response"]


@kinds
@pytest.mark.parametrize("how", ["peer_state", "send_all", "wait_send_all_might_not_block"])
async def test_a_reader_gets_what_came_before_a_reset_that_another_task_has_found(
    make: Make, how: str
) -> None:
    near, far = make()
    faults = Faults(receiving=[at_byte(4, Reset())])
    async with near, far, faults.wrap(near) as faulty, trio.open_nursery() as nursery:
        reader = Reader(faulty)
        nursery.start_soon(reader.run)
        await trio.testing.wait_all_tasks_blocked()
        assert far.write(b"response") == 8
        faulty.peer_state()  # at once, so that the reader has no turn before
        if how != "peer_state":
            with pytest.raises(trio.BrokenResourceError):
                await look(faulty, how)
        with trio.fail_after(5):
            await reader.done.wait()
        assert reader.read == [b"resp"]
        with pytest.raises(trio.BrokenResourceError):
            await faulty.receive_some()


@kinds
@pytest.mark.parametrize("first", ["found", "cancelled"])
async def test_a_reader_that_is_cancelled_as_another_task_finds_bytes_loses_none(
    make: Make, first: str
) -> None:
    near, far = make()
    scope = trio.CancelScope()
    ended = trio.Event()
    async with near, far, Faults().wrap(near) as faulty, trio.open_nursery() as nursery:
        reader = Reader(faulty)

        async def run() -> None:
            with scope:
                await reader.run()
            ended.set()

        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        if first == "cancelled":
            scope.cancel()
        assert far.write(b"response") == 8
        assert faulty.peer_state() is PeerState.HAS_INPUT
        scope.cancel()
        await ended.wait()
        # In memory the bytes have woken it before.
        assert scope.cancelled_caught == (first == "cancelled" or make is not memory_streams)
        if scope.cancelled_caught:
            reader.read.append(bytes(await faulty.receive_some()))
        assert reader.read == [b"response"]
