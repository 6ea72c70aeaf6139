"""When faults in receiving are seen: whatever else is unread, and while a send waits."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.support import read_to_end
from trio_ipc.testing import (
    Delay,
    Faults,
    Merge,
    Reset,
    Rule,
    Split,
    at_byte,
    memory_streams,
)
from trio_ipc.transports import PeerState
from trio_ipc.transports.duplex import READ_SIZE

# --- While something is unread ------------------------------------------------------------------------------


@pytest.mark.parametrize("look", ["peer_state", "send_all", "receive_some"])
async def test_a_reset_is_seen_though_something_before_it_is_unread(look: str) -> None:
    near, far = memory_streams()
    faults = Faults(receiving=[at_byte(8, Reset())])
    faulty = faults.wrap(near)
    await far.send_all(b"abcd")
    assert await faulty.receive_some(1) == b"a"
    await far.send_all(b"efgh")
    if look == "peer_state":
        assert faulty.peer_state() is PeerState.GONE
    elif look == "send_all":
        with pytest.raises(trio.BrokenResourceError, match="the script of faults"):
            await faulty.send_all(b"the next request")
    else:
        assert await faulty.receive_some(1) == b"b"
    assert faults.hits == ["stream 1 receiving byte 8: Reset()"]
    assert await read_to_end(far) == b""
    for left in [b"cd" if look == "receive_some" else b"bcd", b"efgh"]:
        assert await faulty.receive_some() == left
    with pytest.raises(trio.BrokenResourceError):
        await faulty.receive_some()


@pytest.mark.parametrize("rules", [[], [at_byte(5, Split())]], ids=["a piece", "a whole one"])
async def test_a_pause_begins_though_something_before_it_is_unread(
    rules: list[Rule], autojump_clock: trio.testing.MockClock
) -> None:
    near, far = memory_streams()
    faulty = Faults(receiving=[*rules, at_byte(10, Delay(5))]).wrap(near)
    await far.send_all(b"a" * 10)
    assert await faulty.receive_some(5) == b"a" * 5
    await far.send_all(b"b")
    assert faulty.peer_state() is PeerState.HAS_INPUT
    began = trio.current_time()
    await trio.sleep(4)
    assert await faulty.receive_some() == b"a" * 5
    assert await faulty.receive_some() == b"b"
    assert trio.current_time() - began == pytest.approx(5)


async def test_no_more_is_taken_ahead_of_a_reader_than_one_read_gives() -> None:
    near, far = memory_streams()
    faulty = Faults(receiving=[at_byte(READ_SIZE + 100, Reset())]).wrap(near)
    assert far.write(bytes(READ_SIZE + 100)) == READ_SIZE + 100
    await faulty.send_all(b"seen too late")
    assert near.peer_state() is PeerState.HAS_INPUT
    assert await faulty.receive_some(99) == bytes(99)
    await faulty.send_all(b", too late")
    assert await faulty.receive_some(1) == bytes(1)
    with pytest.raises(trio.BrokenResourceError):
        await faulty.send_all(b"and now in time")
    assert await faulty.receive_some() == bytes(READ_SIZE - 100)
    assert await faulty.receive_some() == bytes(99)
    assert await faulty.receive_some() == bytes(1)


# --- While a send waits -------------------------------------------------------------------------------------


async def test_what_waits_in_a_pause_is_not_sent_after_a_reset_has_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = memory_streams()
    faults = Faults(sending=[at_byte(3, Delay(5))], receiving=[at_byte(4, Reset())])
    faulty = faults.wrap(near)
    await faulty.send_all(b"one")
    assert await far.receive_some() == b"one"

    async def send() -> None:
        with pytest.raises(trio.BrokenResourceError, match="the script of faults"):
            await faulty.send_all(b"two")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.sleep(1)
        await far.send_all(b"resp")
        assert await read_to_end(far) == b""
    assert "stream 1 receiving byte 4: Reset()" in faults.hits


async def test_what_waits_for_room_is_not_sent_after_a_reset_has_come() -> None:
    near, far = memory_streams(buffer_bytes=1_000)
    faulty = Faults(receiving=[at_byte(4, Reset())]).wrap(near)

    async def send() -> None:
        with pytest.raises(trio.BrokenResourceError, match="the script of faults"):
            await faulty.send_all(bytes(3_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        await far.send_all(b"resp")
        assert await read_to_end(far) == bytes(1_000)


async def test_there_is_no_room_on_a_connection_that_has_broken_meanwhile() -> None:
    near, far = memory_streams(buffer_bytes=1_000)
    faulty = Faults(receiving=[at_byte(4, Reset())]).wrap(near)
    await faulty.send_all(bytes(1_000))

    async def wait() -> None:
        with pytest.raises(trio.BrokenResourceError, match="the script of faults"):
            await faulty.wait_send_all_might_not_block()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await far.send_all(b"resp")
        assert await far.receive_some() == bytes(1_000)


async def test_what_is_kept_back_is_not_sent_by_a_close_after_a_reset_has_come() -> None:
    near, far = memory_streams()
    faulty = Faults(sending=[at_byte(0, Merge(100))], receiving=[at_byte(4, Reset())]).wrap(near)
    await faulty.send_all(b"kept")
    await far.send_all(b"resp")
    await faulty.aclose()
    assert await read_to_end(far) == b""
