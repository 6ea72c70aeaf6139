"""Where frames end in a stream of bytes, for faults that are placed in frames.

A frame of this package begins with its length; those of other protocols end with a delimiter, as lines do.
This module must never fail, whatever the bytes: what is no frame has frames, too, of a kind.
"""

from __future__ import annotations

import abc
import math
import struct
from typing import Final

from trio_ipc.wire import HEADER_BYTES

_LENGTH: Final = struct.Struct("<I")


class Frames(abc.ABC):
    """Finds the ends of frames.

    Attributes:
        ended: whether the last byte that was taken ended a frame. True before the first byte, too.
    """

    ended = True

    @abc.abstractmethod
    def begin(self) -> None:
        """Begin the next frame."""

    @abc.abstractmethod
    def run(self, data: bytes, at: int, most: int) -> float:
        """Return how many of these bytes, from there on, may be taken before the end of the frame.

        Looks at ``most`` of them and hardly more: what is taken in small steps is not gone through at each
        of them. Where the end is not among these it is more than that.
        """

    @abc.abstractmethod
    def take(self, data: bytes) -> None:
        """Take bytes, no more than :meth:`run` has said."""


class LengthPrefixed(Frames):
    """Frames of this package (docs/wire-protocol.md)."""

    def begin(self) -> None:
        """Begin with a header."""
        self.ended = False
        self._header = b""
        self._rest: float = HEADER_BYTES

    def run(self, data: bytes, at: int, most: int) -> float:
        """Return what is left of the header, or of the frame."""
        return self._rest

    def take(self, data: bytes) -> None:
        """Take bytes; after the header it is known how many are left."""
        self._rest -= len(data)
        if len(self._header) < HEADER_BYTES:
            self._header += data
            if len(self._header) == HEADER_BYTES:
                (self._rest,) = _LENGTH.unpack_from(self._header)
        self.ended = self._rest == 0


class Delimited(Frames):
    """Frames that end with a delimiter, which belongs to them.

    Args:
        delimiter: the bytes.
    """

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = delimiter

    def begin(self) -> None:
        """Begin with nothing of the delimiter seen."""
        self.ended = False
        self._tail = b""

    def run(self, data: bytes, at: int, most: int) -> float:
        """Return how many bytes there are up to the end of the delimiter."""
        size = len(self._delimiter)
        across = (self._tail + data[at : at + size - 1]).find(self._delimiter)
        if across >= 0:
            return across + size - len(self._tail)
        found = data.find(self._delimiter, at, at + most)
        return math.inf if found < 0 else found + size - at

    def take(self, data: bytes) -> None:
        """Take bytes."""
        seen = self._tail + data
        self.ended = seen.endswith(self._delimiter)
        self._tail = seen[max(len(seen) - len(self._delimiter) + 1, 0) :]


def frames_of(delimiter: bytes | None) -> Frames:
    """Return what finds the ends of frames: by a delimiter, or by lengths if there is none."""
    return LengthPrefixed() if delimiter is None else Delimited(delimiter)
