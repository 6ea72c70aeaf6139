"""Writes what goes over streams as packets, for Wireshark and whatever else reads pcapng.

The file is of one section with one interface, of LINKTYPE_USER0 (draft-ietf-opsawg-pcapng). A packet is a
whole frame, what is no frame, or what else happened on a connection, after a header of 8 bytes:

====  ========  =======================================================================================
byte  type      what
====  ========  =======================================================================================
0     u8        1, the version of this header
1     u8        what follows: :class:`What`
2     u8        who sent or did it: 0 the client, 1 the server
3     u8        the frame's checksum: 0 none, 1 right by IEEE, 2 right by Castagnoli, 3 wrong by both
4     u32       the connection's number, from 1, little-endian as all integers of a frame are
====  ========  =======================================================================================

docs/trio-ipc.lua reads it. This module must never keep more of a frame than the limit allows.
"""

from __future__ import annotations

import enum
import os
import struct
import time
from collections.abc import Iterator
from typing import Final

from trio_ipc import IpcConfig, __version__
from trio_ipc.config import Crc32Variant
from trio_ipc.testing.recorder import Event, FileObserver
from trio_ipc.wire import HEADER_BYTES, checksum_for

LINKTYPE_USER0: Final = 147
#: Bytes of a packet that are kept: Wireshark takes no file with larger ones (wiretap's WTAP_MAX_PACKET_SIZE).
SNAPLEN: Final = 262_144

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_NAME_OF_INTERFACE, _APPLICATION, _FLAGS, _END_OF_OPTIONS = 2, 4, 2, 0
_INBOUND, _OUTBOUND = 1, 2

_VARIANTS: Final = ((1, Crc32Variant.IEEE), (2, Crc32Variant.CASTAGNOLI))
_WRONG: Final = 3


class What(enum.IntEnum):
    """What a packet is."""

    FRAME = 1
    """A whole frame, with its header."""
    BYTES = 2
    """Bytes that are no whole frame: one that ended early, or what has an impossible length."""
    OPEN = 3
    """The connection was opened; the endpoint's name follows."""
    EOF = 4
    """No more will be sent."""
    CLOSE = 5
    """It was closed."""
    BROKEN = 6
    """It broke."""
    CUT = 7
    """What was told as sent before was not, or not all of it."""


_OF_EVENTS: Final = {
    "open": What.OPEN,
    "eof": What.EOF,
    "close": What.CLOSE,
    "broken": What.BROKEN,
    "cut": What.CUT,
}


class PcapngFile(FileObserver):
    """Writes packets into a file, for the length of a ``with`` block.

    Args:
        path: the file to make, with mode 0600. One that exists is never touched.
        config: the settings of what is recorded: its endpoint, and the largest frame.

    Raises:
        FileExistsError: the file exists.
        OSError: it cannot be made.
    """

    def __init__(self, path: str, config: IpcConfig) -> None:
        super().__init__(path, self._happened_at)
        self._limit = config.max_frame_bytes
        self._directions: dict[tuple[int, str], _Direction] = {}
        self._epoch: float | None = None
        application = f"trio-ipc {__version__}".encode()
        section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + _options((_APPLICATION, application))
        self._append(_block(_SECTION, section))
        endpoint = config.endpoint_path.encode("utf-8", "backslashreplace")
        interface = struct.pack("<HHI", LINKTYPE_USER0, 0, SNAPLEN) + _options((_NAME_OF_INTERFACE, endpoint))
        self._append(_block(_INTERFACE, interface))

    def _happened_at(self, event: Event) -> None:
        if event.what == "data":
            key = (event.connection, event.by)
            direction = self._directions.setdefault(key, _Direction(self._limit))
            for what, data in direction.feed(event.data):
                self._packet(event, event.by, what, data)
            return
        both: list[str] = ["client", "server"]
        ended: dict[str, list[str]] = {"eof": [event.by], "close": both, "broken": both}
        for by in ended.get(event.what, []):
            rest = self._directions.pop((event.connection, by), None)
            if rest is not None and rest.kept:
                self._packet(event, by, What.BYTES, bytes(rest.kept))
        endpoint = event.endpoint.encode("utf-8", "backslashreplace")
        self._packet(event, event.by, _OF_EVENTS[event.what], endpoint)

    def _packet(self, event: Event, by: str, what: What, data: bytes) -> None:
        if self._epoch is None:  # one look at the clock, so that no packet is before another
            self._epoch = time.time() - event.at
        checksum = _judged(data) if what is What.FRAME else 0
        packet = struct.pack("<BBBBI", 1, what, by == "server", checksum, event.connection) + data
        microseconds = int((self._epoch + event.at) * 1_000_000)
        high, low = divmod(microseconds, 1 << 32)
        kept = packet[:SNAPLEN]
        flags = struct.pack("<I", _INBOUND if by == "server" else _OUTBOUND)
        body = struct.pack("<IIIII", 0, high, low, len(kept), len(packet)) + _padded(kept)
        self._append(_block(_PACKET, body + _options((_FLAGS, flags))))


class _Direction:
    """Cuts what one side sends into frames, as far as it is made of frames."""

    def __init__(self, limit: int) -> None:
        self.kept = bytearray()
        self._limit = limit
        self._has_frames = True

    def feed(self, data: bytes) -> Iterator[tuple[What, bytes]]:
        """Give the frames that are whole by now, and what cannot be one."""
        if not self._has_frames:
            yield What.BYTES, data
            return
        self.kept += data
        start = 0
        while len(self.kept) - start >= HEADER_BYTES:
            (size,) = struct.unpack_from("<I", self.kept, start)
            if not 0 < size <= self._limit:
                self._has_frames = False
                yield What.BYTES, bytes(self.kept[start:])
                self.kept.clear()
                return
            end = start + HEADER_BYTES + size
            if end > len(self.kept):
                break
            yield What.FRAME, bytes(self.kept[start:end])
            start = end
        del self.kept[:start]


def _judged(frame: bytes) -> int:
    payload = frame[HEADER_BYTES:]
    (said,) = struct.unpack_from("<I", frame, 4)
    return next((number for number, one in _VARIANTS if checksum_for(one)(payload) == said), _WRONG)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _options(*options: tuple[int, bytes]) -> bytes:
    told = b"".join(struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options)
    return told + struct.pack("<HH", _END_OF_OPTIONS, 0)


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + length + body + length


def is_pcapng(file: str) -> bool:
    """Return whether a file's name says that it is to be one."""
    return os.path.splitext(file)[1].lower() == ".pcapng"
