"""What the two sides of a connection have sent each other, and how soon more can be expected by that.

This module must never know what is in a frame, and never wait.
"""

from __future__ import annotations

import math
from typing import Final

#: Idle passes of the scheduler (see :mod:`.spin`) in which a peer that owes nothing may send something, about
#: 100 µs. To meet later ones awake took more CPU time than to sleep: docs/architecture.md.
_SOON: Final = 3

#: What it sends and is sent keeps the peer busy: it takes about a pass for so many bytes, or small frames.
_BYTES_A_PASS: Final = 8_192
_FRAMES_A_PASS: Final = 4


class Balance:
    """Counts one side's frames: those that it sent, and those that it received."""

    __slots__ = ("_bytes", "_due", "_frames")

    def __init__(self) -> None:
        self._due = 0
        self._frames = 0
        self._bytes = 0

    def sent(self, frames: int, size: int) -> None:
        """Count frames that are handed over, and their bytes."""
        self._due += frames
        self._frames += frames
        self._bytes += size

    def received(self, frames: int, size: int) -> None:
        """Count frames that have come, and their bytes. What comes next may be as large."""
        self._due -= frames
        self._frames = frames
        self._bytes = size

    def worth_waiting(self) -> float:
        """Return for how many idle passes the next frame is worth waiting for awake.

        A side that has sent more than it received is owed something, and waits as long as spinning may take
        at all. Any other one waits until its peer, which has to decode what it was sent since, and to encode
        what it sends, has had time to.
        """
        if self._due > 0:
            return math.inf
        return _SOON + self._bytes / _BYTES_A_PASS + self._frames / _FRAMES_A_PASS
