"""Overlapped operations: beginning, cancelling and asking what became of them.

Only for Windows.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import wintypes
from typing import Final

if sys.platform != "win32":  # mypy skips the rest elsewhere
    raise ImportError("for Windows only")

from .library import ERROR_IO_PENDING, ERROR_NOT_FOUND, KERNEL32, check, declare

_STATUS_PENDING: Final = 0x103
_INFINITE: Final = 0xFFFF_FFFF
_WAIT_OBJECT_0: Final = 0


class OVERLAPPED(ctypes.Structure):
    """State of one operation; it must live, unmoved, until the operation has completed (minwinbase.h)."""

    _fields_ = (
        ("Internal", ctypes.c_size_t),
        ("InternalHigh", ctypes.c_size_t),
        ("Offset", wintypes.DWORD),
        ("OffsetHigh", wintypes.DWORD),
        ("hEvent", wintypes.HANDLE),
    )


_CancelIoEx = declare(KERNEL32, "CancelIoEx", wintypes.BOOL, wintypes.HANDLE, ctypes.POINTER(OVERLAPPED))
_CreateEventW = declare(
    KERNEL32,
    "CreateEventW",
    wintypes.HANDLE,
    ctypes.c_void_p,
    wintypes.BOOL,
    wintypes.BOOL,
    wintypes.LPCWSTR,
)
_GetOverlappedResult = declare(
    KERNEL32,
    "GetOverlappedResult",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.POINTER(OVERLAPPED),
    ctypes.POINTER(wintypes.DWORD),
    wintypes.BOOL,
)
_ReadFile = declare(
    KERNEL32,
    "ReadFile",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.DWORD),
    ctypes.POINTER(OVERLAPPED),
)
_SetEvent = declare(KERNEL32, "SetEvent", wintypes.BOOL, wintypes.HANDLE)
_WaitForSingleObject = declare(
    KERNEL32, "WaitForSingleObject", wintypes.DWORD, wintypes.HANDLE, wintypes.DWORD
)
_WriteFile = declare(
    KERNEL32,
    "WriteFile",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.c_char_p,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.DWORD),
    ctypes.POINTER(OVERLAPPED),
)


def create_event() -> int:
    """Create an event that stays set until an operation begins, and return its handle (CreateEventW)."""
    event: int | None = _CreateEventW(None, True, False, None)
    if event is None:
        raise ctypes.WinError(ctypes.get_last_error())
    return event


def set_event(event: int) -> None:
    """Set an event (SetEvent)."""
    check(_SetEvent(event))


def wait_for_event(event: int) -> None:
    """Block until an event is set (WaitForSingleObject). It must stay open meanwhile."""
    check(_WaitForSingleObject(event, _INFINITE) == _WAIT_OBJECT_0)


def operation(event: int) -> OVERLAPPED:
    """Return the state of an operation that will set the event when it completes.

    A completion port that the handle belongs to hears nothing of it: the lowest bit of the event's handle
    keeps it out (GetQueuedCompletionStatus).
    """
    return OVERLAPPED(hEvent=event | 1)


def begin_read(handle: int, memory: ctypes.Array[ctypes.c_char], overlapped: OVERLAPPED) -> None:
    """Begin to read into memory that stays where it is until the operation has completed (ReadFile)."""
    if not _ReadFile(handle, memory, len(memory), None, ctypes.byref(overlapped)):
        check(ctypes.get_last_error() == ERROR_IO_PENDING)


def begin_write(handle: int, data: bytes, overlapped: OVERLAPPED) -> None:
    """Begin to write bytes that live until the operation has completed (WriteFile)."""
    if not _WriteFile(handle, data, len(data), None, ctypes.byref(overlapped)):
        check(ctypes.get_last_error() == ERROR_IO_PENDING)


def has_completed(overlapped: OVERLAPPED) -> bool:
    """Return whether an operation has completed (HasOverlappedIoCompleted)."""
    return bool(overlapped.Internal != _STATUS_PENDING)


def result_of(handle: int, overlapped: OVERLAPPED) -> int:
    """Block until an operation has completed, and return how many bytes it moved (GetOverlappedResult).

    Raises OSError if it failed or was cancelled.
    """
    moved = wintypes.DWORD()
    check(_GetOverlappedResult(handle, ctypes.byref(overlapped), ctypes.byref(moved), True))
    return moved.value


def cancel_operation(handle: int, overlapped: OVERLAPPED) -> None:
    """Cancel one operation, which still completes, in this way or the other (CancelIoEx)."""
    if not _CancelIoEx(handle, ctypes.byref(overlapped)) and ctypes.get_last_error() != ERROR_NOT_FOUND:
        raise ctypes.WinError(ctypes.get_last_error())


def cancel_io(handle: int) -> None:
    """Cancel whatever is pending on a handle (CancelIoEx). Each operation still completes later."""
    if not _CancelIoEx(handle, None) and ctypes.get_last_error() != ERROR_NOT_FOUND:
        raise ctypes.WinError(ctypes.get_last_error())
