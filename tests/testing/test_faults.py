"""What comes out is what went in, with exactly the faults that the script says, however it was sliced."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import hypothesis.strategies as st
import pytest
import trio
import trio.testing
from hypothesis import given, settings

from tests.platforms import unix_only
from tests.support import frame, read_to_end, succeed, success, task
from trio_ipc import (
    ChecksumMismatchError,
    IpcError,
    PeerClosedError,
    ReadTimeoutError,
    ResponseMismatchError,
    WriteTimeoutError,
)
from trio_ipc.testing import (
    Delay,
    Dribble,
    Drop,
    Duplicate,
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
from trio_ipc.testing.faultscript import FaultScript, Pause, Step
from trio_ipc.transports import LocalStream

# --- The script, by bytes alone -----------------------------------------------------------------------------


def played(data: bytes, *rules: Rule, sizes: Iterable[int] = (), key: str = "k") -> list[Step]:
    """The steps that a script makes of these bytes, which come in slices of these sizes and then at once."""
    script = FaultScript(rules, key)
    steps = script.start()
    for size in sizes:
        piece, data = data[:size], data[size:]
        steps += script.feed(piece)[0]
    steps += script.feed(data)[0]
    return steps + script.end()


def merged(steps: list[Step]) -> list[Step]:
    """Without the borders of pieces."""
    found: list[Step] = []
    for step in steps:
        last = found[-1] if found else None
        if isinstance(step, bytes) and isinstance(last, bytes):
            found[-1] = last + step
        else:
            found.append(step)
    return found


TWO = frame(task("one")) + frame(task("two"))
SECOND = len(frame(task("one")))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], [b"0123456789"]),
        ([at_byte(3, Delay(2.0))], [b"012", Pause(2.0), b"3456789"]),
        ([at_byte(0, Stall())], [Stall()]),
        ([at_byte(4, Stall())], [b"0123", Stall()]),
        ([at_byte(10, Reset())], [b"0123456789", Reset()]),
        ([at_byte(11, Reset())], [b"0123456789"]),
        ([at_byte(2, EndOfFile())], [b"01", EndOfFile()]),
        ([at_byte(1, Flip(0))], [b"0023456789"]),
        ([at_byte(1, Flip(0)), at_byte(1, Flip(0))], [b"0123456789"]),
        ([at_byte(2, Drop())], [b"013456789"]),
        ([at_byte(2, Drop(3))], [b"0156789"]),
        ([at_byte(2, Drop(None))], [b"01"]),
        ([at_byte(2, Drop(3)), at_byte(3, Drop(1))], [b"0156789"]),
        ([at_byte(2, Duplicate(3))], [b"0123423456789"]),
        ([at_byte(8, Duplicate(5))], [b"0123456789", b"89"]),
        ([at_byte(2, Duplicate(2)), at_byte(2, Flip(0))], [b"013333456789"]),
        ([at_byte(3, Split())], [b"012", b"3456789"]),
        ([at_byte(7, Dribble(2))], [b"0123456", b"78", b"9"]),
        ([at_byte(1, Dribble(2, count=4))], [b"0", b"12", b"34", b"56789"]),
        (
            [at_byte(1, Dribble(2, 0.5, count=3))],
            [b"0", b"12", Pause(0.5), b"3456789"],
        ),
        ([at_byte(4, Merge(100))], [b"0123", b"456789"]),
        ([at_byte(2, Merge(4)), at_byte(4, Reset())], [b"01", b"23", Reset()]),
    ],
    ids=str,
)
def test_a_fault_does_what_it_says(rules: list[Rule], expected: list[Step]) -> None:
    assert played(b"0123456789", *rules) == expected


def test_bytes_that_are_merged_come_in_one_piece_however_they_arrive() -> None:
    assert played(b"0123456789", at_byte(2, Merge(5)), sizes=[1] * 10) == [
        b"0", b"1", b"23456", b"7", b"8", b"9",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (at_frame(2, Drop(1)), TWO[:SECOND] + TWO[SECOND + 1 :]),
        (at_frame(2, Drop(1), offset=8), TWO[: SECOND + 8] + TWO[SECOND + 9 :]),
        (at_frame(1, Truncate(), offset=9), TWO[:9] + TWO[SECOND:]),
        (at_frame(1, Truncate()), TWO[SECOND:]),
        (at_frame(3, Drop(1)), TWO),
        (at_frame(1, Drop(1), offset=SECOND), TWO),
        (at_each_frame(Truncate(), offset=8), TWO[:8] + TWO[SECOND : SECOND + 8]),
    ],
    ids=str,
)
def test_a_fault_can_be_placed_in_a_frame(rule: Rule, expected: bytes) -> None:
    assert merged(played(TWO, rule)) == [expected]
    assert merged(played(TWO, rule, sizes=[1] * len(TWO))) == [expected]


def test_what_is_no_frame_has_frames_too_of_a_kind() -> None:
    # A header that announces nothing is a frame of its own.
    assert merged(played(bytes(24), at_frame(3, Flip(0)))) == [bytes(16) + b"\1" + bytes(7)]
    assert merged(played(b"\xff" * 100, at_frame(2, Flip(0)))) == [b"\xff" * 100]


def test_chance_hits_about_as_often_as_it_should_and_each_seed_elsewhere() -> None:
    data = bytes(100_000)
    places = []
    for key in "ab":
        [out] = merged(played(data, at_random(0.01, Flip(0)), key=key))
        assert isinstance(out, bytes)
        places.append([at for at, byte in enumerate(out) if byte])
        # Far outside of what a binomial distribution gives once in a lifetime; and the seeds are fixed.
        assert 800 < len(places[-1]) < 1200
    assert places[0] != places[1]
    [every] = merged(played(data, at_random(1.0, Flip(0))))
    assert every == b"\1" * 100_000
    assert played(data, at_random(1e-320, Flip(0))) == [data]


def test_a_frame_can_be_hit_by_chance() -> None:
    frames = frame(task("x")) * 1000
    [out] = merged(played(frames, at_each_frame(Truncate(), probability=0.5)))
    assert isinstance(out, bytes)
    assert 300 < len(out) * 1000 / len(frames) < 700


FAULTS = st.one_of(
    st.builds(Delay, st.floats(0, 10)),
    st.builds(Flip, st.none() | st.integers(0, 7)),
    st.builds(Drop, st.none() | st.integers(1, 20)),
    st.builds(Duplicate, st.integers(1, 20)),
    st.just(Truncate()),
    st.just(Split()),
    st.builds(Dribble, st.integers(1, 5), st.sampled_from([0.0, 1.5]), st.none() | st.integers(1, 20)),
    st.builds(Merge, st.integers(1, 20)),
    st.sampled_from([Stall(), Reset(), EndOfFile()]),
)
RULES = st.lists(
    st.one_of(
        st.builds(at_byte, st.integers(0, 60), FAULTS),
        st.builds(at_frame, st.integers(1, 4), FAULTS, offset=st.integers(0, 20)),
        st.builds(at_each_frame, FAULTS, offset=st.integers(0, 20), probability=st.sampled_from([0.3, 1.0])),
        st.builds(at_random, st.sampled_from([0.01, 0.1, 1.0]), FAULTS),
    ),
    max_size=4,
)
DATA = st.lists(
    st.builds(lambda text: frame(task(text)), st.text("x", min_size=1, max_size=20)), max_size=4
).map(b"".join) | st.binary(max_size=60)
SIZES = st.lists(st.integers(0, 20), max_size=20)


@given(DATA, RULES, SIZES, st.integers(0, 3))
@settings(deadline=None)
def test_the_same_seed_and_bytes_meet_the_same_faults_however_they_are_sliced(
    data: bytes, rules: list[Rule], sizes: list[int], seed: int
) -> None:
    whole = played(data, *rules, key=str(seed))
    assert merged(played(data, *rules, sizes=sizes, key=str(seed))) == merged(whole)


@given(DATA, SIZES)
def test_without_rules_the_pieces_are_those_that_came(data: bytes, sizes: list[int]) -> None:
    script = FaultScript([], "k")
    script.start()
    at = 0
    for size in [*sizes, len(data)]:
        piece = data[at : at + size]
        at += size
        assert script.untouched(piece) == len(piece)
        assert script.feed(piece) == ([piece] if piece else [], len(piece))


@given(DATA, RULES)
@settings(deadline=None)
def test_what_is_said_to_be_untouched_goes_through_as_it_is(data: bytes, rules: list[Rule]) -> None:
    script = FaultScript(rules, "k")
    script.start()
    while data:
        count = script.untouched(data)
        assert count <= len(data)
        steps, taken = script.feed(data[: count or 1])
        if count:
            assert taken == count
            assert [step for step in steps if isinstance(step, bytes)] == [data[:count]]
            assert not any(isinstance(step, Stall | Reset | EndOfFile) for step in steps)
        data = data[count or 1 :]


@given(DATA, st.integers(1, 9), st.integers(0, 60), st.integers(1, 30))
def test_a_loss_loses_these_bytes_and_no_others(data: bytes, count: int, at: int, size: int) -> None:
    out = b"".join(
        step for step in played(data, at_byte(at, Drop(count)), sizes=[size] * 9) if isinstance(step, bytes)
    )
    assert out == data[:at] + data[at + count :]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Delay(-1), "seconds is -1, must be at least 0"),
        (lambda: Delay(math.nan), "seconds is nan"),
        (lambda: Flip(8), "bit is 8, must be from 0 to 7"),
        (lambda: Drop(0), "count is 0, must be at least 1"),
        (lambda: Dribble(0), "size is 0"),
        (lambda: at_byte(-1, Reset()), "byte is -1"),
        (lambda: at_frame(0, Reset()), "frame is 0, must be at least 1"),
        (lambda: at_random(0, Reset()), "probability is 0, must be above 0"),
        (lambda: at_random(1.5, Reset()), "probability is 1.5"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()


# --- Around a stream ----------------------------------------------------------------------------------------


async def test_without_rules_it_is_what_trio_asks_of_a_stream() -> None:
    async def make() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        left, right = memory_streams(buffer_bytes=1000)
        return Faults().wrap(left), Faults().wrap(right)

    async def make_clogged() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        left, right = memory_streams(buffer_bytes=1000)
        left.send_nowait(bytes(1000))
        right.send_nowait(bytes(1000))
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
    assert faulty.receive_nowait(1) is None
    assert faulty.is_quiet()
    assert await faulty.receive_some() == b"x"
    assert trio.current_time() - began == pytest.approx(10)


async def test_a_stall_ends_by_a_deadline_or_by_closing(autojump_clock: trio.testing.MockClock) -> None:
    near, far = memory_streams()
    faulty = Faults(receiving=[at_byte(1, Stall())], sending=[at_byte(1, Stall())]).wrap(near)
    await far.send_all(b"abc")
    assert await faulty.receive_some() == b"a"
    assert faulty.is_quiet()
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
    assert faulty.peer_is_gone()
    assert not faulty.is_quiet()
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
    assert not faulty.is_quiet()
    assert not faulty.peer_is_gone()


async def test_short_writes_are_seen_by_who_sends_without_a_wait() -> None:
    near, far = memory_streams()
    faulty = Faults(sending=[at_byte(0, Dribble(3))]).wrap(near)
    assert faulty.send_nowait(b"abcdef") == 3
    assert faulty.send_nowait(b"def") == 3
    assert far.receive_nowait(100) == b"abcdef"
    altered = Faults(sending=[at_byte(2, Flip(0)), at_byte(4, Delay(1)), at_byte(6, Reset())]).wrap(near)
    assert altered.send_nowait(b"abcdef") == 2
    assert altered.send_nowait(b"cdef") == 0
    await altered.send_all(b"c")
    assert altered.send_nowait(b"def") == 1
    assert altered.send_nowait(b"ef") == 0, "a pause is due"


async def test_a_quiet_connection_is_told_from_one_that_has_news() -> None:
    near, far = memory_streams()
    faulty = Faults(receiving=[at_byte(0, Drop(2))]).wrap(near)
    assert faulty.is_quiet()
    await far.send_all(b"ab")
    assert faulty.is_quiet(), "what was lost has not come"
    await far.send_all(b"c")
    assert not faulty.is_quiet()
    assert faulty.receive_nowait(5) == b"c"
    assert faulty.is_quiet()
    await far.send_eof()
    assert not faulty.is_quiet()
    assert faulty.receive_nowait(5) == b""
    await faulty.aclose()
    assert not faulty.is_quiet()


async def test_what_breaks_inside_is_seen_outside() -> None:
    near, far = memory_streams()
    faulty = Faults().wrap(near)
    await faulty.send_all(b"unread")
    await far.aclose()
    assert faulty.peer_is_gone()
    assert not faulty.is_quiet()
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
    assert "... and 11 more" in note
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
        (Faults(receiving=[at_frame(1, Flip(0), offset=10)]), ChecksumMismatchError),
        (Faults(receiving=[at_frame(1, Stall(), offset=3)]), ReadTimeoutError),
        (Faults(receiving=[at_frame(1, Truncate(), offset=9)]), ReadTimeoutError),
        (Faults(sending=[at_frame(1, Stall(), offset=3)]), WriteTimeoutError),
        (Faults(sending=[at_frame(2, Reset())]), PeerClosedError),
        (Faults(sending=[at_frame(1, Reset(), offset=9)]), PeerClosedError),
        (Faults(receiving=[at_byte(0, EndOfFile())]), PeerClosedError),
        # The server finds the damage, says so, and closes.
        (Faults(sending=[at_frame(1, Flip(5), offset=4)]), ResponseMismatchError),
    ],
    ids=str,
)
async def test_a_client_meets_the_fault_as_the_error_that_it_is(
    faults: Faults, error: type[IpcError], autojump_clock: trio.testing.MockClock
) -> None:
    with faults:
        async with open_pair(succeed, wrap=faults.wrap, handler_timeout_ms=10**9) as (client, _):
            with pytest.raises(error):
                await client.call(task("x"))


@pytest.mark.parametrize(
    "faults",
    [
        Faults(sending=[at_byte(0, Dribble(1))], receiving=[at_byte(0, Dribble(1))]),
        Faults(sending=[at_byte(0, Dribble(3, 0.01))], receiving=[at_byte(0, Dribble(5, 0.01))]),
        Faults(receiving=[at_random(0.2, Split()), at_each_frame(Merge(9))]),
        Faults(sending=[at_random(0.2, Delay(0.1))], receiving=[at_random(0.1, Delay(0.1))]),
    ],
    ids=str,
)
async def test_slicing_and_slowness_cost_nobody_an_answer(
    faults: Faults, autojump_clock: trio.testing.MockClock
) -> None:
    with faults:
        async with open_pair(succeed, wrap=faults.wrap) as (client, _):
            for number in range(20):
                assert await client.call(task(str(number))) == success(str(number))


@unix_only
async def test_faults_go_around_a_real_socket_too() -> None:
    faults = Faults(receiving=[at_frame(2, Flip(0), offset=8)])
    with faults:
        async with open_pair(succeed, over="interprocess", wrap=faults.wrap) as (client, _):
            assert await client.call(task("1")) == success("1")
            with pytest.raises(ChecksumMismatchError):
                await client.call(task("2"))
