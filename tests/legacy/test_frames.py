"""Exact reads: never more than what is missing, and never more memory than what came deserves."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ipc import (
    ChecksumMismatchError,
    Crc32Variant,
    FrameTooLargeError,
    InvalidLengthError,
    MessageEmptyError,
    MessageTooLargeError,
    ProtocolError,
    TruncatedFrameError,
)
from trio_ipc.legacy import frames as frames_module
from trio_ipc.legacy.frames import HEADER_BYTES, FrameReader, FrameWriter
from trio_ipc.wire import FrameEncoder

LIMIT = 300_000


def add(reader: FrameReader, data: bytes) -> int:
    """Give the reader what it asks for; return how much that was."""
    taken = min(reader.missing, len(data))
    reader.add(data[:taken])
    return taken


def fed(data: bytes, variant: Crc32Variant = Crc32Variant.IEEE) -> FrameReader:
    reader = FrameReader(LIMIT, variant, "there")
    while data and reader.missing:
        data = data[add(reader, data) :]
    return reader


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
    reader, data = FrameReader(LIMIT, variant), FrameWriter(LIMIT, variant).frames(payloads)
    assert data == b"".join(frame(payload, variant) for payload in payloads), "as the default writes them"
    got, start, turn = [], 0, 0
    while start < len(data):
        start += add(reader, data[start : start + steps[turn % len(steps)]])
        turn += 1
        payload = reader.take()
        assert (payload is not None) == (not reader.has_begun)
        if payload is not None:
            got.append(payload)
    assert got == payloads
    reader.end()


def test_what_is_missing_is_asked_for_and_no_byte_of_the_next_frame() -> None:
    reader = FrameReader(LIMIT, Crc32Variant.IEEE)
    data = frame(bytes(250_000))
    assert reader.missing == HEADER_BYTES
    reader.add(data[:3])
    assert reader.missing == HEADER_BYTES - 3
    reader.add(data[3:HEADER_BYTES])
    assert reader.missing == 250_000
    reader.add(data[HEADER_BYTES : HEADER_BYTES + 65_536])
    assert reader.missing == 250_000 - 65_536
    assert reader.take() is None
    reader.add(data[HEADER_BYTES + 65_536 :])
    assert not reader.missing
    assert not reader.has_begun
    assert reader.take() == bytes(250_000)
    assert reader.missing == HEADER_BYTES


def test_a_header_alone_costs_nothing_and_a_large_payload_is_not_copied_in_the_end() -> None:
    size = 32 * 1024 * 1024
    piece = bytes(65_536)
    reader = FrameReader(size, Crc32Variant.IEEE)
    tracemalloc.start()
    try:
        reader.add(FrameWriter(size, Crc32Variant.IEEE).frames([bytes(size)])[:HEADER_BYTES])
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for came in range(0, size, len(piece)):
            assert tracemalloc.get_traced_memory()[0] - before <= came * 1.2 + 100_000
            reader.add(piece)
        assert len(reader.take() or b"") == size
        assert tracemalloc.get_traced_memory()[1] - before < size * 1.3
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("taken", "said"), [(3, "3 of 8 bytes of header"), (HEADER_BYTES + 2, "2 of 5 bytes of payload")]
)
def test_the_end_inside_a_frame_says_what_is_missing(taken: int, said: str) -> None:
    reader = fed(frame(b"hello")[:taken])
    assert reader.has_begun
    with pytest.raises(TruncatedFrameError, match=f"there: .*{said}"):
        reader.end()


@pytest.mark.parametrize("variant", Crc32Variant)
def test_the_other_variant_is_recognized(variant: Crc32Variant) -> None:
    other = next(each for each in Crc32Variant if each is not variant)
    for data, hint in (
        (frame(b"hello", other), f"uses the {other} variant"),
        (frame(b"hi")[:-1] + b"!", "d"),
    ):
        with pytest.raises(ChecksumMismatchError, match=hint):
            fed(data, variant).take()


@pytest.mark.parametrize(
    ("header", "error"),
    [(bytes(8), InvalidLengthError), ((LIMIT + 1).to_bytes(4, "little") + bytes(4), FrameTooLargeError)],
)
def test_a_length_is_judged_before_the_payload_comes_and_ends_the_reading(
    header: bytes, error: type[ProtocolError]
) -> None:
    reader = fed(header)
    assert not reader.missing, "nothing more is to be read"
    for _ in range(2):
        with pytest.raises(error, match=r"^there: "):
            reader.take()
    reader.end()


@pytest.mark.parametrize(("size", "error"), [(0, MessageEmptyError), (LIMIT + 1, MessageTooLargeError)])
def test_of_several_payloads_none_is_framed_if_the_wire_cannot_carry_one(
    size: int, error: type[Exception]
) -> None:
    writer = FrameWriter(LIMIT, Crc32Variant.IEEE)
    with pytest.raises(error):
        writer.frames([b"good", bytes(size)])
    writer.check(LIMIT)


def test_the_memory_of_large_payloads_is_kept_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    monkeypatch.setattr(frames_module, "keep_memory", kept.append)
    writer, reader = FrameWriter(1 << 20, Crc32Variant.IEEE), FrameReader(1 << 20, Crc32Variant.IEEE)
    small, large = (writer.frames([bytes(size)]) for size in (65_536 - HEADER_BYTES, 65_537))
    assert kept == [65_537 + HEADER_BYTES]
    kept.clear()
    for frame in (small, large):
        reader.add(frame[:HEADER_BYTES])
        for piece in (frame[HEADER_BYTES:20_000], frame[20_000:]):
            reader.add(piece)
        assert reader.take() == frame[HEADER_BYTES:]
    assert kept == [65_537]
