"""Records of real processes.

Blocking code for worker threads. A process may vanish, deny access or carry any bytes for a name at any
moment: whatever it does, collecting must never raise because of one process. The vanished are left out,
the ones that deny access are reported with `accessible = false` and what could be read.
"""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import attrs
import psutil

from trio_ipc.daemoneye import ProcessFilter, ProcessRecord

from .bounded import BoundedCache
from .hashing import Checkpoint, FileHasher, HashError
from .images import Image, image_of

_T = TypeVar("_T")

_UINT32_MAX: Final = 2**32 - 1
_UINT64_MAX: Final = 2**64 - 1
_INT64_MAX: Final = 2**63 - 1

#: Python decodes the system's bytes with "surrogateescape"; protobuf takes no surrogates.
_SURROGATES: Final = re.compile("[\ud800-\udfff]")

#: What psutil raises about one process, besides its own errors: /proc changes while it is being parsed.
_UNREADABLE: Final = (psutil.Error, OSError, ValueError, LookupError, ArithmeticError, NotImplementedError)

#: Two samples closer than this say little about CPU usage; the earlier reading is repeated instead.
_LEAST_CPU_INTERVAL: Final = 0.1


def valid_text(text: str) -> str:
    """Return text that protobuf can carry: what was no UTF-8 becomes U+FFFD."""
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


@attrs.frozen
class Selection:
    """Which processes are wanted: a `ProcessFilter` whose parts all have to hold."""

    names: frozenset[str] = frozenset()
    pids: frozenset[int] = frozenset()
    pattern: str = ""

    @classmethod
    def of(cls, process_filter: ProcessFilter) -> Selection:
        """Take over a filter; its empty parts select everything."""
        return cls(
            names=frozenset(process_filter.process_names),
            pids=frozenset(process_filter.pids),
            pattern=process_filter.executable_pattern,
        )

    def takes_name(self, name: str) -> bool:
        """Whether the process's name is one of those asked for."""
        return not self.names or name in self.names

    def takes_executable(self, path: str) -> bool:
        """Whether the executable's path matches the glob; a process without one only without a glob."""
        return not self.pattern or (bool(path) and fnmatch.fnmatchcase(path, self.pattern))


@attrs.frozen
class Sighting:
    """One process as it was found.

    Attributes:
        record: what goes to the agent.
        image: its executable, or None if it has none or hides it.
        hash_problem: why the record lacks a hash that was asked for.
    """

    record: ProcessRecord
    image: Image | None = None
    hash_problem: str = ""


class _Attributes:
    """Reads attributes of one process, noting whether any of them was denied."""

    def __init__(self) -> None:
        self.denied = False

    def read(self, attribute: Callable[[], _T]) -> _T | None:
        """Return the attribute, or None if it cannot be had.

        Raises:
            psutil.NoSuchProcess: the process has gone, and with it the whole record.
        """
        try:
            return attribute()
        except psutil.ZombieProcess:
            return None  # a NoSuchProcess to psutil, though it still has a pid, a parent and a name
        except psutil.NoSuchProcess:
            raise
        except (psutil.AccessDenied, PermissionError):
            self.denied = True
            return None
        except _UNREADABLE:
            return None


@attrs.frozen
class _CpuSample:
    at: float
    seconds: float
    percent: float | None


class ProcessTable:
    """This machine's processes. Remembers hashes and CPU samples between calls, both bounded."""

    def __init__(self, hasher: FileHasher | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.hasher = FileHasher() if hasher is None else hasher
        self._clock = clock
        self._cpu: BoundedCache[tuple[int, float], _CpuSample] = BoundedCache(65_536)

    def select(
        self, selection: Selection, *, algorithm: str = "", checkpoint: Checkpoint = lambda: None
    ) -> list[Sighting]:
        """Collect the processes of a selection, by pid.

        Args:
            selection: which ones; pids that do not exist are simply absent.
            algorithm: hash their executables with it; empty for no hashes.
            checkpoint: called for each process and each block that is hashed.
        """
        sightings = (
            self._sight(process, selection, algorithm, checkpoint)
            for process in _processes(selection.pids, checkpoint)
        )
        return [sighting for sighting in sightings if sighting is not None]

    def outline(self, selection: Selection, *, checkpoint: Checkpoint = lambda: None) -> list[Sighting]:
        """Collect only pid, start time and name, for an agent that splits its question into pages."""
        outlines = []
        for sighting in self.select(selection, checkpoint=checkpoint):
            full = sighting.record
            brief = ProcessRecord(pid=full.pid, name=full.name)
            if full.HasField("start_time"):
                brief.start_time = full.start_time
            outlines.append(Sighting(brief))
        return outlines

    def tree(
        self, selection: Selection, *, algorithm: str = "", checkpoint: Checkpoint = lambda: None
    ) -> list[Sighting]:
        """Collect the processes of `selection.pids` and all their descendants.

        Names and glob narrow what is reported, not the walk: a descendant is found through a parent that
        is itself left out.
        """
        children: dict[int | None, list[psutil.Process]] = {}
        found: dict[int, psutil.Process] = {}
        for process in _processes(frozenset(), checkpoint):
            children.setdefault(_parent_of(process), []).append(process)
            if process.pid in selection.pids:
                found[process.pid] = process
        unvisited = list(found.values())
        while unvisited:
            for child in children.get(unvisited.pop().pid, ()):
                if child.pid not in found:
                    found[child.pid] = child
                    unvisited.append(child)
        if not found:
            return []  # no pids at all would select every process
        family = attrs.evolve(selection, pids=frozenset(found))
        return self.select(family, algorithm=algorithm, checkpoint=checkpoint)

    def _sight(
        self, process: psutil.Process, selection: Selection, algorithm: str, checkpoint: Checkpoint
    ) -> Sighting | None:
        try:
            with process.oneshot():
                sighting = self._read(process, selection)
            # Its attributes were read one by one; make sure that they were all of the same process.
            if sighting is None or not process.is_running():
                return None
        except _UNREADABLE:
            return None
        return self._with_hash(sighting, algorithm, checkpoint) if algorithm else sighting

    def _read(self, process: psutil.Process, selection: Selection) -> Sighting | None:
        attributes = _Attributes()
        name = valid_text(attributes.read(process.name) or "")
        if not selection.takes_name(name):
            return None
        image = attributes.read(lambda: image_of(process))
        path = valid_text(image.path) if image is not None else ""
        if not selection.takes_executable(path):
            return None
        start_time = attributes.read(process.create_time)
        memory = attributes.read(process.memory_info)
        record = ProcessRecord(
            pid=process.pid,
            ppid=_within(attributes.read(process.ppid), 0, _UINT32_MAX),
            name=name,
            executable_path=path or None,
            command_line=map(valid_text, attributes.read(process.cmdline) or ()),
            start_time=_within(start_time, -_INT64_MAX, _INT64_MAX),
            cpu_usage=self._cpu_usage(process.pid, start_time, attributes.read(process.cpu_times)),
            memory_usage=_within(memory.rss if memory else None, 0, _UINT64_MAX),
            user_id=attributes.read(lambda: _user_id(process)),
            file_exists=image is not None and image.on_disk,
            on_disk_mismatch=image is not None and image.mismatch,
            collection_time=time.time_ns() // 1_000_000,
        )
        record.accessible = not attributes.denied
        return Sighting(record, image)

    def _cpu_usage(self, pid: int, start_time: float | None, times: Any) -> float | None:
        """Return the percentage of one core since the last sample; None at the first."""
        if start_time is None or times is None:
            return None
        now, used = self._clock(), times.user + times.system
        last = self._cpu.get((pid, start_time))
        if last is not None and now - last.at < _LEAST_CPU_INTERVAL:
            return last.percent
        percent = None if last is None else max(0.0, 100 * (used - last.seconds) / (now - last.at))
        self._cpu.put((pid, start_time), _CpuSample(now, used, percent))
        return percent

    def _with_hash(self, sighting: Sighting, algorithm: str, checkpoint: Checkpoint) -> Sighting:
        image = sighting.image
        if image is None:
            reason = "it runs no file" if sighting.record.accessible else "its executable is not accessible"
            return attrs.evolve(sighting, hash_problem=reason)
        try:
            digest = self.hasher.digest(image.path, algorithm, source=image.source, checkpoint=checkpoint)
        except HashError as exc:
            return attrs.evolve(sighting, hash_problem=str(exc))
        sighting.record.executable_hash = digest
        sighting.record.hash_algorithm = algorithm
        return sighting


def _processes(pids: frozenset[int], checkpoint: Checkpoint) -> Iterator[psutil.Process]:
    """Give the processes of these pids, of all pids if there are none, that exist."""
    # The system's own list decides what exists: Linux also answers for the ids of mere threads.
    existing = psutil.pids()
    for pid in sorted(pids.intersection(existing) if pids else existing):
        checkpoint()
        try:
            yield psutil.Process(pid)
        except _UNREADABLE:
            continue


def _parent_of(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except _UNREADABLE:
        return None


def _within(value: float | None, least: int, most: int) -> int | None:
    """Return a number as protobuf's field can hold it, or None."""
    return int(value) if value is not None and least <= value <= most else None


def _user_id(process: psutil.Process) -> str:
    # Only Unix has numbers for users.
    return str(process.uids().real) if hasattr(process, "uids") else process.username()
