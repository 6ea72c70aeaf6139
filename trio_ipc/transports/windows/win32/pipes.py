"""Named pipes: making an instance, opening one, and who is at the other end.

Only for Windows.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import wintypes
from typing import Final

if sys.platform != "win32":  # mypy skips the rest elsewhere
    raise ImportError("for Windows only")

from .library import ERROR_IO_PENDING, KERNEL32, check, declare
from .operations import OVERLAPPED

# --- Numbers (winbase.h, winnt.h) ---------------------------------------------------------------------------

PIPE_ACCESS_DUPLEX: Final = 0x0000_0003
FILE_FLAG_FIRST_PIPE_INSTANCE: Final = 0x0008_0000
FILE_FLAG_OVERLAPPED: Final = 0x4000_0000
SECURITY_SQOS_PRESENT: Final = 0x0010_0000
SECURITY_IDENTIFICATION: Final = 0x0001_0000

PIPE_TYPE_BYTE: Final = 0x0
PIPE_READMODE_BYTE: Final = 0x0
PIPE_WAIT: Final = 0x0
PIPE_REJECT_REMOTE_CLIENTS: Final = 0x8
PIPE_UNLIMITED_INSTANCES: Final = 255

GENERIC_READ: Final = 0x8000_0000
FILE_WRITE_DATA: Final = 0x0002
FILE_READ_ATTRIBUTES: Final = 0x0080

_OPEN_EXISTING: Final = 3
_INVALID_HANDLE: Final = ctypes.c_void_p(-1).value

# --- Functions ----------------------------------------------------------------------------------------------


class SECURITY_ATTRIBUTES(ctypes.Structure):  # noqa: N801  # the reference's name
    """The users who may open a new object, and whether children inherit its handle (minwinbase.h)."""

    _fields_ = (
        ("nLength", wintypes.DWORD),
        ("lpSecurityDescriptor", ctypes.c_void_p),
        ("bInheritHandle", wintypes.BOOL),
    )


_ConnectNamedPipe = declare(
    KERNEL32, "ConnectNamedPipe", wintypes.BOOL, wintypes.HANDLE, ctypes.POINTER(OVERLAPPED)
)
_CreateFileW = declare(
    KERNEL32,
    "CreateFileW",
    wintypes.HANDLE,
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.POINTER(SECURITY_ATTRIBUTES),
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.HANDLE,
)
_CreateNamedPipeW = declare(
    KERNEL32,
    "CreateNamedPipeW",
    wintypes.HANDLE,
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.POINTER(SECURITY_ATTRIBUTES),
)
_GetNamedPipeClientProcessId = declare(
    KERNEL32, "GetNamedPipeClientProcessId", wintypes.BOOL, wintypes.HANDLE, ctypes.POINTER(wintypes.ULONG)
)
_GetNamedPipeServerProcessId = declare(
    KERNEL32, "GetNamedPipeServerProcessId", wintypes.BOOL, wintypes.HANDLE, ctypes.POINTER(wintypes.ULONG)
)
_PeekNamedPipe = declare(
    KERNEL32,
    "PeekNamedPipe",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.DWORD),
    ctypes.POINTER(wintypes.DWORD),
    ctypes.POINTER(wintypes.DWORD),
)


def create_named_pipe(
    path: str, open_mode: int, pipe_mode: int, *, instances: int, buffer_bytes: int, descriptor: bytes
) -> int:
    """Create an instance of a pipe and return its handle, which no child inherits (CreateNamedPipeW)."""
    memory = ctypes.create_string_buffer(descriptor, len(descriptor))
    security = SECURITY_ATTRIBUTES(
        ctypes.sizeof(SECURITY_ATTRIBUTES), ctypes.addressof(memory), bInheritHandle=False
    )
    handle: int = _CreateNamedPipeW(
        path, open_mode, pipe_mode, instances, buffer_bytes, buffer_bytes, 0, ctypes.byref(security)
    )
    check(handle != _INVALID_HANDLE)
    return handle


def create_file(path: str, access: int, flags: int) -> int:
    """Open an existing object, shared with nobody, and return its handle (CreateFileW)."""
    handle: int = _CreateFileW(path, access, 0, None, _OPEN_EXISTING, flags, None)
    check(handle != _INVALID_HANDLE)
    return handle


def connect_named_pipe(handle: int, overlapped: OVERLAPPED) -> None:
    """Begin to wait for an instance's client (ConnectNamedPipe).

    Returns once the wait is in progress and its completion will be posted. Otherwise raises, and nothing
    will: ERROR_PIPE_CONNECTED where a client is there already, ERROR_NO_DATA where one has come and gone.
    """
    if not _ConnectNamedPipe(handle, ctypes.byref(overlapped)):
        error = ctypes.get_last_error()
        if error != ERROR_IO_PENDING:
            raise ctypes.WinError(error)


def peek_named_pipe(handle: int) -> int:
    """Return how many bytes a pipe holds, and take none of them (PeekNamedPipe).

    Raises OSError where it is empty and its peer is gone.
    """
    available = wintypes.DWORD()
    check(_PeekNamedPipe(handle, None, 0, None, ctypes.byref(available), None))
    return available.value


def client_process_id(handle: int) -> int:
    """Return the process that opened the client's end (GetNamedPipeClientProcessId)."""
    pid = wintypes.ULONG()
    check(_GetNamedPipeClientProcessId(handle, ctypes.byref(pid)))
    return pid.value


def server_process_id(handle: int) -> int:
    """Return the process that created the server's end (GetNamedPipeServerProcessId)."""
    pid = wintypes.ULONG()
    check(_GetNamedPipeServerProcessId(handle, ctypes.byref(pid)))
    return pid.value
