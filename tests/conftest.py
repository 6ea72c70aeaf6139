"""What tests of every room share."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator

import pytest

from trio_ipc import IpcConfig

#: Its entry point is there once the package is installed; under Wine it is only on the path.
pytest_plugins = ["pytest_trio_ipc", "pytester"]


@pytest.fixture(autouse=True)
def _only_the_settings_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TRIO_IPC_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def directory() -> Iterator[str]:
    """A private directory with a path short enough for a socket; pytest's own are longer than that."""
    path = tempfile.mkdtemp(prefix="ipc-")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def config(directory: str) -> IpcConfig:
    if sys.platform == "win32":
        return IpcConfig(endpoint_path=rf"\\.\pipe\{os.path.basename(directory)}\test")
    return IpcConfig(endpoint_path=f"{directory}/test.sock")
