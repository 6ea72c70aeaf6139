"""Marks for tests that speak of one system, and for what Wine cannot show of Windows."""

from __future__ import annotations

import os
import sys

import pytest

if sys.platform == "win32":
    from trio_ipc.transports import win32


def _under_wine() -> bool:
    if sys.platform != "win32":
        return False
    import ctypes

    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


UNDER_WINE = _under_wine()


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


def fails_under_wine(reason: str) -> pytest.MarkDecorator:
    """Expect a test to fail under Wine, and nowhere else."""
    return pytest.mark.xfail(UNDER_WINE, reason=f"Wine: {reason}", strict=True)


#: psutil raises OSError (WinError 87): a process's record lacks them, as the collector survives.
without_names = fails_under_wine("tells no process's name and executable")
