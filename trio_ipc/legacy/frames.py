"""Frames, read exactly: first a header's eight bytes, then as many as it announces, and none besides.

The format is docs/wire-protocol.md's. This module must never do I/O, never make room for a payload whose
header it has not judged, and never give out a payload whose checksum it has not compared.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Final, TypeAlias

from trio_ipc.config import Crc32Variant
from trio_ipc.errors import (
    ChecksumMismatchError,
    FrameTooLargeError,
    InvalidLengthError,
    MessageEmptyError,
    MessageTooLargeError,
    TruncatedFrameError,
)

_HEADER: Final = struct.Struct("<II")

#: Bytes of a frame before its payload.
HEADER_BYTES: Final = _HEADER.size

#: Room for a payload is made for so much at first, and doubled as it fills: a header alone must not cost
#: its receiver what it announces.
_FIRST_ROOM: Final = 65_536

_Checksum: TypeAlias = Callable[[bytes | bytearray], int]


def _castagnoli() -> _Checksum:
    # Imported where it is asked for; IEEE, the default, needs the standard library alone.
    import google_crc32c  # noqa: PLC0415

    def crc32c(data: bytes | bytearray) -> int:
        crc: int = google_crc32c.value(data if isinstance(data, bytes) else bytes(data))
        return crc

    return crc32c


def checksum_of(variant: Crc32Variant) -> _Checksum:
    """Return the checksum function of a variant. Raises ImportError where its library is missing."""
    return zlib.crc32 if variant is Crc32Variant.IEEE else _castagnoli()


class FrameWriter:
    """Makes headers.

    Args:
        max_frame_bytes: the largest payload, in bytes, that may be sent.
        variant: which CRC-32 the headers carry.
    """

    def __init__(self, max_frame_bytes: int, variant: Crc32Variant) -> None:
        self._limit = max_frame_bytes
        self._checksum = checksum_of(variant)

    def header(self, payload: bytes) -> bytes:
        """Return what goes before a payload. Raises what :meth:`check` raises."""
        self.check(len(payload))
        return _HEADER.pack(len(payload), self._checksum(payload))

    def check(self, size: int) -> None:
        """Judge a payload of so many bytes.

        Raises:
            MessageEmptyError: it has none, which the wire cannot carry.
            MessageTooLargeError: it has more than the limit.
        """
        if size == 0:
            raise MessageEmptyError(
                "the message encodes to no bytes, and the wire cannot carry an empty frame",
                hint="set at least one field to something else than its default (a task_id, for one)",
            )
        if size > self._limit:
            error = MessageTooLargeError(
                f"the message has {size} bytes, the limit max_frame_bytes is {self._limit}",
                hint="ask for less at a time, or raise max_frame_bytes on both sides",
            )
            error.size, error.limit = size, self._limit
            raise error


class FrameReader:
    """Says what is missing, and takes it.

    Read into :attr:`room` as much as comes, say so with :meth:`took`, and go on until that gives a payload::

        while (payload := reader.took(sock.recv_into(reader.room))) is None: ...

    After an error nothing more must be read: where the next frame begins is not known.

    Args:
        max_frame_bytes: the largest payload, in bytes, that is accepted.
        variant: which CRC-32 the headers carry.

    Attributes:
        room: where the next bytes belong. Never more than what is missing.
    """

    def __init__(self, max_frame_bytes: int, variant: Crc32Variant) -> None:
        self._limit = max_frame_bytes
        self._variant = variant
        self._checksum = checksum_of(variant)
        self._header = bytearray(HEADER_BYTES)
        self._payload: bytearray | None = None
        self._length = 0
        self._crc = 0
        self._filled = 0
        self.room = memoryview(self._header)

    @property
    def has_begun(self) -> bool:
        """Whether a part of a frame is in hand."""
        return self._payload is not None or self._filled > 0

    def took(self, count: int) -> bytearray | None:
        """Note that so many bytes were read into :attr:`room`.

        Returns:
            The payload, if that made the frame whole.

        Raises:
            InvalidLengthError: the header announces no bytes.
            FrameTooLargeError: the header announces more than the limit.
            ChecksumMismatchError: the payload does not have its header's checksum.
        """
        self._filled += count
        if count < len(self.room):
            self.room = self.room[count:]
            return None
        if self._payload is None:
            self._begin_payload()
            return None
        if self._filled < self._length:
            self._make_room(self._payload)
            return None
        return self._finish(self._payload)

    def end(self) -> None:
        """Say that no more bytes will come.

        Raises:
            TruncatedFrameError: a part of a frame is in hand.
        """
        if self._payload is not None:
            wanted = f"{self._length} bytes of payload"
        elif self._filled:
            wanted = f"{HEADER_BYTES} bytes of header"
        else:
            return
        raise TruncatedFrameError(f"the peer closed inside a frame: {self._filled} of {wanted} came")

    def _begin_payload(self) -> None:
        self._length, self._crc = _HEADER.unpack(self._header)
        if not 0 < self._length <= self._limit:
            raise self._bad_length()
        self._payload = bytearray(min(self._length, _FIRST_ROOM))
        self._filled = 0
        self.room = memoryview(self._payload)

    def _make_room(self, payload: bytearray) -> None:
        self.room.release()  # a bytearray that somebody looks into cannot grow
        payload.extend(bytes(min(len(payload), self._length - len(payload))))
        self.room = memoryview(payload)[self._filled :]

    def _finish(self, payload: bytearray) -> bytearray:
        self.room = memoryview(self._header)
        self._payload, self._filled = None, 0
        if self._checksum(payload) != self._crc:
            raise self._bad_checksum(payload)
        return payload

    def _bad_length(self) -> InvalidLengthError | FrameTooLargeError:
        if self._length == 0:
            return InvalidLengthError(
                "a frame announces an invalid length of 0 bytes",
                hint="this peer speaks another protocol, or is broken",
            )
        return FrameTooLargeError(
            f"a frame of {self._length} bytes is too large, the limit max_frame_bytes is {self._limit}",
            hint="raise max_frame_bytes, unless this peer speaks another protocol",
        )

    def _bad_checksum(self, payload: bytearray) -> ChecksumMismatchError:
        other = Crc32Variant.CASTAGNOLI if self._variant is Crc32Variant.IEEE else Crc32Variant.IEEE
        if checksum_of(other)(payload) == self._crc:
            hint = f"the peer uses the {other} variant: set crc32_variant to the same on both sides"
        else:
            hint = "the bytes were damaged, or the peer speaks another protocol"
        return ChecksumMismatchError(
            f"checksum mismatch: the header says {self._crc:08x}, the payload of {len(payload)} bytes has "
            f"{self._checksum(payload):08x} ({self._variant})",
            hint=hint,
        )
