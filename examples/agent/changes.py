"""What differs between two looks at the processes.

Pure functions over records. A process is known by its pid and start time: pids are used again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from trio_ipc.daemoneye import ProcessRecord

Key = tuple[int, int]
Snapshot = Mapping[Key, ProcessRecord]


@attrs.frozen
class Change:
    """One process whose executable is another one now, or is no longer what lies on disk."""

    before: ProcessRecord
    after: ProcessRecord


@attrs.frozen
class Changes:
    """What happened between two snapshots, each in the order of the pids."""

    appeared: Sequence[ProcessRecord] = ()
    vanished: Sequence[ProcessRecord] = ()
    changed: Sequence[Change] = ()

    def __bool__(self) -> bool:
        return bool(self.appeared or self.vanished or self.changed)


def snapshot(
    records: Iterable[ProcessRecord], unseen: Collection[int] = (), before: Snapshot | None = None
) -> Snapshot:
    """Index records by process.

    Args:
        records: what was seen.
        unseen: pids that exist but could not be seen this time. Nothing is known to have happened to
            them, so they stay what they were `before`.
        before: the previous snapshot.
    """
    kept = {key: record for key, record in (before or {}).items() if record.pid in unseen}
    return kept | {(record.pid, record.start_time): record for record in records}


def compare(before: Snapshot, after: Snapshot) -> Changes:
    """Say what appeared, vanished, or changed its executable."""
    return Changes(
        appeared=[after[key] for key in sorted(after.keys() - before.keys())],
        vanished=[before[key] for key in sorted(before.keys() - after.keys())],
        changed=[
            Change(before[key], after[key])
            for key in sorted(before.keys() & after.keys())
            if _other_executable(before[key], after[key])
        ],
    )


def _other_executable(before: ProcessRecord, after: ProcessRecord) -> bool:
    if before.executable_path != after.executable_path:
        return True
    if after.on_disk_mismatch and not before.on_disk_mismatch:
        return True
    # A hash that is missing on one side (not asked for, file busy) is no change.
    hashes = {record.executable_hash for record in (before, after) if record.executable_hash}
    return len(hashes) > 1 and before.hash_algorithm == after.hash_algorithm
