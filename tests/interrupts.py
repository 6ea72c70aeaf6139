"""A KeyboardInterrupt at a given line, for tests of what it leaves behind."""

from __future__ import annotations

import dis
import os
import signal
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class InterruptAt:
    """Sends this process a SIGINT at a certain line that runs in a package of the library.

    Args:
        package: the package.
        line: which of its lines, from 1.

    Attributes:
        left: lines that are left until then; 0 or less once it has happened.
    """

    def __init__(self, package: types.ModuleType, line: int) -> None:
        assert package.__file__ is not None
        self._package = os.path.dirname(package.__file__)
        self.left = line

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: types.FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self._package):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)
        return self._trace


#: Instructions after which CPython looks whether there is a signal. It does so nowhere else.
_LOOKS = frozenset({"CALL", "CALL_FUNCTION_EX", "CALL_KW", "JUMP_BACKWARD", "RESUME"})


def needs_looks() -> None:
    """Skip the test that is run where :class:`InterruptAtLook` cannot be used."""
    if sys.gettrace() is not None and sys.version_info[:2] == (3, 12):
        pytest.skip("CPython 3.12 crashes where it takes another tracer's place, such as that of coverage")


class InterruptAtLook(InterruptAt):
    """As :class:`InterruptAt`, at the so-and-so-manieth point at which CPython looks for signals.

    A real Ctrl-C comes nowhere else: not between the end of a ``try`` block and the function in C that its
    ``finally`` calls first, for one.
    """

    def __init__(self, package: types.ModuleType, look: int) -> None:
        super().__init__(package, look)
        self._done: dict[int, str] = {}

    def __enter__(self) -> None:
        # Python 3.12 traces instructions only from a settrace() that comes after a frame has asked for it.
        sys._getframe().f_trace_opcodes = True
        super().__enter__()

    def _trace(self, frame: types.FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self._package):
            return None
        if event == "call":
            frame.f_trace = self._trace  # without it Python 3.13 begins with the function's next call
            frame.f_trace_opcodes = True
            self._done[id(frame)] = "RESUME"
        elif event == "exception":
            self._done[id(frame)] = ""  # what was called has raised: its caller does not look
        elif event == "opcode":
            done = self._done[id(frame)]
            self._done[id(frame)] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            self.left -= done in _LOOKS
            if done in _LOOKS and self.left == 0:
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
