"""What has come over a stream with faults and was not read yet, and when it may be had.

This module must never do I/O, and never know what a script says.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Final, TypeAlias

import trio

from trio_ipc.transports.duplex import READ_SIZE

from .faultrules import EndOfFile, Reset, Stall
from .faultscript import Pause, Step

#: What may wait to be read: a step that is no pause, or the error by which the inner stream broke.
_Arrived: TypeAlias = bytes | Stall | Reset | EndOfFile | trio.BrokenResourceError

#: Bytes that may be here before more is asked for: as many as one read gives, so that a peer which sends much
#: feels that nobody reads.
_MOST: Final = READ_SIZE


class Inbox:
    """What has come and was not read yet, each with the moment from which on it may be had.

    A pause holds up what is behind it, from the moment at which that has come.
    """

    def __init__(self) -> None:
        self._reset_at = math.inf
        self._arrived: deque[tuple[float, _Arrived]] = deque()
        self._taken = 0  # bytes of the first of it
        self._size = 0  # bytes of all of it
        self._pause = 0.0
        self._last = -math.inf

    def __bool__(self) -> bool:
        """Return whether there is anything, now or later."""
        return bool(self._arrived)

    def add(self, steps: Iterable[Step | trio.BrokenResourceError]) -> None:
        """Add what has come now."""
        for step in steps:
            if isinstance(step, Pause):
                self._pause += step.seconds
                continue
            self._last = max(self._last, trio.current_time()) + self._pause
            self._pause = 0.0
            self._arrived.append((self._last, step))
            if isinstance(step, bytes):
                self._size += len(step)
            elif isinstance(step, Reset):
                self._reset_at = self._last

    @property
    def room(self) -> int:
        """How many bytes may be asked for: none behind what ends it."""
        is_over = bool(self._arrived) and not isinstance(self._arrived[-1][1], bytes)
        return 0 if is_over else max(0, _MOST - self._size)

    @property
    def is_reset(self) -> bool:
        """Whether the connection is to be broken by now."""
        return self._reset_at < math.inf and self._reset_at <= trio.current_time()

    @property
    def is_stalled(self) -> bool:
        """Whether nothing more will come."""
        return bool(self._arrived) and isinstance(self._arrived[0][1], Stall)

    @property
    def ends_in_stall(self) -> bool:
        """Whether nothing will come behind what is there."""
        return bool(self._arrived) and isinstance(self._arrived[-1][1], Stall)

    def clear(self) -> None:
        """Lose everything."""
        self._arrived.clear()
        self._taken = self._size = 0

    def next_at(self) -> float:
        """Return when the next of it may be had."""
        return math.inf if self.is_stalled else self._arrived[0][0]

    def due(self) -> _Arrived | None:
        """Return the next of it if it may be had now."""
        if self._arrived and self.next_at() <= trio.current_time():
            return self._arrived[0][1]
        return None

    def take(self, max_bytes: int) -> bytes | None:
        """Return bytes that may be had now, ``b""`` at the end, and None if there is nothing."""
        step = self.due()
        if isinstance(step, bytes):
            data = step[self._taken : self._taken + max_bytes]
            self._taken += len(data)
            self._size -= len(data)
            if self._taken == len(step):
                self._arrived.popleft()
                self._taken = 0
            return data
        if isinstance(step, trio.BrokenResourceError):
            self._arrived.popleft()
            raise step
        return b"" if isinstance(step, EndOfFile) else None
