"""Marks for tests that speak of one system, and for what Wine cannot show of Windows."""

from __future__ import annotations

import gc
import os
import sys

import pytest

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    from trio_ipc.transports import win32


def _under_wine() -> bool:
    if sys.platform != "win32":
        return False
    import ctypes

    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


UNDER_WINE = _under_wine()


def open_handles() -> int:
    """Count what this process has open: handles on Windows, file descriptors elsewhere."""
    gc.collect()
    if sys.platform == "win32":
        count = wintypes.DWORD()
        get = ctypes.WinDLL("kernel32").GetProcessHandleCount
        get.argtypes = (wintypes.HANDLE, ctypes.POINTER(wintypes.DWORD))
        assert get(win32.current_process(), ctypes.byref(count))
        return count.value
    # A listing opens one itself, alike each time.
    return len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))


def exists(endpoint: str) -> bool:
    """Return whether there is anything at an endpoint."""
    if sys.platform == "win32":
        try:
            win32.wait_named_pipe(endpoint, 1)
        except OSError as exc:
            return exc.winerror != win32.ERROR_FILE_NOT_FOUND
        return True
    return os.path.lexists(endpoint)


unix_only = pytest.mark.skipif(sys.platform == "win32", reason="speaks of what only Unix has")
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")


def fails_under_wine(reason: str, *, run: bool = True) -> pytest.MarkDecorator:
    """Expect a test to fail under Wine, and nowhere else. Do not even run it if it would hang."""
    return pytest.mark.xfail(UNDER_WINE, reason=f"Wine: {reason}", strict=True, run=run)


#: psutil raises OSError (WinError 87): a process's record lacks them, as the collector survives.
without_names = fails_under_wine("tells no process's name and executable")
