"""Whole answers to large questions.

One frame holds only so much. When the collector says that its result was too large, the agent asks which
pids there are and then for these, a page at a time, halving a page that is still too large. Other makes of
collectors close the connection instead; after that the agent asks once in pages. Some give records that
nobody asked for, which are left out. This module knows nothing of connections: it gets a function that asks.
It must never take a part for the whole: a record that fits no frame at all is named in the response.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from trio_ipc import RESPONSE_TOO_LARGE, AttemptsFailedError, IpcError, MessageTooLargeError, PeerClosedError
from trio_ipc.daemoneye import DetectionResult, DetectionTask, HashCheck, ProcessFilter, ProcessRecord

PAGE: Final = 200
"""Pids to a page, at first. Their records take about 50 KB, well within the default frame."""

PIDS_ONLY: Final = "pids_only"
"""`DetectionTask.metadata` that asks examples.procmond for records of pid, name and start time alone."""

Ask = Callable[[DetectionTask], Awaitable[DetectionResult]]


class CollectorError(Exception):
    """The collector could not do what it was asked; the message is for the user."""


class _TooLargeError(Exception):
    """Question or answer is larger than a frame."""


@attrs.frozen
class Question:
    """Which processes to ask for.

    Attributes:
        names: only these, by name; empty for all.
        pids: only these; empty for all.
        algorithm: hash their executables with it; empty for no hashes.
    """

    names: Sequence[str] = ()
    pids: Sequence[int] = ()
    algorithm: str = ""


@attrs.frozen
class Enumeration:
    """What the collector said.

    Attributes:
        records: by pid, as the collector sorted them.
        skipped: pids of records that fit no frame.
        pages: how many responses it took.
        unwanted: how many records the collector gave that nobody had asked for; they are left out.
        collectors: whose responses they are, for the user.
        telemetry: what the client that asked has done so far, by name.
    """

    records: Sequence[ProcessRecord]
    skipped: Sequence[int] = ()
    pages: int = 1
    unwanted: int = 0
    collectors: Sequence[str] = ()
    telemetry: Mapping[str, Any] = attrs.field(factory=dict)


async def enumerate_processes(ask: Ask, question: Question) -> Enumeration:
    """Get all records that a question is about, in as many responses as it takes.

    Raises:
        CollectorError: the collector failed, or even the list of pids fits no frame.
        IpcError: as `ask` raises it.
    """
    try:
        return _wanted(question, Enumeration(await _records(ask, question)))
    except _TooLargeError:
        return _wanted(question, await _in_pages(ask, question, await _pids(ask, question)))
    except (PeerClosedError, AttemptsFailedError) as exc:
        if not _has_closed(exc):
            raise
        try:
            return _wanted(question, await _in_pages(ask, question, await _pids(ask, question)))
        except (IpcError, CollectorError):
            raise exc from None  # it was not the size


def _has_closed(exc: IpcError) -> bool:
    """Return whether a collector may have closed the connection as its result was too large."""
    errors = exc.attempts if isinstance(exc, AttemptsFailedError) else (exc,)
    return any(isinstance(error, PeerClosedError) for error in errors)


def _wanted(question: Question, seen: Enumeration) -> Enumeration:
    """Leave out what a collector gave that ignores filters, and each process that it gave again."""
    names, pids = frozenset(question.names), frozenset(question.pids)
    found: dict[int, ProcessRecord] = {}
    unwanted: set[int] = set()
    for record in seen.records:
        if (names and record.name not in names) or (pids and record.pid not in pids):
            unwanted.add(record.pid)
        else:
            found.setdefault(record.pid, record)
    return attrs.evolve(seen, records=list(found.values()), unwanted=len(unwanted))


async def _pids(ask: Ask, question: Question) -> list[int]:
    if question.pids:
        return list(dict.fromkeys(question.pids))
    try:
        outlines = await _records(ask, attrs.evolve(question, algorithm=""), metadata=PIDS_ONLY)
    except _TooLargeError as exc:
        raise CollectorError(
            f"even the list of pids is too large ({exc}); raise max_frame_bytes on both sides, or name pids"
        ) from exc
    return [outline.pid for outline in outlines]


async def _in_pages(ask: Ask, question: Question, pids: Sequence[int]) -> Enumeration:
    pages = [pids[start : start + PAGE] for start in range(0, len(pids), PAGE)]
    pages.reverse()  # a stack, so that the records come in the order of the pids
    records: list[ProcessRecord] = []
    skipped: list[int] = []
    answers = 0
    while pages:
        page = pages.pop()
        try:
            records += await _records(ask, attrs.evolve(question, pids=page))
            answers += 1
        except _TooLargeError:
            if len(page) == 1:
                skipped.append(page[0])
            else:
                middle = len(page) // 2
                pages += [page[middle:], page[:middle]]
    return Enumeration(records, skipped, answers)


async def _records(ask: Ask, question: Question, metadata: str | None = None) -> Sequence[ProcessRecord]:
    task = DetectionTask(
        task_id=str(uuid.uuid4()),
        process_filter=ProcessFilter(process_names=question.names, pids=question.pids),
        hash_check=HashCheck(hash_algorithm=question.algorithm) if question.algorithm else None,
        metadata=metadata,
    )
    try:
        result = await ask(task)
    except MessageTooLargeError as exc:
        raise _TooLargeError(str(exc)) from exc
    if result.success:
        return result.processes
    if result.error_message.startswith(RESPONSE_TOO_LARGE):
        raise _TooLargeError(result.error_message)
    raise CollectorError(f"the collector failed: {result.error_message or 'it does not say why'}")
