"""Exact reads: never more than what is missing, and never more room than what came deserves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ipc import (
    ChecksumMismatchError,
    Crc32Variant,
    MessageEmptyError,
    MessageTooLargeError,
    TruncatedFrameError,
)
from trio_ipc.legacy.frames import HEADER_BYTES, FrameReader, FrameWriter
from trio_ipc.wire import FrameEncoder

LIMIT = 300_000


def fill(reader: FrameReader, data: bytes) -> bytearray | None:
    """Put bytes where the reader wants them, as a system call would."""
    assert len(data) <= len(reader.room)
    reader.room[: len(data)] = data
    return reader.took(len(data))


def frame(payload: bytes, variant: Crc32Variant = Crc32Variant.IEEE) -> bytes:
    return FrameEncoder(LIMIT, variant).encode(payload)


@given(
    payloads=st.lists(st.binary(min_size=1, max_size=200), max_size=5),
    steps=st.lists(st.integers(1, 50), min_size=1),
    variant=st.sampled_from(Crc32Variant),
)
def test_frames_in_any_slices_give_the_payloads_that_went_in(
    payloads: list[bytes], steps: list[int], variant: Crc32Variant
) -> None:
    reader, writer = FrameReader(LIMIT, variant), FrameWriter(LIMIT, variant)
    data = b"".join(writer.header(payload) + payload for payload in payloads)
    assert data == b"".join(frame(payload, variant) for payload in payloads), "as the default writes them"
    got, start, turn = [], 0, 0
    while start < len(data):
        count = min(steps[turn % len(steps)], len(reader.room), len(data) - start)
        payload = fill(reader, data[start : start + count])
        if payload is not None:
            got.append(bytes(payload))
        start, turn = start + count, turn + 1
    assert got == payloads
    assert not reader.has_begun
    reader.end()


def test_room_is_for_what_is_missing_and_grows_with_what_came() -> None:
    reader = FrameReader(LIMIT, Crc32Variant.IEEE)
    data = frame(bytes(250_000))
    assert len(reader.room) == HEADER_BYTES
    assert fill(reader, data[:HEADER_BYTES]) is None
    rooms: list[int] = []
    payload = None
    start = HEADER_BYTES
    while start < len(data):
        rooms.append(len(reader.room))
        payload = fill(reader, data[start : start + rooms[-1]])
        start += rooms[-1]
    assert rooms == [65_536, 65_536, 118_928], "at most as much again as has come"
    assert payload is not None
    assert bytes(payload) == bytes(250_000)
    assert len(reader.room) == HEADER_BYTES


@pytest.mark.parametrize(
    ("taken", "said"), [(3, "3 of 8 bytes of header"), (HEADER_BYTES + 2, "2 of 5 bytes of payload")]
)
def test_the_end_inside_a_frame_says_what_is_missing(taken: int, said: str) -> None:
    reader = FrameReader(LIMIT, Crc32Variant.IEEE)
    data = frame(b"hello")[:taken]
    while data:
        part, data = data[: len(reader.room)], data[len(reader.room) :]
        fill(reader, part)
    assert reader.has_begun
    with pytest.raises(TruncatedFrameError, match=said):
        reader.end()


@pytest.mark.parametrize("variant", Crc32Variant)
def test_the_other_variant_is_recognized(variant: Crc32Variant) -> None:
    other = next(each for each in Crc32Variant if each is not variant)
    for data, hint in (
        (frame(b"hello", other), f"uses the {other} variant"),
        (frame(b"hi")[:-1] + b"!", "d"),
    ):
        reader = FrameReader(LIMIT, variant)
        fill(reader, data[:HEADER_BYTES])
        with pytest.raises(ChecksumMismatchError, match=hint):
            fill(reader, data[HEADER_BYTES:])


@pytest.mark.parametrize(("size", "error"), [(0, MessageEmptyError), (LIMIT + 1, MessageTooLargeError)])
def test_what_the_wire_cannot_carry_gets_no_header(size: int, error: type[Exception]) -> None:
    writer = FrameWriter(LIMIT, Crc32Variant.IEEE)
    with pytest.raises(error):
        writer.header(bytes(size))
    writer.check(LIMIT)
