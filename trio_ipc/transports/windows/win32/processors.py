"""On which processors this process may run. Only for Windows."""

from __future__ import annotations

import ctypes
import sys
from ctypes import wintypes

if sys.platform != "win32":  # mypy skips the rest elsewhere
    raise ImportError("for Windows only")

from .library import KERNEL32, check, declare
from .security import current_process

# DWORD_PTR has the size of a pointer.
_GetProcessAffinityMask = declare(
    KERNEL32,
    "GetProcessAffinityMask",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.POINTER(ctypes.c_size_t),
)


def processor_count() -> int:
    """Return on how many processors this process may run (GetProcessAffinityMask).

    0 where its threads are in several groups of processors, of 64 at the most each: the mask is of one group.
    """
    process, system = ctypes.c_size_t(), ctypes.c_size_t()
    check(_GetProcessAffinityMask(current_process(), ctypes.byref(process), ctypes.byref(system)))
    return process.value.bit_count()
