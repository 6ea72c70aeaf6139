"""Faults that end a connection, slow it down or stall it, and when they count as hits."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
import trio
import trio.testing

from tests.platforms import unix_only
from tests.support import read_to_end, succeed, success, task
from trio_ipc import (
    Call,
    PeerClosedError,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import (
    Delay,
    Dribble,
    Drop,
    Duplicate,
    EndOfFile,
    Fault,
    Faults,
    Flip,
    Merge,
    Reset,
    Rule,
    Split,
    Stall,
    Truncate,
    at_byte,
    at_frame,
    memory_streams,
    open_pair,
    temporary_endpoint,
)
from trio_ipc.transports import LocalStream, PeerState

# --- What is kept back until the end ------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["send_eof", "aclose"])
@pytest.mark.parametrize(
    ("fault", "expected"), [(Merge(100), b"GET /"), (Duplicate(100), b"GET /GET /")], ids=str
)
async def test_what_is_kept_back_in_sending_goes_at_either_end(
    end: str, fault: Merge | Duplicate, expected: bytes
) -> None:
    with Faults(sending=[at_byte(0, fault)]) as faults:
        near, far = memory_streams()
        stream = faults.wrap(near)
        await stream.send_all(b"GET /")
        await getattr(stream, end)()
        assert await read_to_end(far) == expected
        assert len(faults.hits) == 1


@pytest.mark.parametrize("ending", [Stall(), Reset(), EndOfFile()], ids=str)
async def test_what_is_kept_back_is_not_sent_behind_an_end(
    ending: Fault, autojump_clock: trio.testing.MockClock
) -> None:
    faults = Faults(sending=[at_byte(2, ending), at_byte(3, Merge(100))])
    near, far = memory_streams()
    stream = faults.wrap(near)
    with trio.move_on_after(1), suppress(trio.BrokenResourceError):
        await stream.send_all(b"GET /")
    await stream.aclose()
    assert await read_to_end(far) == b"GE"


async def test_closing_with_bytes_kept_back_needs_no_peer_and_no_room() -> None:
    for peer_closes in True, False:
        faults = Faults(sending=[at_byte(1, Merge(100))])
        near, far = memory_streams(buffer_bytes=1)
        stream = faults.wrap(near)
        await stream.send_all(b"GET /")
        if peer_closes:
            await far.aclose()
        await stream.aclose()


# --- What ends a connection ---------------------------------------------------------------------------------


async def test_a_reset_in_receiving_breaks_the_connection_at_once_and_nothing_more_is_handled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    handled = []

    async def handle(request: DetectionTask, call: Call) -> DetectionResult:
        handled.append(request.task_id)
        return await succeed(request, call)

    faults = Faults(receiving=[at_frame(2, Reset())])
    async with open_pair(handle, DETECTION, wrap=faults.wrap) as (client, server):
        assert await client.call(task("1")) == success("1")
        await trio.sleep(10)
        assert server.snapshot().connections_active == 0
        assert len(faults.hits) == 1
        with pytest.raises(PeerClosedError):
            await client.call(task("2"))
    assert handled == ["1"]


async def test_a_reset_in_receiving_comes_before_what_is_sent_after_it_though_nobody_has_read() -> None:
    near, far = memory_streams()
    faults = Faults(receiving=[at_byte(2, Reset())])
    faulty = faults.wrap(near)
    await far.send_all(b"abc")
    with pytest.raises(trio.BrokenResourceError, match="the script of faults"):
        await faulty.send_all(b"request")
    assert await read_to_end(far) == b""
    assert await faulty.receive_some() == b"ab"
    assert faults.hits == ["stream 1 receiving byte 2: Reset()"]


async def test_a_reset_in_receiving_comes_behind_what_is_before_it() -> None:
    near, far = memory_streams()
    faulty = Faults(receiving=[at_byte(2, Reset())]).wrap(near)
    await far.send_all(b"abc")
    assert faulty.read(1) == b"a"
    assert await far.receive_some() == b"", "broken already, for the peer"
    assert faulty.peer_state() is PeerState.GONE
    with pytest.raises(trio.BrokenResourceError):
        await faulty.send_all(b"x")
    assert await faulty.receive_some() == b"b"
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match="the script of faults"):
            await faulty.receive_some()


async def test_a_reset_behind_a_pause_comes_when_the_pause_is_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = memory_streams()
    faulty = Faults(receiving=[at_byte(1, Delay(5)), at_byte(1, Reset())]).wrap(near)
    await far.send_all(b"ab")
    assert await faulty.receive_some() == b"a"
    await trio.sleep(4)
    await faulty.send_all(b"still there")
    await trio.sleep(2)
    with pytest.raises(trio.BrokenResourceError):
        await faulty.send_all(b"not any more")
    assert await read_to_end(far) == b"still there"


@pytest.mark.parametrize("direction", ["sending", "receiving"])
async def test_a_reset_before_the_first_byte_breaks_a_stream_as_it_is_wrapped(direction: str) -> None:
    near, far = memory_streams()
    faults = Faults(**{direction: [at_byte(0, Reset())]})  # type: ignore[arg-type]
    faulty = faults.wrap(near)
    assert far.peer_state() is PeerState.GONE
    assert faulty.peer_state() is PeerState.GONE
    assert faults.hits == [f"stream 1 {direction} byte 0: Reset()"]
    with pytest.raises(trio.BrokenResourceError):
        await faulty.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await faulty.send_all(b"")


# --- Slowness -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rules",
    [[at_byte(0, Delay(2)), at_byte(1, Delay(2))], [at_byte(0, Delay(2)), at_byte(0, Dribble(1, 2))]],
    ids=str,
)
async def test_a_pause_in_receiving_begins_when_the_byte_has_come(
    rules: list[Rule], autojump_clock: trio.testing.MockClock
) -> None:
    near, far = memory_streams()
    faulty = Faults(receiving=rules).wrap(near)

    async def send() -> None:
        for byte in b"ab":
            await trio.sleep(10)
            assert faulty.peer_state() is PeerState.OPEN  # which begins nothing
            await far.send_all(bytes([byte]))

    arrived = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        began = trio.current_time()
        for byte in b"ab":
            assert await faulty.receive_some() == bytes([byte])
            arrived.append(trio.current_time() - began)
    assert arrived == [pytest.approx(12), pytest.approx(22)]


async def test_a_pause_in_sending_that_was_cancelled_goes_on_where_it_was(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = memory_streams()
    faulty = Faults(sending=[at_byte(1, Delay(10))]).wrap(near)
    began = trio.current_time()
    with trio.move_on_after(6):
        await faulty.send_all(b"ab")
    await faulty.send_all(b"c")
    assert trio.current_time() - began == pytest.approx(10)
    assert far.read(9) == b"abc"


async def test_an_end_is_held_up_as_a_byte_is(autojump_clock: trio.testing.MockClock) -> None:
    near, far = memory_streams()
    faulty = Faults(receiving=[at_byte(1, Delay(5))]).wrap(near)
    await far.send_all(b"a")
    await far.send_eof()
    began = trio.current_time()
    assert await read_to_end(faulty) == b"a"
    assert trio.current_time() - began == pytest.approx(5)


# --- Stalls -------------------------------------------------------------------------------------------------


async def stalled_ends(kind: str) -> tuple[LocalStream, LocalStream]:
    """Two ends; what the first sends is stalled."""
    faults = Faults(sending=[at_byte(1, Stall())])
    if kind == "memory":
        near, far = memory_streams()
        return faults.wrap(near), far
    with temporary_endpoint() as endpoint:
        async with await endpoint.listen_streams() as listener:
            client = await endpoint.connect()
            return faults.wrap(client), await listener.accept()


@pytest.mark.parametrize("kind", ["memory", pytest.param("socket", marks=unix_only)])
@pytest.mark.parametrize("closer", ["peer", "this side"])
async def test_a_stall_in_sending_ends_with_the_stream(kind: str, closer: str) -> None:
    faulty, far = await stalled_ends(kind)
    expected = trio.BrokenResourceError if closer == "peer" else trio.ClosedResourceError

    async def send() -> None:
        with pytest.raises(expected):
            await faulty.send_all(b"abc")

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert await far.receive_some() == b"a"
            await trio.testing.wait_all_tasks_blocked()
            await (far if closer == "peer" else faulty).aclose()
    await far.aclose()
    await faulty.aclose()


@pytest.mark.parametrize("direction", ["sending", "receiving"])
@pytest.mark.parametrize("jumping", [True, False])
def test_a_run_that_only_a_stall_keeps_going_says_so(direction: str, jumping: bool) -> None:
    faults = Faults(**{direction: [at_byte(0, Stall())]})  # type: ignore[arg-type]

    async def main() -> None:
        near, far = memory_streams()
        faulty = faults.wrap(near)
        async with trio.open_nursery() as nursery:
            if direction == "sending":
                nursery.start_soon(far.receive_some)
                await faulty.send_all(b"x")
            else:
                await far.send_all(b"x")
                await faulty.receive_some()

    clock = trio.testing.MockClock(autojump_threshold=0) if jumping else None
    with pytest.raises(ExceptionGroup) as caught:
        trio.run(main, clock=clock)
    assert caught.group_contains(RuntimeError, match=f"only a Stall in {direction} keeps this run going")


async def test_a_stall_says_nothing_while_something_is_to_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = memory_streams()
    faulty = Faults(receiving=[at_byte(0, Stall())]).wrap(near)
    await far.send_all(b"x")
    with trio.move_on_after(1000) as deadline:
        await faulty.receive_some()
    assert deadline.cancelled_caught
    done = False

    async def call_late() -> None:
        nonlocal done
        await trio.testing.wait_all_tasks_blocked()
        await trio.to_thread.run_sync(time.sleep, 0.05)
        done = True
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call_late)
        await faulty.receive_some()
    assert done


# --- Hits ---------------------------------------------------------------------------------------------------


async def test_a_stall_in_receiving_is_a_hit_once_it_holds_something_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = memory_streams()
    faults = Faults(receiving=[at_byte(1, Stall())])
    faulty = faults.wrap(near)
    await far.send_all(b"a")
    assert await faulty.receive_some() == b"a"
    with trio.move_on_after(1):
        await faulty.receive_some()
    assert faults.hits == [], "nobody has sent anything"
    await far.send_all(b"b")
    with trio.move_on_after(1):
        await faulty.receive_some()
    assert faults.hits == ["stream 1 receiving byte 1: Stall()"]


async def test_a_stall_in_receiving_is_a_hit_too_if_what_it_holds_up_came_with_what_it_lets_through() -> None:
    near, far = memory_streams()
    faults = Faults(receiving=[at_byte(1, Stall())])
    faulty = faults.wrap(near)
    await far.send_all(b"ab")
    assert await faulty.receive_some() == b"a"
    assert faults.hits == ["stream 1 receiving byte 1: Stall()"]


@pytest.mark.parametrize("fault", [Stall(), EndOfFile()], ids=str)
async def test_what_ends_sending_is_a_hit_when_there_was_something_to_send(
    fault: Stall | EndOfFile, autojump_clock: trio.testing.MockClock
) -> None:
    near, _far = memory_streams()
    faults = Faults(sending=[at_byte(1, fault)])
    faulty = faults.wrap(near)
    await faulty.send_all(b"a")
    assert len(faults.hits) == (0 if fault == Stall() else 1), "an end of file is seen by the peer at once"
    with trio.move_on_after(1):
        await faulty.send_all(b"b")
    assert len(faults.hits) == 1


@pytest.mark.parametrize("fault", [Stall(), Reset(), EndOfFile()], ids=str)
async def test_what_is_sent_without_a_wait_goes_up_to_the_last_byte_before_an_end(
    fault: Stall | Reset | EndOfFile,
) -> None:
    near, far = memory_streams()
    faulty = Faults(sending=[at_byte(4, fault)]).wrap(near)
    assert faulty.write(b"abcdef") == 3
    assert faulty.write(b"def") == 0, "the end needs somebody who can wait"
    assert far.read(100) == b"abc"


async def test_an_end_of_file_in_receiving_is_a_hit_for_who_reads_it() -> None:
    near, far = memory_streams()
    faults = Faults(receiving=[at_byte(1, EndOfFile())])
    faulty = faults.wrap(near)
    await far.send_all(b"ab")
    assert await faulty.receive_some() == b"a"
    assert faults.hits == []
    assert await faulty.receive_some() == b""
    assert faults.hits == ["stream 1 receiving byte 1: EndOfFile()"]


async def test_a_plan_that_touched_nothing_has_no_hits(autojump_clock: trio.testing.MockClock) -> None:
    rules = [at_frame(2, fault) for fault in (Flip(0), Drop(), Truncate(), Delay(1), Stall(), Split())]
    with Faults(sending=rules, receiving=rules) as faults:
        async with open_pair(succeed, DETECTION, wrap=faults.wrap) as (client, _):
            assert await client.call(task()) == success()
    assert faults.hits == []
    assert "none of them has hit" in faults.report()
