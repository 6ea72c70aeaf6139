"""What the tests of ``serve`` share."""

from __future__ import annotations

import trio

from tests.support import (
    IN_MEMORY,
    Handler,
    success,
)
from trio_ipc import (
    Call,
    Contract,
    IpcConfig,
)
from trio_ipc.daemoneye import DetectionResult, DetectionTask

CONFIG = IpcConfig(endpoint_path=IN_MEMORY, max_connections=2)

SILENT = Contract(name="silent", request_type=DetectionTask, response_type=DetectionResult)


def returning(response: DetectionResult) -> Handler:
    async def handler(_task: DetectionTask, _call: Call) -> DetectionResult:
        await trio.lowlevel.checkpoint()
        return response

    return handler


class Gate:
    """A handler that stays inside until it is let go, and tells what became of it."""

    def __init__(self) -> None:
        self.entered = trio.Event()
        self.open = trio.Event()
        self.left = trio.Event()
        self.cancelled = False

    async def __call__(self, task: DetectionTask, _: Call) -> DetectionResult:
        self.entered.set()
        try:
            await self.open.wait()
        except trio.Cancelled:
            self.cancelled = True
            raise
        finally:
            self.left.set()
        return success(task.task_id)
