"""The first request of a connection: how soon a server gets to it, counted by passes of the scheduler."""

from __future__ import annotations

import itertools
import socket
import sys

import pytest
import trio

from tests.support import frame, serving, task
from trio_ipc import Call, IpcConfig, TransportType
from trio_ipc.daemoneye import DetectionResult, DetectionTask

#: One wakes the accepting task, which accepts and starts the connection's; the next runs that one. In a pass
#: this test's own task may come before it or after. Legacy leaves waiting to Trio's streams.
_MOST_PASSES = {TransportType.INTERPROCESS: 3, TransportType.LEGACY: 6}


async def _answer(request: DetectionTask, _call: Call) -> DetectionResult:
    return DetectionResult(task_id=request.task_id, success=True)


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe tells of what came in the next pass")
@pytest.mark.parametrize("before", [0, 1, 3])
async def test_a_request_that_came_with_its_connection_is_answered_at_once(
    config: IpcConfig, before: int
) -> None:
    async with serving(_answer, config):
        for _ in range(before + 1):
            await trio.testing.wait_all_tasks_blocked()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(config.endpoint_path)
                client.sendall(frame(task("first")))
                client.setblocking(False)
                for passes in itertools.count(1):
                    await trio.lowlevel.checkpoint()
                    try:
                        assert client.recv(100)
                        break
                    except BlockingIOError:
                        assert passes < _MOST_PASSES[config.transport]
