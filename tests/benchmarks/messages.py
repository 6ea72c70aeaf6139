"""What is asked and what is answered, the same for every contender.

Only the worker's side: a server answers by :func:`answer`, a client asks :func:`request` and judges by
:func:`check`. This module must not import trio_ipc or trio: most contenders run without.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trio_ipc.daemoneye import DetectionResult, DetectionTask, ProcessRecord
else:
    # By its file, since importing it by its name imports trio_ipc, and Trio with it.
    _file = os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "../../trio_ipc/daemoneye/detection_pb2.py"
    )
    _spec = importlib.util.spec_from_file_location("detection_pb2", _file)
    _generated = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_generated)
    DetectionResult, DetectionTask = _generated.DetectionResult, _generated.DetectionTask
    ProcessRecord = _generated.ProcessRecord

__all__ = [
    "HEADER",
    "LARGEST",
    "MESSAGES",
    "MINIMAL",
    "RECORDS",
    "SLOW",
    "DetectionResult",
    "DetectionTask",
    "WrongAnswerError",
    "answer",
    "check",
    "check_all",
    "prepared",
    "process_record",
    "request",
    "sizes",
]

#: A task's id says what is to be answered. An empty success,
MINIMAL: Final = "t"
#: the same after 1 ms,
SLOW: Final = "1ms"
#: process records,
RECORDS: Final = {"100": 100, "1000": 1_000}
#: or one record with an argument so long that the result has just less than 1 MiB.
LARGEST: Final = "1MiB"

MESSAGES: Final = (MINIMAL, *RECORDS, LARGEST)

_JUST_BELOW_1_MIB: Final = 1024 * 1024 - 64


def request(name: str) -> DetectionTask:
    return DetectionTask(task_id=name)


def process_record(number: int) -> ProcessRecord:
    """A record as examples/procmond makes them: about 190 bytes."""
    return ProcessRecord(
        pid=1_000 + number,
        ppid=1,
        name=f"process-{number}",
        executable_path=f"/usr/lib/program/bin/process-{number}",
        command_line=[f"/usr/lib/program/bin/process-{number}", "--config", "/etc/program/program.conf"],
        start_time=1_700_000_000 + number,
        cpu_usage=number / 10,
        memory_usage=4096 * number,
        user_id="1000",
        accessible=True,
        file_exists=True,
        collection_time=1_700_000_000_000 + number,
    )


@functools.cache
def prepared(name: str) -> DetectionResult:
    """The result of everything but the minimal task. It is made once, and encoded for each response."""
    if name == LARGEST:
        records = [ProcessRecord(pid=1, name="p", command_line=["x" * _JUST_BELOW_1_MIB])]
    else:
        records = [process_record(number) for number in range(RECORDS.get(name, 0))]
    return DetectionResult(task_id=name, success=True, processes=records)


def answer(task: DetectionTask) -> DetectionResult:
    """What every server does with a task that it has decoded."""
    if task.task_id in {MINIMAL, SLOW}:
        return DetectionResult(task_id=task.task_id, success=True)
    return prepared(task.task_id)


def check(result: DetectionResult, name: str) -> None:
    """Judge a response: whose it is, and whether all of it came."""
    records = RECORDS.get(name, name == LARGEST)
    if result.task_id != name or not result.success or len(result.processes) != records:
        raise WrongAnswerError(f"{name}: {str(result)[:200]}")


def check_all(result: DetectionResult, name: str) -> None:
    """Judge every field. For the first response of a connection: it would take longer than some calls."""
    if result != prepared(name):
        raise WrongAnswerError(f"{name}: {str(result)[:200]}")


class WrongAnswerError(Exception):
    """A contender answered something else than it was asked."""


#: Bytes of a frame before its payload (docs/wire-protocol.md).
HEADER: Final = 8


@functools.cache
def sizes(name: str) -> tuple[int, int]:
    """How many bytes a request and its response have in this project's frames: what the floors echo."""
    return (
        HEADER + len(request(name).SerializeToString()),
        HEADER + len(prepared(name).SerializeToString()),
    )
