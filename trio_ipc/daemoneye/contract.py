"""DaemonEye's contract between the agent and a collector, put together. Data, nothing else."""

from __future__ import annotations

from typing import Final

from trio_ipc.contract import Contract
from trio_ipc.errors import quote

from .capabilities import NEGOTIATION
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
