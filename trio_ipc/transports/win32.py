"""What this package needs of Win32, declared once: numbers, structures and functions.

Each function is one system call with Python's values for its arguments, and an :exc:`OSError` with its
``winerror`` where the system reports a failure. This module must never decide anything: which rights, whose
security, what to do about a failure are :mod:`.named_pipe`'s business. Only for Windows.

Names and numbers are those of Microsoft's reference; each declaration's page is found there by its name.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import wintypes
from typing import Any, Final

assert sys.platform == "win32", "for Windows only"  # noqa: S101  # mypy skips the rest elsewhere

# --- Numbers (winerror.h, winbase.h, winnt.h, sddl.h) -------------------------------------------------------

ERROR_FILE_NOT_FOUND: Final = 2
ERROR_ACCESS_DENIED: Final = 5
ERROR_BROKEN_PIPE: Final = 109
ERROR_SEM_TIMEOUT: Final = 121
ERROR_PIPE_BUSY: Final = 231
ERROR_NO_DATA: Final = 232
ERROR_PIPE_NOT_CONNECTED: Final = 233
ERROR_PIPE_CONNECTED: Final = 535
ERROR_IO_PENDING: Final = 997
ERROR_NOT_FOUND: Final = 1168
ERROR_NO_SYSTEM_RESOURCES: Final = 1450

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
OPEN_EXISTING: Final = 3

PROCESS_QUERY_LIMITED_INFORMATION: Final = 0x1000
_TOKEN_QUERY: Final = 0x0008
_TOKEN_USER: Final = 1
_SDDL_REVISION_1: Final = 1
_SE_KERNEL_OBJECT: Final = 6
_OWNER_SECURITY_INFORMATION: Final = 1
_STATUS_PENDING: Final = 0x103
_INFINITE: Final = 0xFFFF_FFFF
_WAIT_OBJECT_0: Final = 0
_INVALID_HANDLE: Final = ctypes.c_void_p(-1).value

# --- Structures ---------------------------------------------------------------------------------------------


class OVERLAPPED(ctypes.Structure):
    """State of one operation; it must live, unmoved, until the operation has completed (minwinbase.h)."""

    _fields_ = (
        ("Internal", ctypes.c_size_t),
        ("InternalHigh", ctypes.c_size_t),
        ("Offset", wintypes.DWORD),
        ("OffsetHigh", wintypes.DWORD),
        ("hEvent", wintypes.HANDLE),
    )


class SECURITY_ATTRIBUTES(ctypes.Structure):  # noqa: N801  # the reference's name
    """Who may open a new object, and whether children inherit its handle (minwinbase.h)."""

    _fields_ = (
        ("nLength", wintypes.DWORD),
        ("lpSecurityDescriptor", ctypes.c_void_p),
        ("bInheritHandle", wintypes.BOOL),
    )


class _SID_AND_ATTRIBUTES(ctypes.Structure):  # noqa: N801  # the reference's name
    """The whole of TOKEN_USER (winnt.h)."""

    _fields_ = (("Sid", ctypes.c_void_p), ("Attributes", wintypes.DWORD))


# --- Functions ----------------------------------------------------------------------------------------------

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)


def _declare(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.restype = result
    function.argtypes = arguments
    return function


_CancelIoEx = _declare(_kernel32, "CancelIoEx", wintypes.BOOL, wintypes.HANDLE, ctypes.POINTER(OVERLAPPED))
_CloseHandle = _declare(_kernel32, "CloseHandle", wintypes.BOOL, wintypes.HANDLE)
_ConnectNamedPipe = _declare(
    _kernel32, "ConnectNamedPipe", wintypes.BOOL, wintypes.HANDLE, ctypes.POINTER(OVERLAPPED)
)
_CreateEventW = _declare(
    _kernel32,
    "CreateEventW",
    wintypes.HANDLE,
    ctypes.c_void_p,
    wintypes.BOOL,
    wintypes.BOOL,
    wintypes.LPCWSTR,
)
_CreateFileW = _declare(
    _kernel32,
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
_CreateNamedPipeW = _declare(
    _kernel32,
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
_GetCurrentProcess = _declare(_kernel32, "GetCurrentProcess", wintypes.HANDLE)
_GetNamedPipeClientProcessId = _declare(
    _kernel32, "GetNamedPipeClientProcessId", wintypes.BOOL, wintypes.HANDLE, ctypes.POINTER(wintypes.ULONG)
)
_GetNamedPipeServerProcessId = _declare(
    _kernel32, "GetNamedPipeServerProcessId", wintypes.BOOL, wintypes.HANDLE, ctypes.POINTER(wintypes.ULONG)
)
_GetOverlappedResult = _declare(
    _kernel32,
    "GetOverlappedResult",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.POINTER(OVERLAPPED),
    ctypes.POINTER(wintypes.DWORD),
    wintypes.BOOL,
)
_LocalFree = _declare(_kernel32, "LocalFree", ctypes.c_void_p, ctypes.c_void_p)
_OpenProcess = _declare(
    _kernel32, "OpenProcess", wintypes.HANDLE, wintypes.DWORD, wintypes.BOOL, wintypes.DWORD
)
_PeekNamedPipe = _declare(
    _kernel32,
    "PeekNamedPipe",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.DWORD),
    ctypes.POINTER(wintypes.DWORD),
    ctypes.POINTER(wintypes.DWORD),
)
_ReadFile = _declare(
    _kernel32,
    "ReadFile",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.DWORD),
    ctypes.POINTER(OVERLAPPED),
)
_SetEvent = _declare(_kernel32, "SetEvent", wintypes.BOOL, wintypes.HANDLE)
_WaitForSingleObject = _declare(
    _kernel32, "WaitForSingleObject", wintypes.DWORD, wintypes.HANDLE, wintypes.DWORD
)
_WriteFile = _declare(
    _kernel32,
    "WriteFile",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.c_char_p,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.DWORD),
    ctypes.POINTER(OVERLAPPED),
)
_WaitNamedPipeW = _declare(_kernel32, "WaitNamedPipeW", wintypes.BOOL, wintypes.LPCWSTR, wintypes.DWORD)

_ConvertSidToStringSidW = _declare(
    _advapi32, "ConvertSidToStringSidW", wintypes.BOOL, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
)
_ConvertStringSecurityDescriptor = _declare(
    _advapi32,
    "ConvertStringSecurityDescriptorToSecurityDescriptorW",
    wintypes.BOOL,
    wintypes.LPCWSTR,
    wintypes.DWORD,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(wintypes.ULONG),
)
_GetSecurityInfo = _declare(
    _advapi32,
    "GetSecurityInfo",
    wintypes.DWORD,
    wintypes.HANDLE,
    ctypes.c_int,
    wintypes.DWORD,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_void_p),
)
_GetTokenInformation = _declare(
    _advapi32,
    "GetTokenInformation",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.DWORD),
)
_OpenProcessToken = _declare(
    _advapi32,
    "OpenProcessToken",
    wintypes.BOOL,
    wintypes.HANDLE,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.HANDLE),
)


def _check(succeeded: int) -> None:
    if not succeeded:
        raise ctypes.WinError(ctypes.get_last_error())


def close_handle(handle: int) -> None:
    """Close a handle (CloseHandle)."""
    _check(_CloseHandle(handle))


def cancel_io(handle: int) -> None:
    """Cancel whatever is pending on a handle (CancelIoEx). Each operation still completes later."""
    if not _CancelIoEx(handle, None) and ctypes.get_last_error() != ERROR_NOT_FOUND:
        raise ctypes.WinError(ctypes.get_last_error())


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
    _check(handle != _INVALID_HANDLE)
    return handle


def create_file(path: str, access: int, flags: int) -> int:
    """Open an existing object, shared with nobody, and return its handle (CreateFileW)."""
    handle: int = _CreateFileW(path, access, 0, None, OPEN_EXISTING, flags, None)
    _check(handle != _INVALID_HANDLE)
    return handle


def connect_named_pipe(handle: int, overlapped: OVERLAPPED) -> None:
    """Begin to wait for an instance's client (ConnectNamedPipe).

    Returns once the wait is under way and its completion will be posted. Otherwise raises, and nothing
    will: ERROR_PIPE_CONNECTED where a client is there already, ERROR_NO_DATA where one has come and gone.
    """
    if not _ConnectNamedPipe(handle, ctypes.byref(overlapped)):
        error = ctypes.get_last_error()
        if error != ERROR_IO_PENDING:
            raise ctypes.WinError(error)


def wait_named_pipe(path: str, timeout_ms: int) -> None:
    """Block until an instance is free for a client (WaitNamedPipeW).

    Raises OSError with ERROR_SEM_TIMEOUT where none became free, ERROR_FILE_NOT_FOUND where there is none.
    """
    _check(_WaitNamedPipeW(path, timeout_ms))


def peek_named_pipe(handle: int) -> int:
    """Return how many bytes a pipe holds, and take none of them (PeekNamedPipe).

    Raises OSError where it is empty and its peer is gone.
    """
    available = wintypes.DWORD()
    _check(_PeekNamedPipe(handle, None, 0, None, ctypes.byref(available), None))
    return available.value


def read_file(handle: int, size: int) -> bytes:
    """Block until there are bytes to read, and return so many at the most (ReadFile).

    The handle may be overlapped and have a completion port: that one hears nothing of it.
    """
    event = _CreateEventW(None, True, False, None)
    _check(event is not None)
    try:
        memory = ctypes.create_string_buffer(size)
        # The lowest bit of an event's handle keeps the completion from the port (GetQueuedCompletionStatus).
        overlapped = OVERLAPPED(hEvent=event | 1)
        if not _ReadFile(handle, memory, size, None, ctypes.byref(overlapped)):
            _check(ctypes.get_last_error() == ERROR_IO_PENDING)
        done = wintypes.DWORD()
        _check(_GetOverlappedResult(handle, ctypes.byref(overlapped), ctypes.byref(done), True))
        return memory.raw[: done.value]
    finally:
        close_handle(event)


def create_event() -> int:
    """Create an event that stays set until an operation begins, and return its handle (CreateEventW)."""
    event: int | None = _CreateEventW(None, True, False, None)
    if event is None:
        raise ctypes.WinError(ctypes.get_last_error())
    return event


def set_event(event: int) -> None:
    """Set an event (SetEvent)."""
    _check(_SetEvent(event))


def wait_for_event(event: int) -> None:
    """Block until an event is set (WaitForSingleObject). It must stay open meanwhile."""
    _check(_WaitForSingleObject(event, _INFINITE) == _WAIT_OBJECT_0)


def operation(event: int) -> OVERLAPPED:
    """Return the state of an operation that will set the event when it completes.

    A completion port that the handle belongs to hears nothing of it: the lowest bit of the event's handle
    keeps it out (GetQueuedCompletionStatus).
    """
    return OVERLAPPED(hEvent=event | 1)


def begin_read(handle: int, memory: ctypes.Array[ctypes.c_char], overlapped: OVERLAPPED) -> None:
    """Begin to read into memory that stays where it is until the operation has completed (ReadFile)."""
    if not _ReadFile(handle, memory, len(memory), None, ctypes.byref(overlapped)):
        _check(ctypes.get_last_error() == ERROR_IO_PENDING)


def begin_write(handle: int, data: bytes, overlapped: OVERLAPPED) -> None:
    """Begin to write bytes that live until the operation has completed (WriteFile)."""
    if not _WriteFile(handle, data, len(data), None, ctypes.byref(overlapped)):
        _check(ctypes.get_last_error() == ERROR_IO_PENDING)


def has_completed(overlapped: OVERLAPPED) -> bool:
    """Return whether an operation has completed (HasOverlappedIoCompleted)."""
    return bool(overlapped.Internal != _STATUS_PENDING)


def result_of(handle: int, overlapped: OVERLAPPED) -> int:
    """Block until an operation has completed, and return how many bytes it moved (GetOverlappedResult).

    Raises OSError if it failed or was cancelled.
    """
    moved = wintypes.DWORD()
    _check(_GetOverlappedResult(handle, ctypes.byref(overlapped), ctypes.byref(moved), True))
    return moved.value


def cancel_operation(handle: int, overlapped: OVERLAPPED) -> None:
    """Cancel one operation, which still completes, in this way or the other (CancelIoEx)."""
    if not _CancelIoEx(handle, ctypes.byref(overlapped)) and ctypes.get_last_error() != ERROR_NOT_FOUND:
        raise ctypes.WinError(ctypes.get_last_error())


def client_process_id(handle: int) -> int:
    """Return the process that opened the client's end (GetNamedPipeClientProcessId)."""
    pid = wintypes.ULONG()
    _check(_GetNamedPipeClientProcessId(handle, ctypes.byref(pid)))
    return pid.value


def server_process_id(handle: int) -> int:
    """Return the process that created the server's end (GetNamedPipeServerProcessId)."""
    pid = wintypes.ULONG()
    _check(_GetNamedPipeServerProcessId(handle, ctypes.byref(pid)))
    return pid.value


def current_process() -> int:
    """Return the pseudo handle of this process, which needs no closing (GetCurrentProcess)."""
    handle: int = _GetCurrentProcess()
    return handle


def open_process(pid: int, access: int) -> int:
    """Open another process and return its handle (OpenProcess)."""
    handle: int | None = _OpenProcess(access, False, pid)
    if handle is None:
        raise ctypes.WinError(ctypes.get_last_error())
    return handle


def open_process_token(process: int) -> int:
    """Open a process's token for queries and return its handle (OpenProcessToken)."""
    token = wintypes.HANDLE()
    _check(_OpenProcessToken(process, _TOKEN_QUERY, ctypes.byref(token)))
    return token.value or 0


def token_user(token: int) -> str:
    """Return the security identifier of a token's user as a string (GetTokenInformation, TokenUser)."""
    size = wintypes.DWORD()
    # The first call cannot succeed: it tells the size, for the identifier has no fixed one.
    _GetTokenInformation(token, _TOKEN_USER, None, 0, ctypes.byref(size))
    memory = ctypes.create_string_buffer(max(size.value, ctypes.sizeof(_SID_AND_ATTRIBUTES)))
    _check(_GetTokenInformation(token, _TOKEN_USER, memory, len(memory), ctypes.byref(size)))
    return _sid_text(_SID_AND_ATTRIBUTES.from_buffer(memory).Sid)


def owner(handle: int) -> str:
    """Return the security identifier of the owner of an object as a string (GetSecurityInfo)."""
    sid, descriptor = ctypes.c_void_p(), ctypes.c_void_p()
    error = _GetSecurityInfo(
        handle,
        _SE_KERNEL_OBJECT,
        _OWNER_SECURITY_INFORMATION,
        ctypes.byref(sid),
        None,
        None,
        None,
        ctypes.byref(descriptor),
    )
    if error:
        raise ctypes.WinError(error)
    try:
        return _sid_text(sid)
    finally:
        _LocalFree(descriptor)


def _sid_text(sid: Any) -> str:
    text = ctypes.c_void_p()
    _check(_ConvertSidToStringSidW(sid, ctypes.byref(text)))
    try:
        return ctypes.wstring_at(text)
    finally:
        _LocalFree(text)


def security_descriptor(sddl: str) -> bytes:
    """Return the self-relative descriptor that a string describes.

    Raises OSError where the string has no meaning (ConvertStringSecurityDescriptorToSecurityDescriptorW).
    """
    descriptor = ctypes.c_void_p()
    size = wintypes.ULONG()
    _check(
        _ConvertStringSecurityDescriptor(sddl, _SDDL_REVISION_1, ctypes.byref(descriptor), ctypes.byref(size))
    )
    try:
        return ctypes.string_at(descriptor, size.value)
    finally:
        _LocalFree(descriptor)
