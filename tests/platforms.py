"""Marks for tests that speak of one system, and for what Wine cannot show of Windows."""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Collection
from typing import Any

import pytest

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    from trio_ipc.transports.windows import win32


def _wine_version() -> int | None:
    """Return the number of the Wine that this runs under, without what follows the dot; None under none."""
    if sys.platform != "win32":
        return None
    import ctypes

    library = ctypes.WinDLL("ntdll")
    if not hasattr(library, "wine_get_version"):
        return None
    library.wine_get_version.restype = ctypes.c_char_p
    return int(library.wine_get_version().split(b".")[0])


WINE = _wine_version()
UNDER_WINE = WINE is not None


#: A user who runs no test.
NOBODY = "S-1-5-21-1-2-3-1001" if sys.platform == "win32" else 54321

#: Handles that Wine keeps now and then, about one unnamed file for each round of legacy's connections, none
#: of which our own calls have opened. A leak of ours is one for each connection, call or attempt.
KEPT_BY_WINE = 8 if UNDER_WINE else 0


def open_handles() -> int:
    """Count what this process has open: handles on Windows, file descriptors elsewhere."""
    gc.collect()
    if sys.platform == "win32":
        return _handles_under_wine() if UNDER_WINE else _handles_on_windows()
    # A listing opens one itself, alike each time.
    return len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))


if sys.platform == "win32":

    class _HandleEntry(ctypes.Structure):
        """SYSTEM_HANDLE_TABLE_ENTRY_INFO (winternl.h of Wine and ReactOS; Microsoft documents none)."""

        _fields_ = (
            ("UniqueProcessId", wintypes.USHORT),
            ("CreatorBackTraceIndex", wintypes.USHORT),
            ("ObjectTypeIndex", ctypes.c_ubyte),
            ("HandleAttributes", ctypes.c_ubyte),
            ("HandleValue", wintypes.USHORT),
            ("Object", ctypes.c_void_p),
            ("GrantedAccess", wintypes.ULONG),
        )

    def _handles_on_windows() -> int:
        count = wintypes.DWORD()
        get = ctypes.WinDLL("kernel32").GetProcessHandleCount
        get.argtypes = (wintypes.HANDLE, ctypes.POINTER(wintypes.DWORD))
        assert get(win32.current_process(), ctypes.byref(count))
        return count.value

    def _handles_under_wine() -> int:
        """Count in the list of all handles of the system, for GetProcessHandleCount always answers 0."""
        system_handle_information = 16
        ask = ctypes.WinDLL("ntdll").NtQuerySystemInformation
        memory, needed = ctypes.create_string_buffer(1 << 16), wintypes.ULONG()
        while ask(system_handle_information, memory, len(memory), ctypes.byref(needed)):
            memory = ctypes.create_string_buffer(2 * len(memory))  # until the list fits
        count = ctypes.c_size_t.from_buffer(memory).value & 0xFFFF_FFFF
        entries = (_HandleEntry * count).from_buffer(memory, ctypes.sizeof(ctypes.c_size_t))
        own = os.getpid() & 0xFFFF
        return sum(entry.UniqueProcessId == own for entry in entries)


def exists(endpoint: str) -> bool:
    """Return whether there is anything at an endpoint."""
    if sys.platform == "win32":
        return can_be_found(endpoint) or ctypes.get_last_error() != win32.ERROR_FILE_NOT_FOUND
    return os.path.lexists(endpoint)


def can_be_found(endpoint: str) -> bool:
    """Return whether a client could begin to connect: a pipe has its name until its last connection ends."""
    if sys.platform == "win32":
        return bool(ctypes.WinDLL("kernel32", use_last_error=True).WaitNamedPipeW(endpoint, 1))
    return os.path.lexists(endpoint)


def refuse_to_accept(monkeypatch: pytest.MonkeyPatch, code: int, times: int) -> None:
    """Have accept(2) fail so often, by any caller, and leave the client where it is."""
    real: Any = socket.socket._accept  # type: ignore[attr-defined]  # what its accept() and Trio's stand on
    left = times

    def refuse_at_first(sock: socket.socket) -> Any:
        nonlocal left
        if left:
            left -= 1
            raise OSError(code, os.strerror(code))
        return real(sock)

    monkeypatch.setattr(socket.socket, "_accept", refuse_at_first)


unix_only = pytest.mark.skipif(sys.platform == "win32", reason="speaks of what only Unix has")
windows_only = pytest.mark.skipif(sys.platform != "win32", reason="speaks of what only Windows has")
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")


def fails_under_wine(reason: str, *, versions: Collection[int], run: bool = True) -> pytest.MarkDecorator:
    """Expect a test to fail under some versions of Wine, and nowhere else.

    Args:
        reason: what Wine does not do.
        versions: in which this was seen; under others the test has to pass.
        run: False for one that would hang there, and is not even run.
    """
    said = f"Wine {', '.join(map(str, versions))}: {reason}"
    return pytest.mark.xfail(WINE in versions, reason=said, strict=True, run=run)


#: psutil raises OSError (WinError 87): a process's record lacks them, as the collector survives.
without_names = fails_under_wine("tells no process's name and executable", versions=[8])
