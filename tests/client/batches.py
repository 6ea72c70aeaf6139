"""What the tests of ``call_many`` share."""

from __future__ import annotations

from tests.support import (
    frame,
    success,
    task,
)
from trio_ipc.daemoneye import DetectionTask


def tasks(count: int) -> list[DetectionTask]:
    return [task(str(number)) for number in range(count)]


def answers(*numbers: int) -> bytes:
    return b"".join(frame(success(str(number))) for number in numbers)


def ids(responses: object) -> list[str]:
    return [response.task_id for response in responses]  # type: ignore[attr-defined]
