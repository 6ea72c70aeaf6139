"""What the tests of settings share."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_ipc import (
    IpcConfig,
    ResilientConfig,
)

BOTH = pytest.mark.parametrize(
    ("kind", "prefix", "table"),
    [(IpcConfig, "TRIO_IPC_", "ipc"), (ResilientConfig, "TRIO_IPC_RESILIENT_", "ipc.resilient")],
)

Kind = type[IpcConfig] | type[ResilientConfig]

#: Longer than Python reads or writes (``sys.get_int_max_str_digits()`` is 4,300).
DIGITS = "9" * 5_000


def written(directory: Path, text: str) -> Path:
    file = directory / "settings.toml"
    file.write_text(text, encoding="utf-8")
    return file
