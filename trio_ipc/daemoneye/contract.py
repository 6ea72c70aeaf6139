"""DaemonEye's contract between the agent and a collector, put together. Data, nothing else."""

from __future__ import annotations

from typing import Final

from trio_ipc.contract import Contract, HealthCheck
from trio_ipc.errors import quote

from .capabilities import NEGOTIATION, negotiation_task
from .detection_pb2 import DetectionResult, DetectionTask
from .rules import failed

#: Characters of a peer's own words that go into an error.
_LONGEST_QUOTE: Final = 1_000


def _mismatch(task: DetectionTask, result: DetectionResult) -> str | None:
    if result.task_id == task.task_id:
        return None
    theirs, ours, said = (
        quote(text, _LONGEST_QUOTE) for text in (result.task_id, task.task_id, result.error_message)
    )
    why = f"; the peer says: {said}" if result.error_message else ""
    return f"the response has task_id {theirs}, the request had {ours}{why}"


def _succeeded(result: DetectionResult) -> bool:
    return result.success


#: DaemonEye's contract between the agent and a collector. All of its tasks only look, so that to repeat
#: one costs time and nothing else. Every collector answers a negotiation, whether it knows what that is or
#: not, so that one can be asked by it whether it is well.
DETECTION: Final = Contract(
    name="daemoneye.detection",
    request_type=DetectionTask,
    response_type=DetectionResult,
    failure=failed,
    mismatch=_mismatch,
    repeatable=True,
    negotiation=NEGOTIATION,
    health=HealthCheck(ask=negotiation_task, says_well=_succeeded),
)
