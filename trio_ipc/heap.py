"""The memory of large payloads, which the C library keeps for the next ones.

glibc gives free memory at the end of its heap back to the system when it is more than twice the largest
block of its own that it has ever given back (mallopt(3), M_MMAP_THRESHOLD, "dynamic"). A payload, the pieces
in which it came and the message made of it are three times its size, and a sender has a message and its
payload. All of that was given back after each message, and taken again page by page for the next: 480 page
faults and 1,300 µs for a call of 1 MiB, where it is 310 µs without any. Other C libraries take no notice of
what is done here. This module must never know what a payload is for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Final

#: Bytes of a payload from which on it matters whether its memory is kept. Whether glibc does so by itself
#: depends on what lies where: by the name of the directory alone a client had no page faults, or 48 for each
#: payload of 160 KB, and a call took 1.4 times as long.
LARGE: Final = 65_536

#: Bytes of the largest block that glibc learns from: DEFAULT_MMAP_THRESHOLD_MAX, less what it adds itself.
_LARGEST_BLOCK: Final = (32 << 20) - 65_536


class Heap:
    """What the C library has learned: it has one heap for the whole process, and forgets nothing.

    Args:
        allocate: takes memory, and gives it back at once.
    """

    def __init__(self, allocate: Callable[[int], object] = bytes) -> None:
        self._allocate = allocate
        self._kept_up_to: float = LARGE

    def keep(self, size: int) -> None:
        """Have the memory of payloads of this many bytes kept. Raises nothing.

        A block of four times the size becomes glibc's largest one. Nothing is written to it, so that it is
        never really there (calloc(3)). A second one of its size would come from the heap, and be written to:
        one for each new connection took a call of 160 KB from 0.6 to 0.86 ms. What is kept is eight times
        the size, which is enough for payloads of twice as much.
        """
        if size > self._kept_up_to:
            block = min(4 * size, _LARGEST_BLOCK)
            self._kept_up_to = 2 * size if block < _LARGEST_BLOCK else math.inf
            with suppress(MemoryError):  # under a limit on address space, say
                self._allocate(block)


#: For who has a payload of more than :data:`LARGE` bytes.
keep_memory: Final = Heap().keep
