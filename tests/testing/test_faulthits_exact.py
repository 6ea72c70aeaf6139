"""Faults that changed nothing, as all would have come so without them, are no hits."""

from __future__ import annotations

import pytest

from trio_ipc.testing import (
    Dribble,
    Drop,
    EndOfFile,
    Fault,
    Faults,
    Rule,
    Split,
    Truncate,
    at_byte,
    memory_streams,
)

from .played import played


@pytest.mark.parametrize(
    ("fault", "at", "asked", "is_hit"),
    [
        (Split(), 4, [4, 6], False),
        (Split(), 4, [5, 6], True),
        (Split(), 4, [3, 1, 6], False),
        (Split(), 4, [3, 2, 6], True),
        (Dribble(4), 0, [4, 4, 2], False),
        (Dribble(4), 0, [4, 5, 2], True),
        (Dribble(4), 0, [5, 4, 2], True),
    ],
    ids=str,
)
async def test_a_border_counts_if_more_was_asked_for_than_up_to_it(
    fault: Fault, at: int, asked: list[int], is_hit: bool
) -> None:
    near, far = memory_streams()
    faults = Faults(receiving=[at_byte(at, fault)])
    faulty = faults.wrap(near)
    await far.send_all(b"0123456789")
    for most in asked:
        await faulty.receive_some(most)
    assert faults.hits == [f"stream 1 receiving byte {at}: {fault}"] * is_hit


@pytest.mark.parametrize("behind", ["nothing", "an end", "bytes with it", "bytes later", "a reset"])
async def test_an_end_of_file_counts_if_the_peer_had_not_ended_there(behind: str) -> None:
    near, far = memory_streams()
    faults = Faults(receiving=[at_byte(4, EndOfFile())])
    faulty = faults.wrap(near)
    await far.send_all(b"abcdef" if behind == "bytes with it" else b"abcd")
    if behind in {"an end", "bytes with it"}:
        await far.aclose()
    assert await faulty.receive_some() == b"abcd"
    if behind == "bytes later":
        await far.send_all(b"ef")
        await far.send_eof()
    elif behind == "a reset":
        far.reset()
    assert faults.hits == []
    for _ in range(2):
        assert await faulty.receive_some() == b""
    assert faults.hits == ["stream 1 receiving byte 4: EndOfFile()"] * (behind != "an end")


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([at_byte(0, Drop(5)), at_byte(1, Drop(4))], [0]),
        ([at_byte(0, Drop(5)), at_byte(1, Drop(5))], [0, 1]),
        ([at_byte(0, Drop(None)), at_byte(1, Drop(None)), at_byte(2, Truncate())], [0]),
        ([at_byte(0, Drop(8)), at_byte(1, Truncate())], [0]),
        ([at_byte(0, Drop(3)), at_byte(1, Truncate())], [0, 1]),
        ([at_byte(0, Truncate()), at_byte(1, Drop(3)), at_byte(2, Truncate())], [0]),
        ([at_byte(0, Truncate()), at_byte(1, Drop(7))], [0, 1]),
        ([at_byte(0, Drop(2)), at_byte(2, Drop(2))], [0, 2]),
    ],
    ids=str,
)
def test_a_loss_counts_if_it_loses_what_no_other_does(rules: list[Rule], expected: list[int]) -> None:
    hits: list[tuple[int, Fault]] = []
    played(b"01234x789ax", *rules, hits=hits, delimiter=b"x")
    assert [at for at, _ in hits] == expected
