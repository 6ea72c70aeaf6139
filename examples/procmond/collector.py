"""From a task to its result.

Every task ends as exactly one result: what the caller did wrong and what could not be done are failed
results, never exceptions. This module must never block the event loop; all looking is done in worker
threads, a bounded number of them.

Conventions of this collector, beyond the meaning of the messages:

- A task may carry `hash_check` with only `hash_algorithm` set: the records of an enumeration or of a tree
  then have `executable_hash`. Without it nothing is hashed, as hashing everything costs seconds.
- A hash is of the image that runs, even when its name on disk leads elsewhere by now.
- `metadata = "pids_only"` on an enumeration gives records of pid, name and start time alone. An agent asks
  so when a whole result was too large for a frame. It is this example's extension: other collectors do not
  know it and answer with whole records.
- VERIFY_EXECUTABLE without pids and path is about all processes of the filter that have an image. The record
  of one that cannot be read has no hash. To find none is no failure.
- CHECK_PROCESS_HASH and VERIFY_EXECUTABLE give their verdict in `hash_result`, and only there: the task
  itself is a success whenever the question could be answered, be the response good or bad.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Sequence
from typing import Final

import attrs
import trio

from trio_ipc import Call
from trio_ipc.daemoneye import (
    Capabilities,
    CapabilityGate,
    DetectionResult,
    DetectionTask,
    HashResult,
    MonitoringDomain,
    TaskType,
    failed,
)

from .hashing import FileHasher, HashError, canonical_algorithm, canonical_digest
from .images import Image, may_be_executed
from .processes import ProcessTable, Selection, Sighting, valid_text

PIDS_ONLY: Final = "pids_only"

#: It sees the processes of all users, but from outside of the kernel and only when it is asked.
CAPABILITIES: Final = Capabilities([MonitoringDomain.PROCESS], system_wide=True)

_log = logging.getLogger(__name__)


class CollectionError(Exception):
    """The task cannot be done; the message is for the agent's user."""


class Collector:
    """Handles tasks of the process domain; `handle` is what `trio_ipc.serve` wants.

    Args:
        threads: how many tasks may look at the system at the same time. More of them only compete for it.
    """

    def __init__(self, threads: int = 4) -> None:
        self._table = ProcessTable(FileHasher())
        self._limiter = trio.CapacityLimiter(threads)
        self._gate = CapabilityGate(self._look, CAPABILITIES)
        self._work: dict[TaskType, Callable[[DetectionTask], DetectionResult]] = {
            TaskType.ENUMERATE_PROCESSES: self._enumerate,
            TaskType.CHECK_PROCESS_HASH: self._check_hash,
            TaskType.MONITOR_PROCESS_TREE: self._monitor_tree,
            TaskType.VERIFY_EXECUTABLE: self._verify,
        }

    async def handle(self, task: DetectionTask, call: Call) -> DetectionResult:
        """Answer one task."""
        _log.info("task %r of type %d from %s", task.task_id, task.task_type, call.peer)
        return await self._gate(task, call)

    async def _look(self, task: DetectionTask, _: Call) -> DetectionResult:
        # A thread may hang on a dead network file system. The call does not wait for it, the limiter does:
        # an abandoned thread keeps its place until it notices, at its next checkpoint.
        return await trio.to_thread.run_sync(
            self._answer, task, limiter=self._limiter, abandon_on_cancel=True
        )

    def _answer(self, task: DetectionTask) -> DetectionResult:
        try:
            result = self._work[task.task_type](task)
        except (CollectionError, HashError) as exc:
            result = failed(task, valid_text(str(exc)))
        result.task_id = task.task_id
        return result

    # --- the four kinds of task, each in a worker thread ---

    def _enumerate(self, task: DetectionTask) -> DetectionResult:
        selection = Selection.of(task.process_filter)
        if task.metadata == PIDS_ONLY:
            return _records(self._table.outline(selection, checkpoint=_checkpoint))
        return _records(self._select(selection, _optional_algorithm(task)))

    def _monitor_tree(self, task: DetectionTask) -> DetectionResult:
        selection = Selection.of(task.process_filter)
        if not selection.pids:
            raise CollectionError("MONITOR_PROCESS_TREE needs the roots of the trees in process_filter.pids")
        sightings = self._table.tree(selection, algorithm=_optional_algorithm(task), checkpoint=_checkpoint)
        if not sightings and not self._table.outline(Selection(pids=selection.pids)):
            raise CollectionError(_no_such_process(selection.pids))
        return _records(sightings)

    def _check_hash(self, task: DetectionTask) -> DetectionResult:
        if not task.HasField("hash_check"):
            raise CollectionError("CHECK_PROCESS_HASH needs hash_check: what to hash, and the expected hash")
        question = _HashQuestion.of(task)
        if question.path:
            return self._hash_path(question)
        selection = Selection.of(task.process_filter)
        if not selection.pids:
            raise CollectionError(
                "CHECK_PROCESS_HASH needs hash_check.executable_path, or processes in process_filter.pids"
            )
        sightings = self._existing(selection, question.algorithm)
        return question.verdict(sightings, [])

    def _verify(self, task: DetectionTask) -> DetectionResult:
        question = _HashQuestion.of(task)
        selection = Selection.of(task.process_filter)
        if selection.pids:
            sightings = self._existing(selection, question.algorithm)
            return question.verdict(sightings, _image_problems(sightings))
        if question.path:
            return self._verify_path(question)
        if task.HasField("hash_check") and not task.hash_check.hash_algorithm:
            raise CollectionError(
                "VERIFY_EXECUTABLE needs processes in process_filter.pids, or hash_check.executable_path"
            )
        # What the reference's planner sends: no hash_check, and names or no filter at all.
        sightings = [one for one in self._select(selection, question.algorithm) if one.image is not None]
        hashed = [one for one in sightings if not one.hash_problem]
        result = question.verdict(hashed, _image_problems(sightings))
        result.processes.extend(one.record for one in sightings if one.hash_problem)
        return result

    def _verify_path(self, question: _HashQuestion) -> DetectionResult:
        try:
            executable = may_be_executed(question.path)
        except (FileNotFoundError, NotADirectoryError):
            return question.answer("", [f"{question.path}: no such file"])
        except (OSError, ValueError):
            executable = True  # hashing will not do either, and says why
        result = self._hash_path(question)
        if result.success and not executable:
            problems = [result.hash_result.error_message, f"{question.path}: not executable"]
            return question.answer(result.hash_result.hash_value, list(filter(None, problems)))
        return result

    # --- what they share ---

    def _select(self, selection: Selection, algorithm: str) -> list[Sighting]:
        return self._table.select(selection, algorithm=algorithm, checkpoint=_checkpoint)

    def _existing(self, selection: Selection, algorithm: str) -> list[Sighting]:
        sightings = self._select(selection, algorithm)
        if not sightings:
            raise CollectionError(_no_such_process(selection.pids))
        return sightings

    def _hash_path(self, question: _HashQuestion) -> DetectionResult:
        try:
            digest = self._table.hasher.digest(question.path, question.algorithm, checkpoint=_checkpoint)
        except HashError as exc:
            return question.failure(str(exc))
        return question.answer(digest, question.mismatches({question.path: digest}))


@attrs.frozen
class _HashQuestion:
    """What a task wants to know about hashes, checked. Builds the responses too."""

    algorithm: str
    expected: str
    path: str

    @classmethod
    def of(cls, task: DetectionTask) -> _HashQuestion:
        check = task.hash_check
        algorithm = canonical_algorithm(check.hash_algorithm)
        expected = canonical_digest(check.expected_hash, algorithm) if check.expected_hash else ""
        if check.executable_path and not os.path.isabs(check.executable_path):
            raise CollectionError(f"executable_path {check.executable_path!r} is not an absolute path")
        return cls(algorithm, expected, check.executable_path)

    def mismatches(self, digests: dict[str, str]) -> list[str]:
        """Say which digests are not the expected one."""
        if not self.expected:
            return []
        several = len(digests) > 1
        return [
            (f"{name}: " if several else "") + f"hash mismatch: expected {self.expected}, found {digest}"
            for name, digest in digests.items()
            if digest != self.expected
        ]

    def answer(self, digest: str, problems: Sequence[str]) -> DetectionResult:
        """The question was answered; `problems` are the response if there are any."""
        return DetectionResult(success=True, hash_result=self._hash_result(digest, problems))

    def failure(self, reason: str) -> DetectionResult:
        """The question could not be answered."""
        reason = valid_text(reason)
        return DetectionResult(
            success=False, error_message=reason, hash_result=self._hash_result("", [reason])
        )

    def verdict(self, sightings: Sequence[Sighting], problems: Sequence[str]) -> DetectionResult:
        """Answer for running processes: their records, and one verdict on all of them."""
        unhashed = [
            f"process {sighting.record.pid} has no hash: {sighting.hash_problem}"
            for sighting in sightings
            if sighting.hash_problem
        ]
        digests = {
            f"process {sighting.record.pid}": sighting.record.executable_hash
            for sighting in sightings
            if not sighting.hash_problem
        }
        if unhashed:
            result = self.failure("; ".join(unhashed))
        else:
            only = next(iter(digests.values())) if len(digests) == 1 else ""
            result = self.answer(only, [*problems, *self.mismatches(digests)])
            if len(sightings) == 1:
                result.hash_result.file_path = sightings[0].record.executable_path
        result.processes.extend(sighting.record for sighting in sightings)
        return result

    def _hash_result(self, digest: str, problems: Sequence[str]) -> HashResult:
        return HashResult(
            hash_value=digest,
            algorithm=self.algorithm,
            file_path=self.path,
            success=not problems,
            error_message=valid_text("; ".join(problems)) if problems else None,
        )


def _checkpoint() -> None:
    """End a worker's work once its call was cancelled: the client left, or time ran out."""
    trio.from_thread.check_cancelled()


def _optional_algorithm(task: DetectionTask) -> str:
    wanted = task.hash_check.hash_algorithm
    return canonical_algorithm(wanted) if wanted else ""


def _still_executable(image: Image) -> bool:
    try:
        return may_be_executed(image.source)
    except OSError:
        return True  # it ended just now: nothing is known, so nothing is claimed


def _image_problems(sightings: Sequence[Sighting]) -> list[str]:
    problems = []
    for sighting in sightings:
        image = sighting.image
        if image is None:
            continue  # reported as a process without a hash
        where = f"process {sighting.record.pid}, {image.path}"
        if not image.on_disk:
            problems.append(f"{where}: deleted while running")
        elif image.mismatch:
            problems.append(f"{where}: replaced while running")
        elif not _still_executable(image):
            problems.append(f"{where}: not executable any longer")
    return problems


def _records(sightings: Sequence[Sighting]) -> DetectionResult:
    return DetectionResult(success=True, processes=[sighting.record for sighting in sightings])


def _no_such_process(pids: Collection[int]) -> str:
    shown = sorted(pids)[:10]
    more = f" and {len(pids) - len(shown)} more" if len(pids) > len(shown) else ""
    return f"no such process: {', '.join(map(str, shown))}{more}"
