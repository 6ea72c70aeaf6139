"""No room for what the Trio thread needs: an error of ours, from both adapters."""

from __future__ import annotations

import errno
from typing import Any

import anyio
import pytest

from trio_ipc import IpcConfig, OutOfResourcesError, aio, blocking
from trio_ipc.daemoneye import DETECTION

from .support import run


def _no_descriptor_left(*_: Any, **__: Any) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


def test_a_thread_that_has_no_room_is_told(monkeypatch: pytest.MonkeyPatch, config: IpcConfig) -> None:
    monkeypatch.setattr(anyio, "run", _no_descriptor_left)
    said = r"cannot be started in a thread: Too many open files; .*\(ulimit -n\)"

    async def main() -> None:
        with pytest.raises(OutOfResourcesError, match=said):
            await aio.open_client(DETECTION, config)

    run(main)
    with pytest.raises(OutOfResourcesError, match=said):
        blocking.open_client(DETECTION, config)
