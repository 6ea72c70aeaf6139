from __future__ import annotations

from typing import Any

import pytest

from examples.agent.changes import Changes, compare, snapshot
from trio_ipc.daemoneye import ProcessRecord


def process(pid: int, start_time: int = 100, executable_path: str = "/bin/a", **more: Any) -> ProcessRecord:
    return ProcessRecord(pid=pid, start_time=start_time, executable_path=executable_path, **more)


def between(before: list[ProcessRecord], after: list[ProcessRecord]) -> Changes:
    return compare(snapshot(before), snapshot(after))


def test_the_same_processes_are_no_change() -> None:
    assert not between([process(1), process(2)], [process(2), process(1)])


def test_what_appeared_and_vanished_is_told_in_the_order_of_pids() -> None:
    changes = between([process(9), process(1), process(8)], [process(7), process(1), process(3)])
    assert [record.pid for record in changes.appeared] == [3, 7]
    assert [record.pid for record in changes.vanished] == [8, 9]
    assert changes


def test_a_pid_used_again_is_another_process() -> None:
    changes = between([process(1, start_time=100)], [process(1, start_time=200)])
    assert [record.start_time for record in changes.vanished] == [100]
    assert [record.start_time for record in changes.appeared] == [200]
    assert not changes.changed


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (process(1), process(1, executable_path="/bin/b")),
        (process(1), process(1, on_disk_mismatch=True)),
        (
            process(1, executable_hash="a", hash_algorithm="sha256"),
            process(1, executable_hash="b", hash_algorithm="sha256"),
        ),
    ],
)
def test_another_executable_is_a_change(before: ProcessRecord, after: ProcessRecord) -> None:
    changes = between([before], [after])
    ((change),) = changes.changed
    assert (change.before, change.after) == (before, after)
    assert not changes.appeared
    assert not changes.vanished


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (process(1, cpu_usage=1.0), process(1, cpu_usage=99.0)),
        (process(1, executable_hash="a"), process(1)),
        (process(1), process(1, executable_hash="a")),
        (process(1, on_disk_mismatch=True), process(1, on_disk_mismatch=True)),
        (
            process(1, executable_hash="a", hash_algorithm="md5"),
            process(1, executable_hash="b", hash_algorithm="sha256"),
        ),
    ],
)
def test_what_says_nothing_of_the_executable_is_no_change(
    before: ProcessRecord, after: ProcessRecord
) -> None:
    assert not between([before], [after])


def test_a_process_that_could_not_be_seen_this_time_has_neither_vanished_nor_appeared() -> None:
    first = snapshot([process(1), process(2)])
    second = snapshot([process(1)], unseen=[2], before=first)
    third = snapshot([process(1), process(2)], before=second)
    assert not compare(first, second)
    assert not compare(second, third)
