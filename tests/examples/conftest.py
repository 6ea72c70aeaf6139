from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A private directory whose path leaves room for a socket's name, as pytest's own may not."""
    path = Path(tempfile.mkdtemp(prefix="ti-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def executable(tmp_path: Path) -> Path:
    """A program of our own that can be replaced or deleted."""
    original = shutil.which("cat")
    assert original is not None
    return Path(shutil.copy(original, tmp_path / "cat"))
