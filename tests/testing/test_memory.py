"""A connection in memory is a socket to a program that uses it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from functools import partial

import hypothesis.strategies as st
import pytest
import trio
import trio.testing
from hypothesis import given, settings

from trio_ipc.testing import (
    MemoryEndpoint,
    MemoryStream,
    memory_streams,
)
from trio_ipc.transports import PeerState

from .outcomes import outcome

if sys.platform == "linux":
    import socket

    from trio_ipc.transports.unix import UnixStream


async def test_it_is_what_trio_asks_of_a_half_closeable_stream() -> None:
    async def make() -> tuple[MemoryStream, MemoryStream]:
        return memory_streams(buffer_bytes=1000)

    async def make_clogged() -> tuple[MemoryStream, MemoryStream]:
        left, right = memory_streams(buffer_bytes=1000)
        left.write(bytes(1000))
        right.write(bytes(1000))
        return left, right

    await trio.testing.check_half_closeable_stream(make, make_clogged)
    await trio.testing.check_two_way_stream(make, make_clogged)


# --- Compared with a socket ---------------------------------------------------------------------------------


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["send", "receive", "eof", "close", "state", "send nothing"]), st.booleans()),
    max_size=20,
)


# What a close does to unread bytes differs on other systems.
if sys.platform == "linux":

    @given(OPERATIONS)
    @settings(deadline=None)
    def test_whatever_is_done_to_both_ends_gives_what_a_unix_socket_gives(
        operations: list[tuple[str, bool]],
    ) -> None:
        async def compare() -> None:
            pair = socket.socketpair()
            real = [UnixStream(end, "s") for end in pair]
            memory = memory_streams()
            for operation, first in operations:
                end = 0 if first else 1
                assert await outcome(operation, memory[end]) == await outcome(operation, real[end]), operation
            for stream in real:
                await stream.aclose()

        trio.run(compare)


@pytest.mark.parametrize("then", ["the peer reads", "the peer ends", "the peer closes"])
async def test_a_full_buffer_is_waited_for_after_the_end_of_file_as_well(then: str) -> None:
    left, right = memory_streams()
    left.write(bytes(1_000_000))
    await left.send_eof()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.wait_send_all_might_not_block)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        if then == "the peer reads":
            right.read(1_000_000)
        elif then == "the peer ends":
            await right.send_eof()
        else:
            await right.aclose()


async def test_its_buffer_is_bounded_and_says_how_much_it_took() -> None:
    left, right = memory_streams(buffer_bytes=10)
    assert left.write(b"x" * 8) == 8
    assert left.write(b"x" * 8) == 2
    assert left.write(b"x") == 0
    assert right.read(3) == b"xxx"
    assert left.write(b"yyyy") == 3
    assert right.read(100) == b"x" * 7 + b"yyy"


async def test_a_sender_waits_for_a_reader_and_loses_nothing() -> None:
    left, right = memory_streams(buffer_bytes=7)
    data = bytes(range(256)) * 10
    received = b""
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await left.send_all(data)
            await left.send_eof()

        nursery.start_soon(send)
        async for piece in right:
            received += piece
    assert received == data


@pytest.mark.parametrize("operation", ["receive_some", "wait_send_all_might_not_block"])
@pytest.mark.parametrize("closer", ["own end", "peer"])
async def test_a_close_wakes_all_who_wait(operation: str, closer: str) -> None:
    left, right = memory_streams(buffer_bytes=1)
    left.write(b"x")
    outcomes: list[object] = []

    async def wait() -> None:
        try:
            outcomes.append(await getattr(left, operation)())
        except trio.ClosedResourceError as exc:
            outcomes.append(type(exc))
        except trio.BrokenResourceError as exc:
            outcomes.append(type(exc))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes == []
        await (left if closer == "own end" else right).aclose()
    if closer == "own end":
        assert outcomes == [trio.ClosedResourceError]
    else:
        # The peer had our byte unread: a read is told so, a write may be tried.
        assert outcomes == [trio.BrokenResourceError if operation == "receive_some" else None]


async def test_a_cancelled_read_and_a_cancelled_write_leave_the_stream_usable() -> None:
    left, right = memory_streams(buffer_bytes=1)
    with trio.move_on_after(0) as scope:
        await right.receive_some()
    assert scope.cancelled_caught
    left.write(b"x")
    with trio.move_on_after(0) as scope:
        await left.wait_send_all_might_not_block()
    assert scope.cancelled_caught
    assert await right.receive_some() == b"x"
    await left.send_all(b"y")
    assert await right.receive_some() == b"y"


async def test_a_close_can_be_counted_and_counts_once() -> None:
    left, right = memory_streams()
    closed: list[str] = []
    left.on_close = lambda: closed.append("left")
    await right.aclose()
    assert closed == []
    await left.aclose()
    left.close()
    assert closed == ["left"]


async def test_wrong_arguments_are_refused() -> None:
    left, _ = memory_streams()
    with pytest.raises(ValueError, match="max_bytes must be at least 1, not 0"):
        await left.receive_some(0)
    for made in (memory_streams, MemoryEndpoint):
        with pytest.raises(ValueError, match="buffer_bytes is 0, must be at least 1"):
            made(buffer_bytes=0)
        with pytest.raises(TypeError, match="buffer_bytes is 1.5, must be an int or None"):
            made(buffer_bytes=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="backlog is 0, must be at least 1"):
        MemoryEndpoint(backlog=0)
    endpoint = MemoryEndpoint()
    async with await endpoint.listen_streams():
        with pytest.raises(TypeError, match="error is 'full', must be an OSError"):
            endpoint.fail_accept("full")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="must be a ConnectError"):
            endpoint.refuse(OSError("no"))  # type: ignore[arg-type]
        await endpoint.connect()


async def test_one_end_can_be_reset_as_by_a_peer_that_has_bytes_unread() -> None:
    left, right = memory_streams()
    await left.send_all(b"before")
    left.reset()
    left.reset()
    assert await right.receive_some() == b"before"
    with pytest.raises(trio.BrokenResourceError, match="the peer closed with bytes unread"):
        await right.receive_some()
    assert await right.receive_some() == b"", "told once, as a socket tells it"
    with pytest.raises(trio.ClosedResourceError):
        await left.receive_some()


@pytest.mark.parametrize("how", ["the peer closes", "this side closes", "both send no more", "gone already"])
async def test_that_the_peer_has_gone_can_be_waited_for(how: str) -> None:
    left, right = memory_streams()
    gone = trio.Event()
    if how == "gone already":
        await right.aclose()

    async def wait() -> None:
        await left.wait_until_gone()
        gone.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await right.send_all(b"x") if how != "gone already" else None
        await right.send_eof() if how == "both send no more" else None
        await trio.testing.wait_all_tasks_blocked()
        assert gone.is_set() == (how == "gone already")
        if how == "the peer closes":
            await right.aclose()
        elif how == "this side closes":
            await left.aclose()
        elif how == "both send no more":
            await left.send_eof()
    assert left.peer_state() is PeerState.GONE


async def test_two_tasks_may_not_do_the_same() -> None:
    left, _right = memory_streams(buffer_bytes=1)
    left.write(b"x")
    endpoint = MemoryEndpoint()
    listener = await endpoint.listen_streams()
    waits: list[Callable[[], Awaitable[object]]] = [
        left.receive_some,
        left.wait_send_all_might_not_block,
        listener.accept,
    ]
    async with trio.open_nursery() as nursery:
        for wait in waits:
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        waits += [left.send_eof, partial(left.send_all, b"y")]
        for wait in waits:
            with pytest.raises(trio.BusyResourceError):
                await wait()
        nursery.cancel_scope.cancel()
