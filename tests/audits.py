"""What the tests of telemetry share: whether counts add up."""

from __future__ import annotations

import trio

from tests.support import (
    IN_MEMORY,
    success,
)
from trio_ipc import (
    Call,
    ClientSnapshot,
    IpcConfig,
    ServerSnapshot,
)
from trio_ipc.daemoneye import DetectionResult, DetectionTask
from trio_ipc.server.connection import _MOST_AT_ONCE

CONFIG = IpcConfig(
    endpoint_path=IN_MEMORY,
    max_connections=2,
    max_frame_bytes=1_000,
    accept_timeout_ms=1_000,
    read_timeout_ms=3_000,
    write_timeout_ms=2_000,
    handler_timeout_ms=1_500,
    shutdown_grace_ms=1_000,
)


def disagreements(snapshot: ServerSnapshot) -> list[str]:
    """Which of the sums in ServerCounts' docstring do not hold."""
    wrong = []
    for name, part in {"": snapshot, **snapshot.by_transport}.items():
        sums = {
            "accepted": (
                part.connections_accepted,
                sum(part.connections_refused.values())
                + part.connections_left
                + part.connections_waiting
                + part.connections_served,
            ),
            "served": (
                part.connections_served,
                part.connections_active + sum(part.connections_closed.values()),
            ),
            "requests": (
                part.requests,
                part.requests_answered + sum(part.requests_failed.values()) + part.requests_in_flight,
            ),
            "handler timeouts": (part.timeouts["handler"], part.requests_failed["handler_timeout"]),
        }
        wrong += [f"{name} {what}: {one} is not {sum_}" for what, (one, sum_) in sums.items() if one != sum_]
        if not part.requests - part.requests_in_flight <= part.handler_seconds.count <= part.requests:
            wrong.append(f"{name} handlers: {part.handler_seconds.count} of {part.requests}")
        if part.requests_in_flight > (_MOST_AT_ONCE + 1) * part.connections_active:
            wrong.append(f"{name} in flight: {part.requests_in_flight}")
    return wrong


def client_disagreements(snapshot: ClientSnapshot) -> list[str]:
    ended = snapshot.calls_answered + sum(snapshot.calls_failed.values())
    wrong = []
    if snapshot.calls != ended + snapshot.calls_in_flight:
        wrong.append(f"calls: {snapshot}")
    if snapshot.call_seconds.count != snapshot.calls_answered:
        wrong.append(f"answered: {snapshot}")
    return wrong


class Handler:
    """Behaves as the task says, and knows how often it ran."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0

    async def __call__(self, task: DetectionTask, _: Call) -> DetectionResult:
        self.begun += 1
        try:
            return await self._behave(task)
        finally:
            self.ended += 1

    async def _behave(self, task: DetectionTask) -> DetectionResult:
        if task.task_id == "slow":
            await trio.sleep(0.7)
        elif task.task_id == "hang":
            await trio.sleep_forever()
        elif task.task_id == "raise":
            raise ValueError("no such thing")
        elif task.task_id == "late":
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            return DetectionResult(task_id="late", error_message="x" * 2_000)
        elif task.task_id == "large":
            return DetectionResult(task_id="large", error_message="x" * 2_000)
        elif task.task_id == "wrong":
            return None  # type: ignore[return-value]
        return success(task.task_id)
