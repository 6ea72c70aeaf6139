"""trio_ipc by its public names: a server, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio

from trio_ipc import Call, Client, IpcConfig, open_client, serve
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

from . import loops
from .asked import Question, answer
from .curves import IN_FLIGHT, MOST_BYTES, NO_POLLING


async def handle(task: DetectionTask, _: Call) -> DetectionResult:
    seconds, result = answer(task.task_id)
    if seconds:
        await trio.sleep(seconds)
    return result


class Ours:
    """Contender of this name for a curve: the defaults, but for what the curve cannot do without."""

    def __init__(self, name: str, curve: str, connections: int) -> None:
        settings: dict[str, Any] = {"max_connections": connections}
        if name == NO_POLLING:
            settings["poll_attempts"] = 0
        if curve == "sizes":
            settings["max_frame_bytes"] = MOST_BYTES
        self._config = IpcConfig(**settings)
        self._shares = curve == "callers"

    async def serving(
        self, path: str, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
    ) -> None:
        await serve(handle, DETECTION, self._config.replace(endpoint_path=path), task_status=task_status)

    @asynccontextmanager
    async def connect(self, path: str, question: Question) -> AsyncIterator[loops.Call]:
        """Open a client; give what makes one call and looks at its response."""
        task, task_id = question.task(), question.task_id
        async with self._open(self._config.replace(endpoint_path=path)) as client:
            first = await client.call(task)
            if first != answer(task_id)[1]:
                raise ValueError(f"{task_id}: {str(first)[:200]}")

            async def call() -> None:
                result = await client.call(task)
                if result.task_id != task_id or not result.success:
                    raise ValueError(f"{task_id}: {str(result)[:200]}")

            yield call

    def callers(self, number: int) -> tuple[int, int]:
        """Return how many connections so many callers have, and how many callers each."""
        return (1, number) if self._shares else (number, 1)

    def _open(self, config: IpcConfig) -> AbstractAsyncContextManager[Client[DetectionTask, DetectionResult]]:
        return open_client(DETECTION, config, max_in_flight=IN_FLIGHT if self._shares else 1)
