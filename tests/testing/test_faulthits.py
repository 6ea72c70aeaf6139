"""A fault is a hit once something of it was given out that would have been otherwise without it."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import trio
import trio.testing
from hypothesis import given, settings

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
)
from trio_ipc.testing.faultscript import FaultScript

from .played import SECOND, TWO, merged, played

EVERY_KIND = [
    Delay(1.0), Flip(0), Drop(), Duplicate(), Truncate(), Split(), Dribble(), Merge(2),
]  # fmt: skip
ENDS: list[Stall | Reset | EndOfFile] = [Stall(), Reset(), EndOfFile()]


@pytest.mark.parametrize("fault", EVERY_KIND, ids=str)
def test_a_fault_is_a_hit_when_its_byte_comes_and_not_before(fault: Fault) -> None:
    hits: list[tuple[int, Fault]] = []
    played(b"0123", at_byte(4, fault), hits=hits)
    assert hits == ([(4, fault)] if isinstance(fault, Delay) else []), "a pause holds up the end, too"
    hits.clear()
    played(b"0123", at_byte(3, fault), hits=hits)
    assert hits == [(3, fault)]
    hits.clear()
    played(TWO, at_frame(3, fault), hits=hits)
    played(TWO, at_frame(1, fault, offset=SECOND), hits=hits)
    assert [hit for hit in hits if not isinstance(hit[1], Delay)] == []


@pytest.mark.parametrize("fault", ENDS, ids=str)
def test_what_ends_a_stream_is_a_hit_when_it_is_met_and_once(fault: Stall | Reset | EndOfFile) -> None:
    hits: list[tuple[int, Fault]] = []
    script = FaultScript([at_byte(2, fault)], "k", lambda at, fault: hits.append((at, fault)))
    script.was_met()
    script.start()
    script.feed(b"0123")
    assert hits == []
    script.was_met()
    script.was_met()
    assert hits == [(2, fault)]


@pytest.mark.parametrize("fault", [Flip(0), Duplicate(2), Merge(2)], ids=str)
def test_what_would_hit_bytes_that_are_lost_is_no_hit(fault: Fault) -> None:
    hits: list[tuple[int, Fault]] = []
    assert merged(played(b"0123456", at_byte(2, Drop(3)), at_byte(3, fault), hits=hits)) == [b"0156"]
    assert hits == [(2, Drop(3))]


@pytest.mark.parametrize("fault", [Split(), Dribble(1, count=2)], ids=str)
def test_what_parts_the_bytes_around_those_that_are_lost_is_a_hit(fault: Fault) -> None:
    hits: list[tuple[int, Fault]] = []
    assert played(b"0123456", at_byte(2, Drop(3)), at_byte(3, fault), hits=hits) == [b"01", b"56"]
    assert hits == [(2, Drop(3)), (3, fault)]


def test_a_bit_that_was_drawn_is_told() -> None:
    hits: list[tuple[int, Fault]] = []
    [out] = played(b"\0\0", at_byte(1, Flip()), hits=hits)
    [(at, fault)] = hits
    assert isinstance(fault, Flip)
    assert fault.bit is not None
    assert (at, out) == (1, bytes([0, 1 << fault.bit]))


@pytest.mark.parametrize(
    ("rule", "sizes", "expected"),
    [
        (at_byte(0, Split()), [6], 0),
        (at_byte(1, Split()), [6], 1),
        (at_byte(3, Split()), [3, 3], 0),
        (at_byte(3, Split()), [2, 2, 2], 1),
        (at_byte(0, Delay(0)), [6], 0),
        (at_byte(0, Delay(0.5)), [1, 5], 1),
        (at_byte(0, Dribble(6)), [6], 0),
        (at_byte(0, Dribble(3)), [6], 1),
        (at_byte(0, Dribble(3)), [3, 3], 0),
        (at_byte(0, Dribble(3, 1.0)), [3, 3], 1),
        (at_byte(0, Dribble(2, count=2)), [6], 1),
        (at_byte(0, Dribble(2, count=2)), [2, 4], 0),
        (at_byte(1, Dribble(9)), [6], 1),
        (at_byte(1, Dribble(9)), [1, 5], 0),
        (at_byte(0, Merge(6)), [6], 0),
        (at_byte(0, Merge(9)), [6], 1),
        (at_byte(0, Merge(3)), [3, 3], 0),
        (at_byte(0, Merge(3)), [6], 1),
        (at_byte(3, Merge(3)), [3, 3], 0),
        (at_byte(3, Merge(3)), [6], 1),
        (at_byte(1, Merge(2)), [2, 4], 1),
        (at_byte(6, Merge(2)), [6], 0),
        (at_byte(0, Duplicate(3)), [6], 1),
        (at_byte(0, Duplicate(3)), [1] * 6, 1),
        (at_byte(5, Duplicate(3)), [6], 1),
        (at_byte(6, Duplicate(3)), [6], 0),
    ],
    ids=str,
)
def test_a_fault_is_a_hit_if_the_pieces_come_out_otherwise(
    rule: Rule, sizes: list[int], expected: int
) -> None:
    hits: list[tuple[int, Fault]] = []
    played(b"abcdef", rule, sizes=sizes, hits=hits)
    assert len(hits) == expected


FAULTS = st.one_of(
    st.builds(Delay, st.sampled_from([0.0, 1.0])),
    st.builds(Flip, st.integers(0, 7)),
    st.builds(Drop, st.none() | st.integers(1, 9)),
    st.builds(Duplicate, st.integers(1, 9)),
    st.just(Truncate()),
    st.just(Split()),
    st.builds(Dribble, st.integers(1, 5), st.sampled_from([0.0, 1.0]), st.none() | st.integers(1, 9)),
)


@given(FAULTS, st.integers(0, 12), st.lists(st.integers(0, 5), max_size=9))
@settings(deadline=None)
def test_a_fault_is_a_hit_if_and_only_if_something_comes_out_otherwise(
    fault: Fault, at: int, sizes: list[int]
) -> None:
    hits: list[tuple[int, Fault]] = []
    data = b"0123456789"
    steps = played(data, at_byte(at, fault), sizes=sizes, hits=hits)
    assert bool(hits) == (steps != played(data, sizes=sizes))


def test_what_would_part_bytes_that_are_merged_is_no_hit() -> None:
    hits: list[tuple[int, Fault]] = []
    rules = at_byte(0, Merge(6)), at_byte(2, Split()), at_byte(4, Dribble(1, count=2))
    assert played(b"abcdef", *rules, sizes=[1] * 6, hits=hits) == [b"abcdef"]
    assert hits == [(0, Merge(6))]


def test_bytes_are_given_twice_only_when_the_copy_is_given() -> None:
    hits: list[tuple[int, Fault]] = []
    script = FaultScript([at_byte(0, Duplicate(3))], "k", lambda *hit: hits.append(hit))
    script.start()
    assert script.feed(b"abcd") == ([b"abcabcd"], 4)
    script.given(3)
    assert hits == []
    script.given(1)
    assert hits == [(0, Duplicate(3))]


@pytest.mark.parametrize("behind", [Flip(0), Duplicate(), Drop(), Split(), Delay(5)], ids=str)
async def test_what_a_delay_held_up_until_nobody_waited_is_no_hit(
    behind: Fault, autojump_clock: trio.testing.MockClock
) -> None:
    rules = [at_byte(0, Delay(10)), at_byte(1, behind)]
    with Faults(sending=rules, receiving=rules) as faults:
        near, far = memory_streams()
        stream = faults.wrap(near)
        await far.send_all(b"abc")
        for wait in (stream.receive_some, lambda: stream.send_all(b"abc")):
            with trio.move_on_after(1):
                await wait()
        assert faults.hits == [
            "stream 1 receiving byte 0: Delay(seconds=10)",
            "stream 1 sending byte 0: Delay(seconds=10)",
        ]
        await trio.sleep(60)
        await stream.send_all(b"def")
        await far.send_all(b"def")
        for one in stream, far:
            with trio.move_on_after(60):
                while True:
                    await one.receive_some()
        assert f"stream 1 receiving byte 1: {behind}" in faults.hits
        assert f"stream 1 sending byte 1: {behind}" in faults.hits


async def test_a_write_that_ends_there_anyway_is_not_split() -> None:
    with Faults(sending=[at_byte(3, Split()), at_byte(9, Split())]) as faults:
        near, far = memory_streams()
        stream = faults.wrap(near)
        await stream.send_all(b"abc")
        await stream.send_all(b"def")
        assert faults.hits == []
        assert await far.receive_some() == b"abcdef"
        await stream.send_all(b"ghijkl")
        assert faults.hits == ["stream 1 sending byte 9: Split()"]
