"""How a function of Windows is declared, and what all of them need: errors, and handles that are closed.

Only for Windows.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import wintypes
from typing import Any, Final

if sys.platform != "win32":  # mypy skips the rest elsewhere
    raise ImportError("for Windows only")

# --- Errors (winerror.h) ------------------------------------------------------------------------------------

ERROR_FILE_NOT_FOUND: Final = 2
ERROR_TOO_MANY_OPEN_FILES: Final = 4
ERROR_ACCESS_DENIED: Final = 5
ERROR_NOT_ENOUGH_MEMORY: Final = 8
ERROR_OUTOFMEMORY: Final = 14
ERROR_BROKEN_PIPE: Final = 109
ERROR_PIPE_BUSY: Final = 231
ERROR_NO_DATA: Final = 232
ERROR_PIPE_NOT_CONNECTED: Final = 233
ERROR_PIPE_CONNECTED: Final = 535
ERROR_OPERATION_ABORTED: Final = 995
ERROR_IO_PENDING: Final = 997
ERROR_NOT_FOUND: Final = 1168
ERROR_NO_SYSTEM_RESOURCES: Final = 1450
ERROR_NOT_ENOUGH_QUOTA: Final = 1816

# --- Declaring ----------------------------------------------------------------------------------------------

KERNEL32: Final = ctypes.WinDLL("kernel32", use_last_error=True)
ADVAPI32: Final = ctypes.WinDLL("advapi32", use_last_error=True)


def declare(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    """Return a function of a library, with the types of its result and its arguments."""
    function = getattr(library, name)
    function.restype = result
    function.argtypes = arguments
    return function


def check(succeeded: int) -> None:
    """Raise an OSError with the thread's last error unless a function says that it succeeded."""
    if not succeeded:
        raise ctypes.WinError(ctypes.get_last_error())


_CloseHandle = declare(KERNEL32, "CloseHandle", wintypes.BOOL, wintypes.HANDLE)


def close_handle(handle: int) -> None:
    """Close a handle (CloseHandle)."""
    check(_CloseHandle(handle))
