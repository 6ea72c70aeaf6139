"""Whether to try again what may be in vain.

This module must never read a clock, and never know what is tried.
"""

from __future__ import annotations

from typing import Final

#: Occasions that go by at the most before it is tried again.
_LONGEST_PAUSE: Final = 63


class Speculation:
    """Says yes where trying last helped.

    Each time in a row that it did not help, it says no on twice as many occasions, up to ``_LONGEST_PAUSE``:
    where it never helps, it costs next to nothing. A yes counts as in vain until :meth:`succeeded`.
    """

    __slots__ = ("_left_out", "_pause")

    def __init__(self) -> None:
        self._pause = 0
        self._left_out = 0

    def is_worth_it(self) -> bool:
        """Return whether to try on this occasion."""
        if self._left_out < self._pause:
            self._left_out += 1
            return False
        self._left_out = 0
        self._pause = min(2 * self._pause + 1, _LONGEST_PAUSE)
        return True

    def succeeded(self) -> None:
        """Note that it helped, the last time it was tried."""
        self._pause = 0
