"""What tests of several modules here ask for. A module may have its own of the same name."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a recording goes."""
    return tmp_path / "recording"
