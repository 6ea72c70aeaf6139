"""No room for what the Trio thread needs: an error of ours, from both adapters."""

from __future__ import annotations

import errno
import threading
from typing import Any

import anyio
import pytest

from tests.adapters import portal_threads, served
from tests.support import success, task
from trio_ipc import IpcConfig, IpcError, OutOfResourcesError, aio, blocking
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


def test_a_thread_that_cannot_be_started_is_told_in_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, config: IpcConfig
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        opening = aio.open_client(DETECTION, config)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(
                IpcError, match="cannot be started: can't start new thread; have fewer threads"
            ):
                await opening
        assert portal_threads() == []
        async with opening as client:
            assert await client.call(task("1")) == success("1")

    with served(config):
        run(main)
