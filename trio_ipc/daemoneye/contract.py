"""DaemonEye's contract between the agent and a collector, put together. Data, nothing else."""

from __future__ import annotations

from typing import Final

from trio_ipc.contract import Contract

from .capabilities import NEGOTIATION
from .detection_pb2 import DetectionResult, DetectionTask
from .rules import failed


def _mismatch(task: DetectionTask, result: DetectionResult) -> str | None:
    if result.task_id == task.task_id:
        return None
    said = f"; the peer says: {result.error_message}" if result.error_message else ""
    return f"the response has task_id {result.task_id!r}, the request had {task.task_id!r}{said}"


#: DaemonEye's contract between the agent and a collector. All of its tasks only look, so that to repeat
#: one costs time and nothing else.
DETECTION: Final = Contract(
    name="daemoneye.detection",
    request_type=DetectionTask,
    response_type=DetectionResult,
    failure=failed,
    mismatch=_mismatch,
    repeatable=True,
    negotiation=NEGOTIATION,
)
