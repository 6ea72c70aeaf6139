from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A private directory whose path leaves room for a socket's name, as pytest's own may not."""
    path = Path(tempfile.mkdtemp(prefix="ti-", dir=None if sys.platform == "win32" else "/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def endpoint_called(short_dir: Path) -> Callable[[str], str]:
    """Endpoints that no other test has, by short names."""
    if sys.platform == "win32":
        return lambda name: rf"\\.\pipe\{short_dir.name}\{name}"
    return lambda name: str(short_dir / name)


@pytest.fixture
def endpoint(endpoint_called: Callable[[str], str]) -> str:
    return endpoint_called("s")


@pytest.fixture
def executable(tmp_path: Path) -> Path:
    """A program of our own that can be replaced or deleted."""
    # It keeps its name, as some systems have many programs in one file.
    original = shutil.which("cmd.exe" if sys.platform == "win32" else "cat")
    assert original is not None
    return Path(shutil.copy(original, tmp_path))
