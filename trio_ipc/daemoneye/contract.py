"""DaemonEye's contract between the agent and a collector, put together. Data, nothing else."""

from __future__ import annotations

from typing import Final

from trio_ipc.contract import Contract

from .capabilities import NEGOTIATION
from .detection_pb2 import DetectionResult, DetectionTask
from .rules import failed

#: Characters of a peer's own words that go into an error.
_LONGEST_QUOTE: Final = 1_000


def _mismatch(task: DetectionTask, result: DetectionResult) -> str | None:
    if result.task_id == task.task_id:
        return None
    said = f"; the peer says: {_quoted(result.error_message)}" if result.error_message else ""
    return (
        f"the response has task_id {_quoted(result.task_id)}, the request had {_quoted(task.task_id)}{said}"
    )


def _quoted(text: str) -> str:
    """What a peer sent, as it can be shown: cut, and without control characters."""
    return repr(text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}...")


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
