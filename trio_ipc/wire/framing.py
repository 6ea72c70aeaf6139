"""Frames: ``u32`` length, ``u32`` CRC-32, payload, all integers little-endian (docs/wire-protocol.md).

:class:`FrameEncoder` turns a payload into a frame; :class:`FrameDecoder` takes bytes as they come, in any
slices, and gives whole payloads. Neither knows what a payload means. This module must never do I/O, never
buffer a payload whose header it has not judged, and never give out a payload whose checksum it has not
compared.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

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

from .checksum import checksum_for, first_guess

_HEADER = struct.Struct("<II")
_unpack_header = _HEADER.unpack_from

#: Bytes from which on a piece of a payload is kept as it came.
_SMALL_PIECE = 16_384

#: Bytes of a frame before its payload.
HEADER_BYTES = _HEADER.size


class FrameEncoder:
    """Makes frames.

    Args:
        max_frame_bytes: the largest payload, in bytes, that may be sent.
        variant: which CRC-32 goes into the header; of ``auto`` IEEE, until :meth:`use` says more.
    """

    def __init__(self, max_frame_bytes: int, variant: Crc32Setting) -> None:
        self._limit = max_frame_bytes
        self._checksum = checksum_for(first_guess(variant))

    def use(self, variant: Crc32Variant) -> None:
        """Put this variant's checksum into the headers from now on."""
        self._checksum = checksum_for(variant)

    def encode(self, payload: bytes) -> bytes:
        """Return the frame of one payload: its header and the payload itself.

        Raises what :meth:`encode_many` raises.
        """
        return self.encode_many((payload,))

    def header(self, payload: bytes) -> bytes:
        """Return the header of one payload, for who does not want to copy it. Raises as the others do."""
        size = len(payload)
        if not 0 < size <= self._limit:
            self.check(size)
        if size > LARGE:
            keep_memory(size)
        return _HEADER.pack(size, self._checksum(payload))

    def encode_many(self, payloads: Iterable[bytes]) -> bytes:
        """Return the frames of several payloads, one behind the other.

        Raises:
            MessageEmptyError: a payload has no bytes, which the wire cannot carry.
            MessageTooLargeError: a payload is larger than the limit.
        """
        pack, checksum, limit = _HEADER.pack, self._checksum, self._limit
        parts: list[bytes] = []
        for payload in payloads:
            size = len(payload)
            if not 0 < size <= limit:
                self.check(size)
            parts += (pack(size, checksum(payload)), payload)
        frames = b"".join(parts)
        if len(frames) > LARGE:
            keep_memory(len(frames))
        return frames

    def check(self, size: int) -> None:
        """Raise what :meth:`encode` raises for a payload of this many bytes."""
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


class FrameDecoder:
    """Gives whole payloads from bytes in any slices.

    Feed it what was read, then take payloads until there is none::

        decoder.feed(data)
        while payloads := decoder.next_payloads(64):
            ...

    It holds at most one frame besides what the last :meth:`feed` brought, and a partial frame's buffer
    grows with the bytes that came, not with the length that was announced: a header alone costs a peer's
    victim nothing.

    After the first error it gives that error again and again, since no later byte can be trusted.

    Args:
        max_frame_bytes: the largest payload, in bytes, that is accepted.
        variant: which CRC-32 the headers carry; ``auto`` to judge by the first frame.
        on_other: told which variant the first frame is of, where that is not the one that was expected:
            ``auto`` goes on with it, and any other setting refuses the frame.
    """

    def __init__(
        self,
        max_frame_bytes: int,
        variant: Crc32Setting,
        on_other: Callable[[Crc32Variant], None] | None = None,
    ) -> None:
        self._limit = max_frame_bytes
        self._variant = first_guess(variant)
        self._adapts = variant == AUTO
        self._on_other = on_other
        self._checksum = checksum_for(self._variant)
        # Before the first frame was taken, and after an error. One question for both: it is asked each time.
        self._is_unusual = True
        # Bytes not looked at yet, from _start on.
        self._input = b""
        self._start = 0
        # What was fed while _input still held something: usually because that was a partial header,
        # otherwise because the caller feeds ahead. Collected here, for a peer that drips bytes must not
        # have all that it sent before copied for each of them.
        self._ahead = bytearray()
        # A frame whose header was judged and whose payload is still coming, in the pieces in which it
        # comes. None between frames.
        self._pieces: list[bytes] | None = None
        self._came = 0
        self._length = 0
        self._expected_crc = 0
        self._partial_crc = 0
        self._is_first = False
        self._error: ProtocolError | None = None

    @property
    def in_frame(self) -> bool:
        """Whether bytes are in hand that no payload was made of yet."""
        return bool(self._input or self._pieces is not None or self._ahead)

    @property
    def has_input(self) -> bool:
        """Whether :meth:`next_payloads` has anything to look at, or an error to tell."""
        # Not by in_frame: it is asked several times for each message.
        return bool(self._input or self._pieces is not None or self._ahead or self._error is not None)

    @property
    def buffered(self) -> int:
        """Bytes in hand that no payload was made of yet."""
        partial = 0 if self._pieces is None else HEADER_BYTES + self._came
        return partial + len(self._input) - self._start + len(self._ahead)

    @property
    def is_full(self) -> bool:
        """Whether a whole frame of the largest size could be in hand: take before feeding more."""
        return self.buffered >= HEADER_BYTES + self._limit

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Hand over bytes in the order in which they were received.

        Raises:
            BufferError: the decoder is full, because nothing was taken for longer than a frame.
        """
        if type(data) is not bytes:
            data = bytes(data)
        if not (self._input or self._pieces is not None or self._ahead):
            self._input = data
            return
        if self.is_full:
            raise BufferError(f"{self.buffered} bytes wait in the decoder: take payloads before feeding more")
        if self._pieces is not None:
            data = self._add_piece(self._pieces, data)
        if self._ahead or self._input:
            self._ahead += data
        else:
            self._input = data

    def next_payload(self) -> bytes | None:
        """Return the next whole payload, or None until more bytes are fed.

        Raises what :meth:`next_payloads` raises.
        """
        payloads = self.next_payloads(1)
        return payloads[0] if payloads else None

    def next_payloads(self, at_most: int) -> list[bytes]:
        """Return the next whole payloads, as many as are in hand.

        Args:
            at_most: how many, from 1.

        Raises:
            InvalidLengthError: a header announces no bytes.
            FrameTooLargeError: a header announces more than the limit; its payload is not buffered.
            ChecksumMismatchError: a payload does not have its header's checksum.

        Payloads ahead of such an error are returned first.
        """
        if self._is_unusual:
            return self._next_unusual(at_most)
        payloads: list[bytes] = []
        if self._pieces is not None:
            if self._came < self._length:
                return payloads
            payloads.append(self._put_together(self._pieces))
        if self._ahead:
            self._input = self._input[self._start :] + self._ahead
            self._start = 0
            self._ahead = bytearray()
        data, start = self._input, self._start
        size, limit, checksum = len(data), self._limit, self._checksum
        # One loop for all that is in hand, instead of a method call for each.
        while len(payloads) < at_most and (begin := start + HEADER_BYTES) <= size:
            length, expected = _unpack_header(data, start)
            end = begin + length
            if not 0 < length <= limit:
                return self._fail(self._bad_length(length), payloads)
            if end > size:
                self._begin_pieces(length, expected, data[begin:])
                return payloads
            payload = data[begin:end]
            if checksum(payload) != expected:
                if payloads or not self._is_first or not self._adapt(payload, expected):
                    return self._fail(self._bad_checksum(payload, expected, payloads), payloads)
                checksum = self._checksum
            payloads.append(payload)
            start = end
        # Lets go of the read that brought it, once there is no more in it.
        self._input, self._start = (data, start) if start < size else (b"", 0)
        return payloads

    def end(self) -> None:
        """Say that no more bytes will come.

        Raises:
            TruncatedFrameError: bytes of an unfinished frame are in hand.
        """
        if self._pieces is not None:
            got, wanted = self._came, f"{self._length} {plural(self._length, 'byte')} of payload"
        elif self.buffered:
            got, wanted = self.buffered, f"{HEADER_BYTES} bytes of header"
        else:
            return
        self._fail(TruncatedFrameError(f"the peer closed inside a frame: {got} of {wanted} came"), [])

    def _begin_pieces(self, length: int, expected_crc: int, rest: bytes) -> None:
        """Collect a payload that is not all in hand."""
        self._pieces = []
        self._came = 0
        self._partial_crc = 0
        self._length, self._expected_crc = length, expected_crc
        self._input, self._start = b"", 0
        self._add_piece(self._pieces, rest)

    def _add_piece(self, pieces: list[bytes], data: bytes) -> bytes:
        """Add what belongs to the partial frame, and return the rest."""
        missing = self._length - self._came
        own, rest = (data, b"") if len(data) <= missing else (data[:missing], data[missing:])
        if pieces and len(pieces[-1]) < _SMALL_PIECE:
            # An object for each byte of a peer that drips them would cost many times what it sent.
            pieces[-1] += own
        else:
            pieces.append(own)
        self._came += len(own)
        # Piece by piece while it is warm in the cache.
        self._partial_crc = self._checksum(own, self._partial_crc)
        return rest

    def _put_together(self, pieces: list[bytes]) -> bytes:
        self._pieces = None
        if self._length > LARGE:
            keep_memory(self._length)
        # One allocation of the final size. A buffer that grew with the pieces would be moved, or get new
        # pages from the system, again and again: measured with 1 MiB, that took longer than all the rest.
        payload = b"".join(pieces)
        expected = self._expected_crc
        if self._partial_crc != expected and not (self._is_first and self._adapt(payload, expected)):
            self._fail(self._bad_checksum(payload, expected, []), [])
        return payload

    def _next_unusual(self, at_most: int) -> list[bytes]:
        """Give the error there was; or look for the first frame of all, and for what follows it."""
        if self._error is not None:
            raise self._error
        self._is_unusual, self._is_first = False, True
        try:
            payloads = self.next_payloads(at_most)
        finally:
            self._is_first = False
        self._is_unusual = not payloads or self._error is not None
        return payloads

    def _adapt(self, payload: bytes, expected: int) -> bool:
        """See whether the first frame is of the other variant; return whether to go on with that one."""
        other = self._variant.other
        if checksum_for(other)(payload) != expected:
            return False
        if self._adapts:
            self._variant, self._checksum = other, checksum_for(other)
        if self._on_other is not None:
            self._on_other(other)
        return self._adapts

    def _fail(self, error: ProtocolError, payloads: list[bytes]) -> list[bytes]:
        """Keep an error, and raise it unless there are payloads ahead of it."""
        self._error, self._is_unusual = error, True
        self._input, self._start, self._ahead, self._pieces = b"", 0, bytearray(), None
        if not payloads:
            raise error
        return payloads

    def _bad_length(self, length: int) -> ProtocolError:
        if length == 0:
            return InvalidLengthError(
                "a frame announces an invalid length of 0 bytes",
                hint="this peer speaks another protocol, or is broken",
            )
        return FrameTooLargeError(
            f"a frame of {length} bytes is too large, the limit max_frame_bytes is {self._limit}",
            hint="raise max_frame_bytes, unless this peer speaks another protocol",
        )

    def _bad_checksum(self, payload: bytes, expected: int, before: list[bytes]) -> ProtocolError:
        other = self._variant.other
        theirs = checksum_for(other)(payload)
        if theirs == expected:
            hint = f"the peer uses the {other} variant: set crc32_variant to the same on both sides"
        else:
            hint = "the bytes were damaged, or the peer speaks another protocol"
        error = ChecksumMismatchError(
            f"checksum mismatch: the header says {expected:08x}, the payload of {len(payload)} "
            f"{plural(len(payload), 'byte')} has {self._checksum(payload):08x} ({self._variant})",
            hint=hint,
        )
        if theirs == expected and self._is_first and not before:
            error.peer_variant = str(other)
        return error
