"""Frames by hand: made, spoilt, and read from a connection, with what is wrong with them.

A frame that is wrong is told, never raised: what is wrong is what a check is there for. This module must not
use :mod:`trio_ipc.wire`'s framing; of its checksums it takes the libraries.
"""

from __future__ import annotations

import contextlib
import enum
import struct
from types import TracebackType
from typing import Final, Self

import attrs
import trio

from trio_ipc.channel import close_at_once
from trio_ipc.config import Crc32Variant, IpcConfig
from trio_ipc.errors import plural
from trio_ipc.transports import LocalStream, PeerState
from trio_ipc.wire.checksum import checksum_for

HEADER: Final = struct.Struct("<II")

#: Bytes of the largest payload that is made: both peers hold it several times.
LARGEST: Final = 64 * 1024 * 1024

_READ_SIZE: Final = 65_536

#: Bytes of a frame that are sent one by one: its header, and some.
BYTE_BY_BYTE: Final = 12

#: Seconds between two of these bytes.
BETWEEN_BYTES: Final = 0.005

#: Begins with a tag that no varint may have: more than ten bytes, each with the bit that says "go on". No
#: decoder of protobuf takes it, for any message ("Encoding", "Base 128 Varints" of protobuf's documentation).
NO_MESSAGE: Final = b"\xff" * 16

#: The largest number of a field. What no schema has, a decoder skips.
_PADDING_FIELD: Final = 536_870_911


def too_slow(what: str, began: float, config: IpcConfig) -> str | None:
    """Say that something took longer than a peer may wait for a frame; None where it did not.

    On a machine that is busy it may, and the peer was right to close. So this is asked at once after it.

    Args:
        what: it.
        began: when it began.
        config: the peer's.
    """
    took = 1000 * (trio.current_time() - began)
    if took < config.read_timeout_ms:
        return None
    return f"{what} took {took:.0f} ms here, and read_timeout_ms is {config.read_timeout_ms}"


class End(enum.Enum):
    """What came in place of a frame."""

    CLOSED = "it closed"
    RESET = "it reset the connection"
    CUT = "it closed inside a frame"
    SILENT = "nothing came"
    PART = "a frame began and did not come to its end"

    @property
    def over(self) -> bool:
        """Whether the peer has ended the connection."""
        return self in {End.CLOSED, End.RESET, End.CUT}


@attrs.frozen
class Frame:
    """A frame as it came.

    Attributes:
        length: as the header announces it.
        checksum: as the header has it.
        payload: what came; nothing where the length is not within the limit.
        readable: whether the length is within the limit, so that the next frame can be found.
    """

    length: int
    checksum: int
    payload: bytes
    readable: bool

    def has_sum_of(self, variant: Crc32Variant) -> bool:
        """Whether the checksum is this variant's."""
        return self.checksum == checksum_for(variant)(self.payload)

    @property
    def variant(self) -> Crc32Variant | None:
        """The variant whose checksum it has, None for neither."""
        return next((variant for variant in Crc32Variant if self.has_sum_of(variant)), None)

    @property
    def problem_of_length(self) -> str | None:
        """What is wrong with the length, None if nothing is."""
        if self.readable:
            return None
        turned = int.from_bytes(self.length.to_bytes(4, "little"), "big")
        guess = f", which is {turned:,} in big-endian" if 0 < turned < self.length else ""
        return f"its length is {self.length:,}{guess}"

    @property
    def problem_of_checksum(self) -> str | None:
        """What is wrong with the checksum, None if it is one of either variant."""
        if self.variant is not None:
            return None
        turned = int.from_bytes(self.checksum.to_bytes(4, "little"), "big")
        for variant in Crc32Variant:
            if turned == checksum_for(variant)(self.payload):
                return f"its checksum {self.checksum:08x} is that of {variant} with its bytes turned round"
        sums = [(variant, checksum_for(variant)(self.payload)) for variant in Crc32Variant]
        right = " or ".join(f"{one:08x} ({variant})" for variant, one in sums)
        return f"its checksum is {self.checksum:08x}, must be {right}"


def framed(payload: bytes, variant: Crc32Variant) -> bytes:
    """Return the frame of a payload."""
    return HEADER.pack(len(payload), checksum_for(variant)(payload)) + payload


def damaged(payload: bytes, variant: Crc32Variant) -> bytes:
    """Return a frame whose checksum is that of neither variant."""
    wrong = checksum_for(variant)(payload) ^ 0x5A5A5A5A
    if wrong == checksum_for(variant.other)(payload):
        wrong ^= 1
    return HEADER.pack(len(payload), wrong) + payload


def padded(payload: bytes, size: int) -> bytes | None:
    """Return the same message in exactly so many bytes, by fields that decoders skip; None if that can't be.

    Args:
        payload: an encoded message.
        size: at least 6 bytes more than it has, or as many.
    """
    missing = size - len(payload)
    if missing == 0:
        return payload
    tag = _varint(_PADDING_FIELD << 3 | 2)
    for length_size in range(1, 6):
        length = missing - len(tag) - length_size
        if length >= 0 and len(_varint(length)) == length_size:
            return payload + tag + _varint(length) + bytes(length)
    # No length fits where it takes a byte more itself: one small field before, and then one does.
    number = _varint(_PADDING_FIELD << 3) + b"\1"
    return padded(payload + number, size) if missing > 2 * len(number) else None


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


class RawConnection:
    """One end of a connection, by bytes and frames. An ``async with`` block closes it.

    Args:
        stream: the connection, which is owned.
        limit: bytes of a payload from which on a length is wrong.
    """

    def __init__(self, stream: LocalStream, limit: int) -> None:
        self.stream = stream
        self._limit = limit
        self._buffer = bytearray()
        self._end: End | None = None

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await close_at_once(self.stream)

    @property
    def can_half_close(self) -> bool:
        """Whether the sending side can be closed by itself: Windows' pipes cannot."""
        return isinstance(self.stream, trio.abc.HalfCloseableStream)

    @property
    def has_more(self) -> bool:
        """Whether something has come already that was not taken."""
        return bool(self._buffer) or self.stream.peer_state() is PeerState.HAS_INPUT

    @property
    def partial(self) -> str:
        """What has come of a frame that is not whole."""
        if len(self._buffer) < HEADER.size:
            return f"{len(self._buffer)} {plural(len(self._buffer), 'byte')} of a header"
        announced = HEADER.unpack_from(self._buffer)[0]
        came = len(self._buffer) - HEADER.size
        return f"{came:,} of the {announced:,} {plural(announced, 'byte')} that it announced"

    async def send(self, data: bytes, within: float) -> bool:
        """Send bytes, and return whether the peer took all of them.

        Args:
            data: anything.
            within: seconds.
        """
        with trio.move_on_after(within):
            try:
                await self.stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False
            return True
        return False

    async def send_one_by_one(self, data: bytes, within: float) -> int:
        """Send bytes one by one, with a pause after each, and return for how many there was time.

        Args:
            data: bytes.
            within: seconds. A machine that is busy may need several times what the pauses take.
        """
        sent = 0
        with (
            trio.move_on_after(within),
            contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError),
        ):
            while sent < len(data):
                await self.stream.send_all(data[sent : sent + 1])  # cancelled, it has not sent one byte
                sent += 1
                await trio.sleep(BETWEEN_BYTES)
        return sent

    async def send_eof(self) -> bool:
        """Close the sending side, and return whether that can be done."""
        if not isinstance(self.stream, trio.abc.HalfCloseableStream):
            return False
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # reading will tell
            await self.stream.send_eof()
        return True

    async def frame(self, within: float) -> Frame | End:
        """Wait for the next frame, or for what comes in its place.

        Args:
            within: seconds.

        After a frame that is not readable everything that follows is lost.
        """
        with trio.move_on_after(within):
            while True:
                frame = self._take()
                if frame is not None:
                    return frame
                if self._end is not None:
                    return self._end
                await self._read()
        return End.PART if self._buffer else End.SILENT

    def _take(self) -> Frame | None:
        if len(self._buffer) < HEADER.size:
            return None
        length, checksum = HEADER.unpack_from(self._buffer)
        readable = 1 <= length <= self._limit
        end = HEADER.size + (length if readable else 0)
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[HEADER.size : end])
        del self._buffer[: end if readable else len(self._buffer)]
        return Frame(length, checksum, payload, readable)

    async def _read(self) -> None:
        try:
            data = await self.stream.receive_some(_READ_SIZE)
        except trio.BrokenResourceError:
            self._end = End.RESET
            return
        self._buffer += data
        if not data:
            self._end = End.CUT if self._buffer else End.CLOSED
