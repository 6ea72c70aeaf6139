"""What is asked and answered: a task's id says how long the result has to be and how long it takes.

This module must not import trio_ipc or trio.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from tests.benchmarks.messages import HEADER, DetectionResult, DetectionTask

_LEAST_BYTES = 10


class Question(NamedTuple):
    """What a call asks for: a result of so many bytes, after so many milliseconds."""

    size: int = _LEAST_BYTES
    milliseconds: int = 0

    @property
    def task_id(self) -> str:
        return f"{self.size}/{self.milliseconds}" if self.milliseconds else f"{self.size}"

    def task(self) -> DetectionTask:
        return DetectionTask(task_id=self.task_id)

    def bytes_on_the_wire(self) -> tuple[int, int]:
        """Return how many bytes request and response have in this project's frames."""
        _, result = answer(self.task_id)
        return HEADER + len(self.task().SerializeToString()), HEADER + result.ByteSize()


@functools.cache
def answer(task_id: str) -> tuple[float, DetectionResult]:
    """Return for how many seconds a handler waits, and its result: made once, and encoded each time."""
    size, _, milliseconds = task_id.partition("/")
    result = DetectionResult(task_id=task_id, success=True)
    missing = int(size) - result.ByteSize()
    # A string of so many bytes, less its tag and its length, which takes up to 4.
    for head in range(2, 6):
        if missing >= head:
            result.error_message = "x" * (missing - head)
            if result.ByteSize() <= int(size):
                break
    return int(milliseconds or 0) / 1000, result
