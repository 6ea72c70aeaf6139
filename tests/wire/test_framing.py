from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ipc import (
    ChecksumMismatchError,
    Crc32Variant,
    FrameTooLargeError,
    InvalidLengthError,
    IpcError,
    MessageEmptyError,
    MessageTooLargeError,
    ProtocolError,
    TruncatedFrameError,
)
from trio_ipc.wire import HEADER_BYTES, FrameDecoder, FrameEncoder, framing

LIMIT = 300
variants = st.sampled_from(Crc32Variant)
payloads = st.lists(st.binary(min_size=1, max_size=LIMIT), max_size=8)


def frame_of(payload: bytes, variant: Crc32Variant = Crc32Variant.IEEE) -> bytes:
    return FrameEncoder(1 << 20, variant).encode(payload)


def ieee_decoder(limit: int = LIMIT) -> FrameDecoder:
    return FrameDecoder(limit, Crc32Variant.IEEE)


def take_all(decoder: FrameDecoder) -> list[bytes]:
    taken = []
    while (payload := decoder.next_payload()) is not None:
        taken.append(bytes(payload))
    return taken


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


# --- Encoding -----------------------------------------------------------------------------------------------


def test_a_frame_is_length_and_checksum_little_endian_and_the_payload() -> None:
    assert frame_of(b"123456789") == struct.pack("<II", 9, 0xCBF43926) + b"123456789"


def test_a_payload_of_exactly_the_limit_is_sent_and_received() -> None:
    payload = bytes(LIMIT)
    decoder = ieee_decoder()
    decoder.feed(FrameEncoder(LIMIT, Crc32Variant.IEEE).encode(payload))
    assert take_all(decoder) == [payload]


def test_an_empty_payload_cannot_be_sent_and_the_error_says_what_to_do() -> None:
    with pytest.raises(MessageEmptyError, match=r"no bytes.*set at least one field"):
        frame_of(b"")


def test_a_payload_over_the_limit_cannot_be_sent_and_the_error_names_both_sizes() -> None:
    with pytest.raises(
        MessageTooLargeError, match=f"{LIMIT + 1} bytes.*max_frame_bytes is {LIMIT}"
    ) as caught:
        FrameEncoder(LIMIT, Crc32Variant.IEEE).encode(bytes(LIMIT + 1))
    assert (caught.value.size, caught.value.limit) == (LIMIT + 1, LIMIT)


# --- Decoding -----------------------------------------------------------------------------------------------


def until_error(take: Callable[[], list[bytes]]) -> tuple[list[bytes], str]:
    """Take until there is nothing, or an error, and return what it says."""
    taken: list[bytes] = []
    try:
        while some := take():
            taken += some
    except ProtocolError as exc:
        return taken, str(exc)
    return taken, ""


@given(payloads, st.lists(st.integers(min_value=0), max_size=12), variants)
def test_any_payloads_cut_anywhere_come_out_the_same(
    sent: list[bytes], places: list[int], variant: Crc32Variant
) -> None:
    decoder = FrameDecoder(LIMIT, variant)
    received: list[bytes] = []
    for piece in cut(b"".join(frame_of(payload, variant) for payload in sent), places):
        decoder.feed(piece)
        received += take_all(decoder)
    assert received == sent
    assert decoder.buffered == 0
    decoder.end()


@given(st.binary(min_size=1, max_size=40), st.integers(min_value=0), st.booleans(), variants)
def test_any_single_bit_flipped_is_an_error_or_a_wait_never_a_wrong_message(
    payload: bytes, place: int, one_byte_at_a_time: bool, variant: Crc32Variant
) -> None:
    damaged = bytearray(frame_of(payload, variant))
    place %= len(damaged) * 8
    damaged[place // 8] ^= 1 << place % 8
    decoder = FrameDecoder(LIMIT, variant)
    try:
        for piece in cut(bytes(damaged), list(range(len(damaged))) if one_byte_at_a_time else []):
            decoder.feed(piece)
            assert take_all(decoder) == []
    except ProtocolError:
        return
    assert decoder.buffered == len(damaged)  # it waits: the length was made longer


@given(st.lists(st.binary(max_size=2 * LIMIT), max_size=12))
def test_whatever_it_is_fed_it_holds_at_most_one_frame_once_drained(pieces: list[bytes]) -> None:
    decoder = ieee_decoder()
    for piece in pieces:
        decoder.feed(piece)
        assert decoder.buffered < HEADER_BYTES + LIMIT + len(piece)
        try:
            take_all(decoder)
        except ProtocolError:
            assert decoder.buffered == 0
            return
        assert decoder.buffered < HEADER_BYTES + LIMIT


@given(payloads.filter(bool), st.data())
def test_fed_ahead_without_taking_it_refuses_before_it_holds_more_than_a_frame_and_a_read(
    sent: list[bytes], data: st.DataObject
) -> None:
    decoder = ieee_decoder()
    stream = b"".join(frame_of(payload) for payload in sent * 40)
    read = data.draw(st.integers(min_value=1, max_value=100))
    position = 0
    while position < len(stream):
        if decoder.is_full:
            with pytest.raises(BufferError, match="take payloads"):
                decoder.feed(b"x")
            break
        decoder.feed(stream[position : position + read])
        position += read
        assert decoder.buffered < HEADER_BYTES + LIMIT + read
    expected = sent * 40
    taken = take_all(decoder)
    assert taken == expected[: len(taken)]


def test_the_length_is_judged_before_a_payload_byte_comes() -> None:
    decoder = ieee_decoder()
    decoder.feed(struct.pack("<II", LIMIT + 1, 0))
    with pytest.raises(FrameTooLargeError, match=f"{LIMIT + 1} bytes is too large.*is {LIMIT}"):
        decoder.next_payload()


def test_a_header_that_announces_much_costs_nothing_until_the_bytes_come() -> None:
    decoder = ieee_decoder(1 << 30)
    decoder.feed(struct.pack("<II", 1 << 30, 0) + b"x")
    assert decoder.next_payload() is None
    assert decoder.buffered == HEADER_BYTES + 1


def test_a_length_of_zero_is_refused() -> None:
    decoder = ieee_decoder()
    decoder.feed(bytes(HEADER_BYTES))
    with pytest.raises(InvalidLengthError, match="0 bytes; this peer speaks another protocol"):
        decoder.next_payload()


def test_frames_before_a_broken_one_are_still_given() -> None:
    decoder = ieee_decoder()
    decoder.feed(frame_of(b"good") + bytes(HEADER_BYTES))
    assert decoder.next_payload() == b"good"
    with pytest.raises(InvalidLengthError):
        decoder.next_payload()


def test_after_an_error_it_gives_nothing_but_that_error() -> None:
    decoder = ieee_decoder()
    decoder.feed(bytes(HEADER_BYTES))
    with pytest.raises(InvalidLengthError) as first:
        decoder.next_payload()
    decoder.feed(frame_of(b"good"))
    with pytest.raises(InvalidLengthError) as second:
        decoder.next_payload()
    assert second.value is first.value


@pytest.mark.parametrize("step", [5, 1 << 20])
@pytest.mark.parametrize("variant", Crc32Variant)
def test_a_checksum_of_the_other_variant_is_recognized(variant: Crc32Variant, step: int) -> None:
    theirs = next(other for other in Crc32Variant if other is not variant)
    decoder = FrameDecoder(LIMIT, variant)
    frame = frame_of(b"a payload", theirs)
    pieces = [frame[start : start + step] for start in range(0, len(frame), step)]
    for piece in pieces[:-1]:
        decoder.feed(piece)
        assert decoder.next_payload() is None
    decoder.feed(pieces[-1])
    with pytest.raises(ChecksumMismatchError, match=f"9 bytes.*the peer uses the {theirs} variant"):
        decoder.next_payload()


def test_a_damaged_payload_is_told_from_a_wrong_variant() -> None:
    decoder = ieee_decoder()
    decoder.feed(frame_of(b"good")[:-1] + b"x")
    with pytest.raises(ChecksumMismatchError, match="damaged"):
        decoder.next_payload()


@pytest.mark.parametrize(("came", "said"), [(3, "3 of 8 bytes of header"), (10, "2 of 4 bytes of payload")])
def test_the_end_inside_a_frame_says_what_is_missing(came: int, said: str) -> None:
    decoder = ieee_decoder()
    decoder.feed(frame_of(b"good")[:came])
    assert decoder.next_payload() is None
    with pytest.raises(TruncatedFrameError, match=said):
        decoder.end()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("variant", Crc32Variant)
def test_any_kind_of_buffer_may_be_fed(
    kind: type[bytes] | type[bytearray] | type[memoryview], variant: Crc32Variant
) -> None:
    decoder = FrameDecoder(LIMIT, variant)
    decoder.feed(kind(frame_of(b"good", variant)[:9]))
    assert decoder.next_payload() is None
    decoder.feed(kind(frame_of(b"good", variant)[9:]))
    assert decoder.next_payload() == b"good"


def test_what_the_caller_does_to_its_buffer_afterwards_changes_nothing() -> None:
    buffer = bytearray(frame_of(b"good"))
    decoder = ieee_decoder()
    decoder.feed(buffer)
    buffer[:] = bytes(len(buffer))
    assert decoder.next_payload() == b"good"


def test_every_error_of_the_codec_is_an_ipc_error() -> None:
    assert issubclass(ProtocolError, IpcError)
    assert issubclass(MessageTooLargeError, IpcError)


def test_the_memory_of_large_payloads_is_kept_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    monkeypatch.setattr(framing, "keep_memory", kept.append)
    encoder = FrameEncoder(1 << 20, Crc32Variant.IEEE)
    for size in (65_536, 65_537):
        encoder.header(bytes(size))
    assert kept == [65_537]
    frame = encoder.encode(bytes(65_537))
    encoder.encode_many([bytes(40_000)] * 2)
    encoder.encode(bytes(65_536 - HEADER_BYTES))
    assert kept == [65_537, 65_537 + HEADER_BYTES, 2 * (40_000 + HEADER_BYTES)], "what is joined counts"
    kept.clear()
    decoder = ieee_decoder(1 << 20)
    for sent in (frame, frame_of(bytes(65_536 - HEADER_BYTES))):
        decoder.feed(sent[:-1])
        assert decoder.next_payload() is None
        decoder.feed(sent[-1:])
        assert decoder.next_payload() == sent[HEADER_BYTES:]
    assert kept == [65_537]


def test_bytes_that_drip_are_put_together_up_to_16_kib() -> None:
    decoder = ieee_decoder(1 << 20)
    decoder.feed(frame_of(bytes(100_000))[:HEADER_BYTES])
    assert decoder.next_payload() is None
    for size in (16_383, 1, 10):
        decoder.feed(bytes(size))
        assert decoder.next_payload() is None
    assert decoder._pieces is not None
    assert [len(piece) for piece in decoder._pieces] == [16_384, 10]
