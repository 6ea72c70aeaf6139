"""Runs of pytest within a test, for what tests the plugin."""

from __future__ import annotations

import pytest

from tests.platforms import UNDER_WINE

long_under_wine = pytest.mark.skipif(UNDER_WINE, reason="Wine takes long to start another pytest")


def run(
    pytester: pytest.Pytester,
    code: str,
    *arguments: str,
    trio_mode: bool = True,
    timeout: float | None = None,
) -> pytest.RunResult:
    pytester.makepyfile(code)
    pytester.makeini(
        f"[pytest]\ntrio_mode = {str(trio_mode).lower()}\nfilterwarnings = error\naddopts = --strict-markers"
    )
    # Under Wine the package is on the path and not installed, and so has no entry points.
    plugin = ["-p", "pytest_trio_ipc"] if UNDER_WINE else []
    lean = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:randomly", "-p", "no:xdist"]
    return pytester.runpytest_subprocess(*lean, *plugin, *arguments, timeout=timeout)
