"""What a Unix socket takes before its sender waits, counted as Linux counts it: by buffers, not by bytes.

Each write makes at least one buffer, of a size that the allocator has, and is charged for all of it. So a
socket takes 278 messages of one byte where it takes 219,264 bytes in one. This module must never take more
than a socket does: a test that passes here and fails there is its defect.
"""

from __future__ import annotations

from collections import deque
from typing import Final

#: What the buffers of one direction may come to, in bytes (net.core.wmem_default; socket(7), SO_SNDBUF).
SEND_BUFFER: Final = 212_992

# As in unix_stream_sendmsg() and sock_alloc_send_pskb() of Linux 6.18, for 64 bit and pages of 4 KiB. Small
# data is in one block with what describes it; what is larger is in pages, but for its first part.
_PAGE: Final = 4_096
_DESCRIPTION: Final = 256  # struct sk_buff, rounded up to the processor's cache lines
_SHARED_INFO: Final = 320  # struct skb_shared_info, in the data's block
_CACHE_LINE: Final = 64
_SMALLEST_BLOCK: Final = 512
_MOST_IN_BLOCK: Final = _PAGE - _SHARED_INFO
_MOST_AT_A_TIME: Final = _MOST_IN_BLOCK + 32_768


class SocketBuffer:
    """One direction of a connection: bytes that were sent, and not read yet.

    Args:
        most_bytes: no more bytes than this, whatever a socket would take; None for what a socket takes.
    """

    def __init__(self, most_bytes: int | None = None) -> None:
        self._most_bytes = SEND_BUFFER * 2 if most_bytes is None else most_bytes  # the first is never reached
        self._pieces: deque[tuple[bytes, int]] = deque()
        self._bytes = 0
        self._charged = 0

    def __bool__(self) -> bool:
        """Return whether there is anything to read."""
        return bool(self._pieces)

    def put(self, data: bytes | bytearray | memoryview) -> int:
        """Take what there is room for, and return how many bytes that was."""
        taken = 0
        with memoryview(data) as view:
            while taken < len(view) and self._bytes < self._most_bytes and self._charged < SEND_BUFFER:
                size = min(len(view) - taken, _MOST_AT_A_TIME, self._most_bytes - self._bytes)
                charge = charged_for(size)
                self._pieces.append((bytes(view[taken : taken + size]), charge))
                self._bytes += size
                self._charged += charge
                taken += size
        return taken

    def take(self, max_bytes: int) -> bytes:
        """Return bytes, and make room: for a buffer, when all of it was read."""
        found = []
        while self._pieces and max_bytes:
            piece, charge = self._pieces.popleft()
            if len(piece) > max_bytes:
                self._pieces.appendleft((piece[max_bytes:], charge))
                piece = piece[:max_bytes]
            else:
                self._charged -= charge
            found.append(piece)
            max_bytes -= len(piece)
            self._bytes -= len(piece)
        return found[0] if len(found) == 1 else b"".join(found)

    def clear(self) -> None:
        """Lose everything."""
        self._pieces.clear()
        self._bytes = self._charged = 0

    @property
    def is_writable(self) -> bool:
        """Whether who waits for room goes on: not before three quarters are free (unix_writable())."""
        # More than a quarter, by one that a socket's count begins with.
        return self._charged * 4 < SEND_BUFFER and self._bytes < self._most_bytes


def charged_for(size: int) -> int:
    """Return what a buffer with so many bytes of data is charged, in bytes."""
    in_pages = 0
    if size > _MOST_IN_BLOCK:
        in_pages = min(size, _round_up(size - _MOST_IN_BLOCK, _PAGE))
    block = _round_up(size - in_pages, _CACHE_LINE) + _SHARED_INFO
    block = max(_SMALLEST_BLOCK, 1 << (block - 1).bit_length())  # kmalloc() has powers of two
    return _DESCRIPTION + block + _round_up(in_pages, _PAGE)


def _round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit
