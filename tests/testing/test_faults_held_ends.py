"""Ends in sending that a pause holds up: they come when it is over, whether anything is sent or not."""

from __future__ import annotations

import contextlib

import pytest
import trio
import trio.testing

from tests.support import read_to_end
from trio_ipc.testing import (
    Delay,
    Dribble,
    EndOfFile,
    Faults,
    MemoryStream,
    Reset,
    Rule,
    Stall,
    at_byte,
    memory_streams,
)
from trio_ipc.transports import LocalStream, PeerState

ENDS: list[Reset | EndOfFile] = [Reset(), EndOfFile()]
ends = pytest.mark.parametrize("end", ENDS, ids=str)


async def read_on(stream: LocalStream) -> None:
    """Read as a client does that waits for its response."""
    with contextlib.suppress(trio.BrokenResourceError):
        assert await read_to_end(stream) == b""


async def ended_after(far: MemoryStream, expected: bytes) -> float:
    """Seconds until the peer sees the end, with these bytes before it."""
    began = trio.current_time()
    with trio.fail_after(100):
        assert await read_to_end(far) == expected
    return trio.current_time() - began


@ends
@pytest.mark.parametrize(
    ("rules", "sends_for"),
    [
        ([at_byte(3, Delay(5))], 0),
        ([at_byte(3, Delay(2)), at_byte(3, Delay(3))], 0),
        ([at_byte(0, Dribble(1, 5))], 10),
    ],
    ids=["a pause", "two", "pieces"],
)
async def test_an_end_behind_the_last_byte_comes_while_the_wrapped_side_reads(
    rules: list[Rule], sends_for: int, end: Reset | EndOfFile, autojump_clock: trio.testing.MockClock
) -> None:
    near, far = memory_streams()
    faults = Faults(sending=[*rules, at_byte(3, end)])
    faulty = faults.wrap(near)
    began = trio.current_time()
    await faulty.send_all(b"abc")
    assert trio.current_time() - began == pytest.approx(sends_for), "the bytes are through"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_on, faulty)
        assert await ended_after(far, b"abc") == pytest.approx(5)
        await far.aclose()
    assert f"stream 1 sending byte 3: {end}" in faults.hits


@ends
async def test_an_end_before_the_first_byte_does_not_come_before_its_pause_is_over(
    end: Reset | EndOfFile, autojump_clock: trio.testing.MockClock
) -> None:
    near, far = memory_streams()
    faulty = Faults(sending=[at_byte(0, Delay(5)), at_byte(0, end)]).wrap(near)
    assert far.peer_state() is PeerState.OPEN
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_on, faulty)
        assert await ended_after(far, b"") == pytest.approx(5)
        await far.aclose()


async def test_an_end_before_the_first_byte_comes_as_soon_as_the_wrapped_side_reads() -> None:
    near, far = memory_streams()
    faulty = Faults(sending=[at_byte(0, EndOfFile())]).wrap(near)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_on, faulty)
        with trio.fail_after(5):
            assert await read_to_end(far) == b""
        await far.aclose()


@ends
@pytest.mark.parametrize("fault", [Stall(), Delay(60)], ids=str)
async def test_an_end_comes_though_something_holds_up_what_is_read(
    fault: Stall | Delay, end: Reset | EndOfFile, autojump_clock: trio.testing.MockClock
) -> None:
    near, far = memory_streams()
    plan = Faults(sending=[at_byte(1, Delay(5)), at_byte(1, end)], receiving=[at_byte(0, fault)])
    faulty = plan.wrap(near)
    await far.send_all(b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_on, faulty)
        await trio.testing.wait_all_tasks_blocked()
        # The end is known only when the reader waits already.
        await faulty.send_all(b"a")
        assert await ended_after(far, b"a") == pytest.approx(5)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("look", ["peer_state", "send_all"])
async def test_who_looks_in_time_sees_the_reset(look: str, autojump_clock: trio.testing.MockClock) -> None:
    near, far = memory_streams()
    faulty = Faults(sending=[at_byte(1, Delay(5)), at_byte(1, Reset())]).wrap(near)
    await faulty.send_all(b"a")
    await trio.sleep(4)
    assert faulty.peer_state() is PeerState.OPEN
    await trio.sleep(2)
    if look == "peer_state":
        assert faulty.peer_state() is PeerState.GONE
    else:
        with pytest.raises(trio.BrokenResourceError):
            await faulty.send_all(b"b")
    assert await read_to_end(far) == b"a"


async def test_a_send_that_was_cancelled_before_the_end_leaves_it_to_the_reader(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = memory_streams()
    faulty = Faults(sending=[at_byte(1, Delay(5)), at_byte(1, EndOfFile())]).wrap(near)
    await faulty.send_all(b"a")
    with trio.move_on_after(2):
        await faulty.send_all(b"lost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_on, faulty)
        assert await ended_after(far, b"a") == pytest.approx(3)
        await far.aclose()


async def test_a_reader_that_is_cancelled_as_the_end_is_due_leaves_it_to_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = memory_streams()
    faulty = Faults(sending=[at_byte(1, Delay(5)), at_byte(1, EndOfFile())]).wrap(near)
    await faulty.send_all(b"a")
    await trio.sleep(5)
    with trio.CancelScope() as scope:
        scope.cancel()
        await faulty.wait_readable()
    assert scope.cancelled_caught
    assert far.read(9) == b"a"
    assert far.peer_state() is PeerState.OPEN
    with trio.move_on_after(1):
        await faulty.receive_some()
    assert far.peer_state() is PeerState.HALF_CLOSED
