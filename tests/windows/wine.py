"""Tell Wine from Windows, for tests of what Wine cannot show."""

from __future__ import annotations

import sys

import pytest


def _under_wine() -> bool:
    if sys.platform != "win32":
        return False
    import ctypes

    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


UNDER_WINE = _under_wine()


def fails_under_wine(reason: str) -> pytest.MarkDecorator:
    """Expect a test to fail under Wine, and nowhere else."""
    return pytest.mark.xfail(UNDER_WINE, reason=f"Wine: {reason}", strict=True)
