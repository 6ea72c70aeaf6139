"""What the tests of recordings share."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import trio
import trio.testing

from tests.support import succeed, task
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import (
    MemoryEndpoint,
    Recorder,
    Recording,
    open_client_at,
    open_server,
    read_recording,
)


async def record(path: Path, *ids: str, connections: int = 1) -> Recording:
    """Record calls of these ids, on each of so many connections."""
    endpoint = MemoryEndpoint()
    with Recorder(path, DETECTION) as recorder:
        async with open_server(succeed, DETECTION, endpoint):
            for _ in range(connections):
                async with open_client_at(DETECTION, endpoint, wrap=recorder.wrap) as client:
                    for task_id in ids:
                        await client.call(task(task_id))
    return read_recording(path)


def whole_recording() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        trio.run(partial(record, Path(directory, "r"), "a", "b", connections=2))
        return Path(directory, "r").read_bytes()


WHOLE = whole_recording()
