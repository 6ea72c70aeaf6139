"""Frames, read exactly: first a header's eight bytes, then as many as it announces, and none besides.

The format is docs/wire-protocol.md's. This module must never do I/O, never take a byte of a payload whose
header it has not judged, and never give out a payload whose checksum it has not compared.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from trio_ipc.castagnoli import crc32c
from trio_ipc.config import AUTO, Crc32Setting, Crc32Variant
from trio_ipc.errors import (
    ChecksumMismatchError,
    FrameTooLargeError,
    InvalidLengthError,
    MessageEmptyError,
    MessageTooLargeError,
    ProtocolError,
    TruncatedFrameError,
    plural,
)
from trio_ipc.heap import LARGE, keep_memory

_HEADER: Final = struct.Struct("<II")

#: Bytes of a frame before its payload.
HEADER_BYTES: Final = _HEADER.size

#: Takes bytes and the checksum of those before them, which is 0 for none.
_Checksum: TypeAlias = Callable[[bytes, int], int]


def checksum_of(variant: Crc32Variant) -> _Checksum:
    """Return the checksum function of a variant."""
    return zlib.crc32 if variant is Crc32Variant.IEEE else crc32c()


def load_checksums(setting: Crc32Setting) -> None:
    """Load what a setting needs, so that no connection has to wait for it."""
    for variant in Crc32Variant if setting == AUTO else (setting,):
        checksum_of(variant)


class FrameWriter:
    """Makes frames.

    Args:
        max_frame_bytes: the largest payload, in bytes, that may be sent.
        variant: which CRC-32 the headers carry; of ``auto`` IEEE, until :meth:`use` says more.
    """

    def __init__(self, max_frame_bytes: int, variant: Crc32Setting) -> None:
        self._limit = max_frame_bytes
        self._checksum = checksum_of(Crc32Variant.IEEE if variant == AUTO else variant)

    def use(self, variant: Crc32Variant) -> None:
        """Put this variant's checksum into the headers from now on."""
        self._checksum = checksum_of(variant)

    def frames(self, payloads: Iterable[bytes]) -> bytes:
        """Return the frames of payloads, one behind the other. Raises what :meth:`check` raises."""
        parts: list[bytes] = []
        for payload in payloads:
            self.check(len(payload))
            parts += (_HEADER.pack(len(payload), self._checksum(payload, 0)), payload)
        frames = b"".join(parts)
        if len(frames) > LARGE:
            keep_memory(len(frames))
        return frames

    def check(self, size: int) -> None:
        """Judge a payload of so many bytes.

        Raises:
            MessageEmptyError: it has none, which the wire cannot carry.
            MessageTooLargeError: it has more than the limit.
        """
        if size == 0:
            raise MessageEmptyError(
                "the message encodes to no bytes, and the wire cannot carry an empty frame",
                hint="set at least one field to something else than its default, such as an identifier",
            )
        if size > self._limit:
            error = MessageTooLargeError(
                f"the message has {size} bytes, the limit max_frame_bytes is {self._limit}",
                hint="ask for less at a time, or raise max_frame_bytes on both sides",
            )
            error.size, error.limit = size, self._limit
            raise error


class FrameReader:
    """Says how much is missing, takes it, and holds one frame at a time.

    Read as many bytes as are :attr:`missing`, or fewer, :meth:`add` them, and :meth:`take` the payload once
    none is. What it holds grows with what came, not with what a header announced.

    Args:
        max_frame_bytes: the largest payload, in bytes, that is accepted.
        variant: which CRC-32 the headers carry; ``auto`` to judge by the first frame.
        endpoint: what errors call the connection.
        on_other: told which variant the first frame is of, where that is not the expected one: ``auto`` goes
            on with it, and any other setting refuses the frame.
    """

    def __init__(
        self,
        max_frame_bytes: int,
        variant: Crc32Setting,
        endpoint: str | None = None,
        on_other: Callable[[Crc32Variant], None] | None = None,
    ) -> None:
        self._limit = max_frame_bytes
        self._variant = Crc32Variant.IEEE if variant == AUTO else variant
        self._adapts = variant == AUTO
        self._is_first = True
        self._on_other = on_other
        self._endpoint = endpoint
        self._checksum = checksum_of(self._variant)
        self._header = b""
        self._length = self._expected_crc = self._crc = 0
        # It gives out what was written to it as it is. To copy 64 MiB in the end took 60 ms without a pause.
        self._partial = io.BytesIO()
        self._payload: bytes | None = None
        self._error: ProtocolError | None = None

    @property
    def has_begun(self) -> bool:
        """Whether a part of a frame is in hand, and the rest has to come."""
        return bool(self._header)

    @property
    def missing(self) -> int:
        """How many bytes are missing of the header, or of the payload; none where :meth:`take` is next."""
        if self._payload is not None or self._error is not None:
            return 0
        if len(self._header) < HEADER_BYTES:
            return HEADER_BYTES - len(self._header)
        return self._length - self._partial.tell()

    def add(self, data: bytes) -> None:
        """Take bytes that were read, no more than are :attr:`missing`."""
        if len(self._header) < HEADER_BYTES:
            self._header += data
            if len(self._header) == HEADER_BYTES:
                self._judge_header()
            return
        # As they come: the checksum of all at once would keep other tasks from their turn.
        self._crc = self._checksum(data, self._crc)
        if len(data) == self._length:
            self._finish(data)  # all of it came at once, and is not copied
            return
        self._partial.write(data)
        if self._partial.tell() == self._length:
            if self._length > LARGE:
                keep_memory(self._length)
            self._finish(self._partial.getvalue())

    def take(self) -> bytes | None:
        """Return the payload, and begin anew; None while bytes are missing.

        Raises, again and again, since where the next frame begins is not known:
            InvalidLengthError: the header announces no bytes.
            FrameTooLargeError: the header announces more than the limit.
            ChecksumMismatchError: the payload does not have its header's checksum.
        """
        if self._error is not None:
            raise self._error
        payload, self._payload = self._payload, None
        return payload

    def end(self) -> None:
        """Say that no more bytes will come.

        Raises:
            TruncatedFrameError: a part of a frame is in hand.
        """
        if len(self._header) == HEADER_BYTES:
            came, wanted = self._partial.tell(), f"{self._length} {plural(self._length, 'byte')} of payload"
        elif self._header:
            came, wanted = len(self._header), f"{HEADER_BYTES} bytes of header"
        else:
            return
        raise TruncatedFrameError(
            f"the peer closed inside a frame: {came} of {wanted} came", endpoint=self._endpoint
        )

    def _judge_header(self) -> None:
        self._length, self._expected_crc = _HEADER.unpack(self._header)
        if self._length == 0:
            self._fail(
                InvalidLengthError(
                    "a frame announces an invalid length of 0 bytes",
                    hint="this peer speaks another protocol, or is broken",
                )
            )
        elif self._length > self._limit:
            self._fail(
                FrameTooLargeError(
                    f"a frame of {self._length} bytes is too large, the limit max_frame_bytes is "
                    f"{self._limit}",
                    hint="raise max_frame_bytes, unless this peer speaks another protocol",
                )
            )

    def _finish(self, payload: bytes) -> None:
        is_first, self._is_first = self._is_first, False
        if self._crc != self._expected_crc:
            theirs = self._variant.other
            is_theirs = checksum_of(theirs)(payload, 0) == self._expected_crc
            if is_first and is_theirs and self._on_other is not None:
                self._on_other(theirs)
            if not (is_first and is_theirs and self._adapts):
                self._fail(self._bad_checksum(payload, is_theirs=is_theirs, is_first=is_first))
                return
            self._variant, self._checksum = theirs, checksum_of(theirs)
        self._payload = payload
        self._header, self._partial, self._crc = b"", io.BytesIO(), 0

    def _fail(self, error: ProtocolError) -> None:
        error.endpoint = self._endpoint
        self._error = error
        self._header, self._partial = b"", io.BytesIO()

    def _bad_checksum(self, payload: bytes, *, is_theirs: bool, is_first: bool) -> ChecksumMismatchError:
        other = self._variant.other
        if is_theirs:
            hint = f"the peer uses the {other} variant: set crc32_variant to the same on both sides"
        else:
            hint = "the bytes were damaged, or the peer speaks another protocol"
        error = ChecksumMismatchError(
            f"checksum mismatch: the header says {self._expected_crc:08x}, the payload of {len(payload)} "
            f"bytes has {self._crc:08x} ({self._variant})",
            hint=hint,
        )
        if is_theirs and is_first:
            error.peer_variant = str(other)
        return error
