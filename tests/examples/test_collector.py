from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import pytest
import trio

from examples.procmond.collector import CAPABILITIES, Collector
from tests.platforms import needs_proc, unix_only, without_names
from trio_ipc.daemoneye import (
    DetectionResult,
    DetectionTask,
    HashCheck,
    MonitoringDomain,
    ProcessFilter,
    TaskType,
    stated_capabilities,
)

from .support import (
    CALL,
    DEADLINE,
    blocked_child,
    delete,
    make_fifo,
    replace,
    running_copy,
    sha256_of,
    zombie,
)

NO_SUCH_PID = 2**31 - 1


async def ask(task: DetectionTask, collector: Collector | None = None) -> DetectionResult:
    """Ask a collector, and expect what holds for every response."""
    task.task_id = "the task"
    with trio.fail_after(DEADLINE):
        result = await (collector or Collector()).handle(task, CALL)
    assert result.task_id == "the task"
    assert result.success != bool(result.error_message), "a failure, and nothing else, has a reason"
    return DetectionResult.FromString(result.SerializeToString())


def check(
    path: str | Path = "", *, expected: str = "", algorithm: str = "", pids: list[int] | None = None
) -> DetectionTask:
    return DetectionTask(
        task_type=TaskType.CHECK_PROCESS_HASH,
        hash_check=HashCheck(executable_path=str(path), expected_hash=expected, hash_algorithm=algorithm),
        process_filter=ProcessFilter(pids=pids or []),
    )


def verify(
    path: str | Path = "", *, expected: str = "", algorithm: str = "", pids: list[int] | None = None
) -> DetectionTask:
    task = check(path, expected=expected, algorithm=algorithm, pids=pids)
    task.task_type = TaskType.VERIFY_EXECUTABLE
    return task


# --- what is no work for this collector ---


@pytest.mark.parametrize(
    ("task_type", "reason"),
    [
        (TaskType.MONITOR_NETWORK_CONNECTIONS, "Network monitoring not supported"),
        (TaskType.TRACK_FILE_OPERATIONS, "Filesystem monitoring not supported"),
        (TaskType.COLLECT_PERFORMANCE_METRICS, "Performance monitoring not supported"),
        (99, "Unknown task type: 99"),
    ],
)
async def test_other_tasks_are_refused_in_the_peers_own_words(task_type: TaskType, reason: str) -> None:
    result = await ask(DetectionTask(task_type=task_type))
    assert result.error_message == reason


async def test_a_capability_negotiation_succeeds_without_enumerating() -> None:
    result = await ask(DetectionTask(metadata="capability_negotiation"))
    assert (result.success, len(result.processes)) == (True, 0)
    assert stated_capabilities(result) == CAPABILITIES
    assert CAPABILITIES.domains == {MonitoringDomain.PROCESS}


# --- enumeration ---


async def test_an_enumeration_finds_this_process_without_hashes() -> None:
    result = await ask(DetectionTask())
    assert os.getpid() in {record.pid for record in result.processes}
    assert not any(record.executable_hash for record in result.processes)


async def test_an_enumeration_that_finds_nothing_is_a_success() -> None:
    result = await ask(DetectionTask(process_filter=ProcessFilter(pids=[NO_SUCH_PID])))
    assert result == DetectionResult(task_id="the task", success=True)


@without_names
async def test_an_algorithm_alone_asks_an_enumeration_for_hashes() -> None:
    task = DetectionTask(
        process_filter=ProcessFilter(pids=[os.getpid()]), hash_check=HashCheck(hash_algorithm="SHA256")
    )
    (record,) = (await ask(task)).processes
    assert record.executable_hash == sha256_of(sys.executable)
    assert record.hash_algorithm == "sha256"


async def test_an_unknown_algorithm_fails_an_enumeration() -> None:
    result = await ask(DetectionTask(hash_check=HashCheck(hash_algorithm="blake4")))
    assert result.error_message.startswith("unknown hash algorithm 'blake4'; known are ")


@without_names
async def test_pids_only_gives_a_record_of_every_process_without_details() -> None:
    result = await ask(DetectionTask(metadata="pids_only"))
    own = next(record for record in result.processes if record.pid == os.getpid())
    assert {field.name for field, _ in own.ListFields()} == {"pid", "name", "start_time"}


# --- the process tree ---


async def test_a_tree_holds_the_root_and_its_child_and_can_be_hashed() -> None:
    async with blocked_child() as child:
        task = DetectionTask(
            task_type=TaskType.MONITOR_PROCESS_TREE,
            process_filter=ProcessFilter(pids=[os.getpid(), NO_SUCH_PID]),
            hash_check=HashCheck(hash_algorithm="md5"),
        )
        result = await ask(task)
        assert {os.getpid(), child.pid} <= {record.pid for record in result.processes}
        assert all(record.hash_algorithm == "md5" for record in result.processes if record.executable_hash)


async def test_names_narrow_what_a_tree_reports_but_not_the_walk() -> None:
    task = DetectionTask(
        task_type=TaskType.MONITOR_PROCESS_TREE,
        process_filter=ProcessFilter(pids=[os.getpid()], process_names=["no such name"]),
    )
    assert await ask(task) == DetectionResult(task_id="the task", success=True)


async def test_a_tree_without_roots_fails() -> None:
    result = await ask(DetectionTask(task_type=TaskType.MONITOR_PROCESS_TREE))
    assert "process_filter.pids" in result.error_message


async def test_a_tree_none_of_whose_roots_exists_fails() -> None:
    task = DetectionTask(
        task_type=TaskType.MONITOR_PROCESS_TREE,
        process_filter=ProcessFilter(pids=[NO_SUCH_PID, NO_SUCH_PID - 1]),
    )
    result = await ask(task)
    assert result.error_message == f"no such process: {NO_SUCH_PID - 1}, {NO_SUCH_PID}"


async def test_a_long_list_of_missing_processes_is_cut_short_in_the_message() -> None:
    task = DetectionTask(
        task_type=TaskType.MONITOR_PROCESS_TREE,
        process_filter=ProcessFilter(pids=range(NO_SUCH_PID - 11, NO_SUCH_PID + 1)),
    )
    assert (await ask(task)).error_message.endswith(" and 2 more")


# --- hash checks ---


async def test_a_hash_is_computed_when_nothing_is_expected(executable: Path) -> None:
    found = (await ask(check(executable))).hash_result
    assert found.success
    assert (found.hash_value, found.algorithm) == (sha256_of(executable), "sha256")
    assert found.file_path == str(executable)


async def test_an_expected_hash_is_confirmed_in_any_case(executable: Path) -> None:
    result = await ask(check(executable, expected=sha256_of(executable).upper()))
    assert result.success
    assert result.hash_result.success


async def test_a_mismatch_is_a_response_and_no_failure(executable: Path) -> None:
    result = await ask(check(executable, expected="0" * 64))
    assert result.success
    found = result.hash_result
    assert not found.success
    assert found.error_message == f"hash mismatch: expected {'0' * 64}, found {sha256_of(executable)}"
    assert found.hash_value == sha256_of(executable)


async def test_a_file_that_cannot_be_hashed_is_a_failure_without_a_hash(tmp_path: Path) -> None:
    cases: list[tuple[str | Path, str]] = [
        (tmp_path / "missing", f"{tmp_path / 'missing'}: "),
        (tmp_path, "not a regular file"),
        (f"{tmp_path}/\0", "null"),
    ]
    if sys.platform != "win32":
        make_fifo(tmp_path / "fifo")
        cases.append((tmp_path / "fifo", "not a regular file"))
    for path, reason in cases:
        result = await ask(check(path))
        assert not result.success
        assert reason in result.error_message
        assert not result.hash_result.success
        assert not result.hash_result.hash_value
        assert result.hash_result.error_message == result.error_message


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (DetectionTask(task_type=TaskType.CHECK_PROCESS_HASH), "needs hash_check"),
        (check(), "needs hash_check.executable_path, or processes in process_filter.pids"),
        (check("relative/path"), "'relative/path' is not an absolute path"),
        (check("/bin/sh", algorithm="shake_128"), "has no digest length of its own"),
        (check("/bin/sh", expected="abc"), "is no sha256 digest: 64 hexadecimal digits"),
        (check(pids=[NO_SUCH_PID]), f"no such process: {NO_SUCH_PID}"),
        (verify(), "needs processes in process_filter.pids, or hash_check.executable_path"),
        (verify(pids=[NO_SUCH_PID]), f"no such process: {NO_SUCH_PID}"),
        (verify("relative"), "is not an absolute path"),
    ],
)
async def test_a_question_that_cannot_be_answered_fails_by_saying_why(
    task: DetectionTask, reason: str
) -> None:
    result = await ask(task)
    assert reason in result.error_message


@without_names
async def test_the_executable_of_a_process_can_be_checked_by_its_pid(executable: Path) -> None:
    async with running_copy(executable) as program:
        good = await ask(check(pids=[program.pid], expected=sha256_of(executable)))
        assert good.hash_result.success
        assert good.hash_result.file_path == str(executable)
        assert [record.pid for record in good.processes] == [program.pid]
        bad = await ask(check(pids=[program.pid], expected="0" * 64))
        assert bad.success
        assert bad.hash_result.error_message.startswith("hash mismatch: expected 000")
        both = await ask(check(pids=[program.pid, os.getpid()], expected=sha256_of(executable)))
        assert both.success
        assert both.hash_result.error_message.startswith(f"process {os.getpid()}: hash mismatch")


@needs_proc
async def test_a_process_that_runs_no_file_cannot_be_checked() -> None:
    with zombie() as pid:
        result = await ask(check(pids=[pid]))
        assert result.error_message == f"process {pid} has no hash: it runs no file"
        assert [record.pid for record in result.processes] == [pid]


# --- verification ---


@without_names
async def test_an_untouched_running_executable_is_verified(executable: Path) -> None:
    async with running_copy(executable) as program:
        result = await ask(verify(pids=[program.pid], expected=sha256_of(executable)))
        assert result.hash_result.success
        assert result.hash_result.hash_value == sha256_of(executable)
        (record,) = result.processes
        assert (record.file_exists, record.on_disk_mismatch) == (True, False)


@needs_proc
async def test_an_executable_deleted_while_running_is_told_with_the_hash_of_what_runs(
    executable: Path,
) -> None:
    expected = sha256_of(executable)
    async with running_copy(executable) as program:
        delete(executable)
        result = await ask(verify(pids=[program.pid]))
        assert result.success
        verdict = f"process {program.pid}, {executable}: deleted while running"
        assert result.hash_result.error_message == verdict
        assert result.hash_result.hash_value == expected
        assert result.processes[0].on_disk_mismatch


@needs_proc
async def test_an_executable_replaced_while_running_is_told(executable: Path) -> None:
    async with running_copy(executable) as program:
        replace(executable)
        result = await ask(verify(pids=[program.pid]))
        verdict = f"process {program.pid}, {executable}: replaced while running"
        assert result.hash_result.error_message == verdict
        assert result.processes[0].on_disk_mismatch


@needs_proc
async def test_a_running_executable_that_may_no_longer_be_executed_is_told(executable: Path) -> None:
    async with running_copy(executable) as program:
        await trio.Path(executable).chmod(0o600)
        result = await ask(verify(pids=[program.pid]))
        assert "not executable any longer" in result.hash_result.error_message


async def test_an_executable_file_is_verified_by_its_path(executable: Path) -> None:
    result = await ask(verify(executable, expected=sha256_of(executable)))
    assert result.hash_result.success
    assert not result.processes


@unix_only  # Windows has no right to execute
async def test_what_is_wrong_with_a_file_is_the_verdict_all_of_it(executable: Path) -> None:
    await trio.Path(executable).chmod(0o600)
    result = await ask(verify(executable, expected="0" * 64))
    assert result.success
    assert "hash mismatch" in result.hash_result.error_message
    assert f"{executable}: not executable" in result.hash_result.error_message
    assert result.hash_result.hash_value == sha256_of(executable)


async def test_a_missing_file_is_a_verdict_as_its_existence_was_the_question(tmp_path: Path) -> None:
    result = await ask(verify(tmp_path / "missing"))
    assert result.success
    assert result.hash_result.error_message == f"{tmp_path / 'missing'}: no such file"


async def test_a_file_that_cannot_be_verified_is_a_failure(tmp_path: Path) -> None:
    result = await ask(verify(tmp_path))
    assert result.error_message == f"{tmp_path}: not a regular file"


# --- threads ---


async def test_cancelling_ends_the_work_in_the_thread_too(tmp_path: Path) -> None:
    endless = tmp_path / "endless"
    await trio.Path(endless).touch()
    os.truncate(endless, 1 << 40)  # sparse; hashing it would take minutes
    collector = Collector(threads=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collector.handle, check(endless), CALL)
        with trio.fail_after(DEADLINE):
            while collector._limiter.borrowed_tokens == 0:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    # The only place is free again as soon as the thread has noticed.
    result = await ask(DetectionTask(process_filter=ProcessFilter(pids=[os.getpid()])), collector)
    assert result.success


async def test_no_more_threads_look_at_the_system_than_allowed() -> None:
    collector = Collector(threads=2)
    assert collector._limiter.total_tokens == 2
    with contextlib.ExitStack() as taken:
        for owner in "ab":
            collector._limiter.acquire_on_behalf_of_nowait(owner)
            taken.callback(collector._limiter.release_on_behalf_of, owner)
        with trio.move_on_after(0) as scope:
            await collector.handle(DetectionTask(), CALL)
        assert scope.cancelled_caught
    assert (await ask(DetectionTask(process_filter=ProcessFilter(pids=[1])), collector)).success


@pytest.mark.parametrize(
    "names", [pytest.param([], id="all", marks=without_names), pytest.param(["no such name"], id="none")]
)
async def test_an_executable_is_verified_without_a_hash_check(names: list[str]) -> None:
    """As the reference's planner asks: by names, or without any filter."""
    result = await ask(
        DetectionTask(task_type=TaskType.VERIFY_EXECUTABLE, process_filter=ProcessFilter(process_names=names))
    )
    assert result.success, result.error_message
    assert result.hash_result.algorithm == "sha256"
    own = [record for record in result.processes if record.pid == os.getpid()]
    assert [record.executable_hash for record in own] == ([] if names else [sha256_of(sys.executable)])
