"""A KeyboardInterrupt at a given line, for tests of what it leaves behind."""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class InterruptAt:
    """Sends this process a SIGINT at the so-and-so-manieth line that runs in a room of the library.

    Args:
        room: the room's package.
        line: which of its lines, from 1.

    Attributes:
        left: lines that are left until then; 0 or less once it has happened.
    """

    def __init__(self, room: types.ModuleType, line: int) -> None:
        assert room.__file__ is not None
        self._room = os.path.dirname(room.__file__)
        self.left = line

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: types.FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self._room):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)
        return self._trace


@contextmanager
def interrupts_are_trios() -> Iterator[None]:
    """Let Trio have the signal for the length of a block, and put back what traced before."""
    before, traced = signal.signal(signal.SIGINT, signal.default_int_handler), sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(traced)
        signal.signal(signal.SIGINT, before)
