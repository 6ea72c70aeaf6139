"""What comes out is what went in, with exactly the faults that the rules say, however it was sliced."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.support import frame, task
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
    at_each_frame,
    at_frame,
    at_random,
)
from trio_ipc.testing.faultscript import FaultScript, Pause, Step

from .played import SECOND, TWO, merged, played


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
        ([at_byte(2, Duplicate())], [b"01223456789"]),
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
        (
            [at_byte(0, Dribble(2)), at_byte(1, Dribble(3, count=4)), at_byte(2, Dribble(1, count=2))],
            [b"0", b"1", b"2", b"3", b"4", b"56", b"78", b"9"],
        ),
        ([at_byte(0, Dribble(2, count=4)), at_byte(1, Dribble(3, count=3))], [b"0", b"123", b"456789"]),
        (
            [
                at_byte(0, Dribble(2, 0.5)),
                at_byte(2, Dribble(3, 2, count=3)),
                at_byte(7, Dribble(1, count=1)),
            ],
            [b"01", Pause(0.5), b"234", Pause(2), b"56", Pause(0.5), b"7", Pause(0.5), b"89", Pause(0.5)],
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


def test_a_frame_can_be_hit_at_random() -> None:
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


@given(DATA, RULES, SIZES, st.integers(0, 3), st.sampled_from([None, b"x", b"xx", b"\0x"]))
@settings(deadline=None)
def test_the_same_seed_and_bytes_meet_the_same_faults_however_they_are_sliced(
    data: bytes, rules: list[Rule], sizes: list[int], seed: int, delimiter: bytes | None
) -> None:
    hits: list[list[tuple[int, Fault]]] = [[], []]
    whole = played(data, *rules, key=str(seed), hits=hits[0], delimiter=delimiter)
    sliced = played(data, *rules, sizes=sizes, key=str(seed), hits=hits[1], delimiter=delimiter)
    assert merged(sliced) == merged(whole)
    # What matters of a fault that only parts bytes or joins them depends on where they were parted before.
    by_slices = (Split, Dribble, Merge)
    alike = [[str(hit) for hit in found if not isinstance(hit[1], by_slices)] for found in hits]
    assert sorted(alike[0]) == sorted(alike[1])


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


# --- Lines --------------------------------------------------------------------------------------------------

LINES = b"one\r\ntwo\r\n\r\nfour"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (at_frame(2, Truncate(), offset=1), b"one\r\nt\r\nfour"),
        (at_frame(2, Drop(3)), b"one\r\n\r\n\r\nfour"),
        (at_frame(3, Drop(1)), b"one\r\ntwo\r\n\nfour"),
        (at_frame(3, Drop(1), offset=2), LINES),
        (at_frame(4, Flip(0), offset=3), LINES[:-1] + b"s"),
        (at_frame(5, Drop(1)), LINES),
        (at_each_frame(Drop(1)), b"ne\r\nwo\r\n\nour"),
    ],
    ids=str,
)
@given(sizes=st.lists(st.integers(1, 4), max_size=20))
def test_a_frame_may_be_what_ends_with_a_delimiter(rule: Rule, expected: bytes, sizes: list[int]) -> None:
    assert merged(played(LINES, rule, sizes=sizes, delimiter=b"\r\n")) == [expected]


# --- What cannot be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Delay(-1), "seconds is -1, must be at least 0 and finite"),
        (lambda: Delay(math.nan), "seconds is nan"),
        (lambda: Delay(math.inf), "seconds is inf"),
        (lambda: Flip(8), "bit is 8, must be from 0 to 7"),
        (lambda: Drop(0), "count is 0, must be at least 1"),
        (lambda: Dribble(0), "size is 0"),
        (lambda: at_byte(-1, Reset()), "byte is -1"),
        (lambda: at_frame(0, Reset()), "frame is 0, must be at least 1"),
        (lambda: at_frame(1, Reset(), offset=-1), "offset is -1"),
        (lambda: at_random(0, Reset()), "probability is 0, must be above 0"),
        (lambda: at_random(1.5, Reset()), "probability is 1.5"),
        (lambda: Faults(streams=-1), "streams is -1"),
        (lambda: Faults(delimiter=b""), "delimiter is empty"),
    ],
)
def test_a_number_that_cannot_be_is_refused_at_once(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (Delay, {"seconds": True}, "seconds is True, must be a number of seconds"),
        (Delay, {"seconds": "1"}, "seconds is '1'"),
        (Flip, {"bit": True}, "bit is True, must be an int or None"),
        (Drop, {"count": 1.5}, "count is 1.5, must be an int or None"),
        (Duplicate, {"count": True}, "count is True, must be an int"),
        (Duplicate, {"count": None}, "count is None, must be an int"),
        (Merge, {"count": 2.0}, "count is 2.0"),
        (Dribble, {"size": 1.0}, "size is 1.0"),
        (at_byte, {"byte": None, "fault": Flip()}, "byte is None, must be an int"),
        (at_byte, {"byte": 1.0, "fault": Flip()}, "byte is 1.0"),
        (at_frame, {"frame": None, "fault": Flip()}, "frame is None"),
        (at_frame, {"frame": 1, "fault": Flip}, "fault is <class .*Flip.*>, must be a fault"),
        (at_random, {"probability": "0.5", "fault": Flip()}, "probability is '0.5'"),
        (at_each_frame, {"fault": Flip(), "probability": True}, "probability is True"),
        (Faults, {"sending": [Flip()]}, r"sending has Flip\(bit=None\), must have rules only"),
        (Faults, {"receiving": [None]}, "receiving has None"),
        (Faults, {"seed": "a"}, "seed is 'a'"),
        (Faults, {"streams": 1.5}, "streams is 1.5"),
        (Faults, {"delimiter": "x"}, "delimiter is 'x', must be bytes or None"),
    ],
)
def test_what_is_no_number_or_no_fault_is_refused_at_once(
    make: Callable[..., object], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        make(**arguments)
