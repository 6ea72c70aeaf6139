"""A stream has exactly the faults that were planned, and is a stream otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing
from hypothesis import given, settings

from tests.platforms import unix_only
from tests.support import read_to_end, succeed, success, task
from tests.testing.played import played
from tests.testing.test_faultscript import DATA, RULES, SIZES
from trio_ipc import (
    ChecksumMismatchError,
    IpcError,
    PeerClosedError,
    ReadTimeoutError,
    ResponseMismatchError,
    WriteTimeoutError,
)
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import (
    Delay,
    Dribble,
    Drop,
    EndOfFile,
    Faults,
    Flip,
    Merge,
    Reset,
    Rule,
    Split,
    Stall,
    Truncate,
    at_byte,
    at_each_frame,
    at_frame,
    at_random,
    memory_streams,
    open_pair,
    temporary_endpoint,
)
from trio_ipc.testing.faultscript import Pause
from trio_ipc.transports import LocalStream, PeerState

# --- Around a stream ----------------------------------------------------------------------------------------


async def test_without_rules_it_is_what_trio_asks_of_a_stream() -> None:
    async def make() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        left, right = memory_streams(buffer_bytes=1000)
        return Faults().wrap(left), Faults().wrap(right)

    async def make_clogged() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        left, right = memory_streams(buffer_bytes=1000)
        left.write(bytes(1000))
        right.write(bytes(1000))
        return Faults().wrap(left), Faults().wrap(right)

    await trio.testing.check_half_closeable_stream(make, make_clogged)


async def test_it_is_of_the_kinds_that_the_inner_stream_is_of() -> None:
    local, _ = memory_streams()
    wrapped: object = Faults().wrap(local)
    assert isinstance(wrapped, LocalStream)
    assert isinstance(wrapped, trio.abc.HalfCloseableStream)
    assert (wrapped.endpoint, wrapped.peer) == (local.endpoint, local.peer)
    plain = trio.testing.memory_stream_one_way_pair()
    other: object = Faults().wrap(trio.StapledStream(*plain))
    assert not isinstance(other, LocalStream)
    assert isinstance(other, trio.abc.HalfCloseableStream)
    with temporary_endpoint() as endpoint:
        async with await endpoint.listen_streams(), await endpoint.connect() as stream:
            real: object = Faults().wrap(stream)
            assert isinstance(real, LocalStream)
            half = isinstance(stream, trio.abc.HalfCloseableStream)
            assert isinstance(real, trio.abc.HalfCloseableStream) == half


@pytest.mark.parametrize("direction", ["sending", "receiving"])
@given(DATA, RULES.map(lambda rules: [rule for rule in rules if not isinstance(rule.fault, Stall)]), SIZES)
@settings(deadline=None, max_examples=50)
def test_a_stream_gives_what_the_script_says_in_either_direction(
    direction: str, data: bytes, rules: list[Rule], sizes: list[int]
) -> None:
    steps = played(data, *rules, key=f"5/stream 1 {direction}")
    expected = b"".join(step for step in steps if isinstance(step, bytes))
    clock = trio.testing.MockClock(autojump_threshold=0)
    arrived, seconds = trio.run(_sent_through, direction, data, rules, sizes, clock=clock)
    assert arrived == expected
    assert seconds == pytest.approx(sum(step.seconds for step in steps if isinstance(step, Pause)))


async def _sent_through(
    direction: str, data: bytes, rules: list[Rule], sizes: list[int]
) -> tuple[bytes, float]:
    """What arrives, and how long it takes."""
    began = trio.current_time()
    near, far = memory_streams(buffer_bytes=16)
    if direction == "sending":
        sender: trio.abc.HalfCloseableStream = Faults(seed=5, sending=rules).wrap(near)
        receiver: trio.abc.HalfCloseableStream = far
    else:
        sender, receiver = near, Faults(seed=5, receiving=rules).wrap(far)

    async def send() -> None:
        rest = data
        try:
            for size in sizes:
                piece, rest = rest[:size], rest[size:]
                await sender.send_all(piece)
            await sender.send_all(rest)
            await sender.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        arrived = await read_to_end(receiver)
        seconds = trio.current_time() - began
        await receiver.aclose()
    return arrived, seconds


async def test_pauses_are_waited_for_on_the_clock(autojump_clock: trio.testing.MockClock) -> None:
    rules = [at_byte(1, Delay(3)), at_byte(2, Dribble(1, 0.5, count=4))]
    for direction in "sending", "receiving":
        arrived, seconds = await _sent_through(direction, b"abcdef", rules, [])
        assert arrived == b"abcdef"
        assert seconds == pytest.approx(5)


async def test_a_pause_that_was_cancelled_goes_on_where_it_was(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = memory_streams()
    faulty = Faults(receiving=[at_byte(0, Delay(10))]).wrap(far)
    await near.send_all(b"x")
    began = trio.current_time()
    with trio.move_on_after(6):
        await faulty.receive_some()
    assert faulty.read(1) is None
    assert faulty.peer_state() is PeerState.OPEN
    assert await faulty.receive_some() == b"x"
    assert trio.current_time() - began == pytest.approx(10)


async def test_a_stall_ends_by_a_deadline_or_by_closing(autojump_clock: trio.testing.MockClock) -> None:
    near, far = memory_streams()
    faulty = Faults(receiving=[at_byte(1, Stall())], sending=[at_byte(1, Stall())]).wrap(near)
    await far.send_all(b"abc")
    assert await faulty.receive_some() == b"a"
    assert faulty.peer_state() is PeerState.OPEN
    await faulty.send_all(b"x")
    with trio.move_on_after(100) as scope:
        await faulty.send_all(b"y")
    assert scope.cancelled_caught

    async def waits_until_closed() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await faulty.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits_until_closed)
        await trio.sleep(1000)
        await faulty.aclose()
    assert await far.receive_some() == b"x"


async def test_a_reset_breaks_both_directions_for_both_sides() -> None:
    near, far = memory_streams()
    faulty = Faults(sending=[at_byte(2, Reset())]).wrap(near)
    await faulty.send_all(b"ab")
    with pytest.raises(trio.BrokenResourceError, match="the script of faults has reset it"):
        await faulty.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await faulty.send_all(b"c")
    assert faulty.peer_state() is PeerState.GONE
    assert faulty.peer_state() is not PeerState.OPEN
    assert await read_to_end(far) == b"ab"
    await faulty.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await faulty.receive_some()


async def test_a_reset_wakes_the_reader_of_the_other_direction() -> None:
    near, _far = memory_streams()
    faulty = Faults(sending=[at_byte(1, Reset())]).wrap(near)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await faulty.receive_some()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError):
            await faulty.send_all(b"ab")


async def test_an_end_of_file_is_of_one_direction() -> None:
    near, far = memory_streams()
    faulty = Faults(sending=[at_byte(1, EndOfFile())], receiving=[at_byte(2, EndOfFile())]).wrap(near)
    await faulty.send_all(b"abc")
    await faulty.send_all(b"lost, and nobody is told")
    assert await read_to_end(far) == b"a"
    await far.send_all(b"xyz")
    assert await read_to_end(faulty) == b"xy"
    assert await faulty.receive_some() == b""
    assert faulty.peer_state() is not PeerState.OPEN
    assert faulty.peer_state() is not PeerState.GONE


async def test_short_writes_are_seen_by_who_sends_without_a_wait() -> None:
    near, far = memory_streams()
    faulty = Faults(sending=[at_byte(0, Dribble(3))]).wrap(near)
    assert faulty.write(b"abcdef") == 3
    assert faulty.write(b"def") == 3
    assert far.read(100) == b"abcdef"
    altered = Faults(sending=[at_byte(2, Flip(0)), at_byte(4, Delay(1)), at_byte(6, Reset())]).wrap(near)
    assert altered.write(b"abcdef") == 2
    assert altered.write(b"cdef") == 0
    await altered.send_all(b"c")
    assert altered.write(b"def") == 1
    assert altered.write(b"ef") == 0, "a pause is due"


async def test_a_quiet_connection_is_told_from_one_that_has_news() -> None:
    near, far = memory_streams()
    faulty = Faults(receiving=[at_byte(0, Drop(2))]).wrap(near)
    assert faulty.peer_state() is PeerState.OPEN
    await far.send_all(b"ab")
    assert faulty.peer_state() is PeerState.OPEN, "what was lost has not come"
    await far.send_all(b"c")
    assert faulty.peer_state() is not PeerState.OPEN
    assert faulty.read(5) == b"c"
    assert faulty.peer_state() is PeerState.OPEN
    await far.send_eof()
    assert faulty.peer_state() is not PeerState.OPEN
    assert faulty.read(5) == b""
    await faulty.aclose()
    assert faulty.peer_state() is not PeerState.OPEN


async def test_what_breaks_inside_is_seen_outside() -> None:
    near, far = memory_streams()
    faulty = Faults().wrap(near)
    await faulty.send_all(b"unread")
    await far.aclose()
    assert faulty.peer_state() is PeerState.GONE
    assert faulty.peer_state() is not PeerState.OPEN
    with pytest.raises(trio.BrokenResourceError):
        await faulty.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await faulty.send_all(b"x")


async def test_later_streams_can_be_spared() -> None:
    faults = Faults(sending=[at_byte(0, Flip(0))], streams=1)
    outs = []
    for _ in range(2):
        near, far = memory_streams()
        await faults.wrap(near).send_all(b"a")
        outs.append(await far.receive_some())
    assert outs == [b"`", b"a"]


async def test_each_stream_has_chances_of_its_own() -> None:
    outs = []
    faults = Faults(seed=1, sending=[at_random(0.05, Flip(0))])
    for _ in range(2):
        near, far = memory_streams()
        await faults.wrap(near).send_all(bytes(1000))
        outs.append(await far.receive_some())
    assert outs[0] != outs[1]


# --- What a failure tells -----------------------------------------------------------------------------------


def test_the_plan_says_how_to_make_it_again() -> None:
    faults = Faults(
        seed=7,
        sending=[at_byte(1, Drop(2)), at_frame(2, Reset(), offset=8)],
        receiving=[at_random(0.5, Flip()), at_each_frame(Truncate())],
        streams=1,
    )
    again = eval(repr(faults))  # noqa: S307 - it is ours
    assert again.seed == 7
    assert repr(again) == repr(faults)


async def test_a_failure_in_its_block_tells_seed_and_faults() -> None:
    with pytest.raises(ZeroDivisionError) as caught:  # noqa: PT012 - it is about a block
        with Faults(seed=99, sending=[at_random(1, Flip(3))]) as faults:
            near, _ = memory_streams()
            await faults.wrap(near).send_all(bytes(60))
            _ = 1 / 0
    [note] = caught.value.__notes__
    assert "seed=99" in note
    assert "stream 1 sending byte 0: Flip(bit=3)" in note
    assert "... and 10 more" in note
    with pytest.raises(ZeroDivisionError) as caught, Faults():
        _ = 1 / 0
    assert "none of them has hit" in caught.value.__notes__[0]


def test_a_seed_is_drawn_where_none_is_given() -> None:
    assert len({Faults().seed for _ in range(10)}) > 1


def test_the_faults_of_one_test_have_seeds_in_a_row(ipc_faults: Callable[..., Faults]) -> None:
    first, second = ipc_faults(), ipc_faults()
    assert second.seed == first.seed + 1
    assert ipc_faults(seed=5).seed == 5


# --- Around a client ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        (Faults(seed=1, receiving=[at_frame(1, Flip(0), offset=10)]), ChecksumMismatchError),
        (Faults(seed=1, receiving=[at_frame(1, Stall(), offset=3)]), ReadTimeoutError),
        (Faults(seed=1, receiving=[at_frame(1, Truncate(), offset=9)]), ReadTimeoutError),
        (Faults(seed=1, sending=[at_frame(1, Stall(), offset=3)]), WriteTimeoutError),
        (Faults(seed=1, sending=[at_frame(2, Reset())]), PeerClosedError),
        (Faults(seed=1, sending=[at_frame(1, Reset(), offset=9)]), PeerClosedError),
        (Faults(seed=1, receiving=[at_byte(0, EndOfFile())]), PeerClosedError),
        # The server finds the damage, says so, and closes.
        (Faults(seed=1, sending=[at_frame(1, Flip(5), offset=4)]), ResponseMismatchError),
    ],
    ids=str,
)
async def test_a_client_meets_the_fault_as_the_error_that_it_is(
    faults: Faults, error: type[IpcError], autojump_clock: trio.testing.MockClock
) -> None:
    with faults:
        async with open_pair(succeed, DETECTION, wrap=faults.wrap, handler_timeout_ms=10**9) as (client, _):
            with pytest.raises(error):
                await client.call(task("x"))


@pytest.mark.parametrize(
    "faults",
    [
        Faults(seed=1, sending=[at_byte(0, Dribble(1))], receiving=[at_byte(0, Dribble(1))]),
        Faults(seed=1, sending=[at_byte(0, Dribble(3, 0.01))], receiving=[at_byte(0, Dribble(5, 0.01))]),
        Faults(seed=1, receiving=[at_random(0.2, Split()), at_each_frame(Merge(9))]),
        Faults(seed=1, sending=[at_random(0.2, Delay(0.1))], receiving=[at_random(0.1, Delay(0.1))]),
    ],
    ids=str,
)
async def test_slicing_and_slowness_cost_nobody_a_response(
    faults: Faults, autojump_clock: trio.testing.MockClock
) -> None:
    with faults:
        async with open_pair(succeed, DETECTION, wrap=faults.wrap) as (client, _):
            for number in range(20):
                assert await client.call(task(str(number))) == success(str(number))


@unix_only
async def test_faults_go_around_a_real_socket_too() -> None:
    faults = Faults(receiving=[at_frame(2, Flip(0), offset=8)])
    with faults:
        async with open_pair(succeed, DETECTION, over="interprocess", wrap=faults.wrap) as (client, _):
            assert await client.call(task("1")) == success("1")
            with pytest.raises(ChecksumMismatchError):
                await client.call(task("2"))
