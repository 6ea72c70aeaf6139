from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from examples.procmond.processes import ProcessTable, Selection, Sighting, _within, valid_text
from tests.platforms import needs_proc, unix_only, without_names
from trio_ipc.daemoneye import ProcessFilter, ProcessRecord

from .support import blocked_child, delete, rename, replace, running_copy, sha256_of, spawn, zombie


def sight(pid: int, *, table: ProcessTable | None = None, algorithm: str = "") -> Sighting:
    found = (table or ProcessTable()).select(Selection(pids=frozenset({pid})), algorithm=algorithm)
    assert [sighting.record.pid for sighting in found] == [pid]
    return found[0]


def own_user_id() -> str:
    return psutil.Process().username() if sys.platform == "win32" else str(os.getuid())


def pids(found: list[Sighting]) -> set[int]:
    return {sighting.record.pid for sighting in found}


# --- what a record says ---


@without_names
def test_a_record_tells_what_the_system_knows_of_a_process() -> None:
    record = sight(os.getpid()).record
    assert record.ppid == os.getppid()
    assert record.executable_path == os.path.realpath(sys.executable)
    assert list(record.command_line) == psutil.Process().cmdline()
    assert record.start_time == int(psutil.Process().create_time())
    assert record.user_id == own_user_id()
    assert record.memory_usage > 1_000_000
    assert record.collection_time // 1000 >= record.start_time
    assert (record.accessible, record.file_exists, record.on_disk_mismatch) == (True, True, False)
    assert not record.HasField("executable_hash")


@without_names
def test_an_executable_is_hashed_only_when_asked_for() -> None:
    record = sight(os.getpid(), algorithm="sha256").record
    assert record.executable_hash == hashlib.sha256(Path(sys.executable).read_bytes()).hexdigest()
    assert record.hash_algorithm == "sha256"


def test_cpu_usage_needs_two_samples_that_are_not_too_close() -> None:
    now = 100.0
    before = sum(psutil.Process().cpu_times()[:2])
    table = ProcessTable(clock=lambda: now)
    assert not sight(os.getpid(), table=table).record.HasField("cpu_usage")
    now += 0.05
    assert not sight(os.getpid(), table=table).record.HasField("cpu_usage")
    now += 1
    measured = sight(os.getpid(), table=table).record
    assert measured.HasField("cpu_usage")
    used = sum(psutil.Process().cpu_times()[:2]) - before
    assert 0 <= measured.cpu_usage <= 100 * used / 1.0, (
        "no more than all that was used meanwhile, in a second"
    )
    now += 0.05
    assert sight(os.getpid(), table=table).record.cpu_usage == measured.cpu_usage


def test_cpu_usage_is_the_share_of_one_core_between_two_samples() -> None:
    now = 0.0
    table = ProcessTable(clock=lambda: now)

    class Times:
        user = 1.0
        system = 2.0

    assert table._cpu_usage(7, 1.0, Times) is None
    now, Times.user = 4.0, 3.0
    assert table._cpu_usage(7, 1.0, Times) == 50.0
    assert table._cpu_usage(7, 2.0, Times) is None, "a pid that was used again starts anew"


# --- which processes ---


async def test_an_empty_selection_takes_every_process() -> None:
    async with blocked_child() as child:
        assert {os.getpid(), child.pid} <= pids(ProcessTable().select(Selection()))


def test_records_come_in_the_order_of_pids() -> None:
    found = [sighting.record.pid for sighting in ProcessTable().select(Selection())]
    assert found == sorted(found)


@without_names
async def test_all_parts_of_a_filter_have_to_hold() -> None:
    table = ProcessTable()
    async with blocked_child() as child:
        known = sight(child.pid, table=table).record
        name, path = known.name, known.executable_path[:-3] + "*"
        pids_given = [child.pid, os.getpid()]

        def found(filter_: ProcessFilter) -> bool:
            return child.pid in pids(table.select(Selection.of(filter_)))

        right = ProcessFilter(process_names=["no such", name], pids=pids_given, executable_pattern=path)
        assert found(right)
        assert not found(
            ProcessFilter(process_names=[name.upper()], pids=pids_given, executable_pattern=path)
        )
        assert not found(ProcessFilter(process_names=[name], pids=[os.getpid()], executable_pattern=path))
        assert not found(
            ProcessFilter(process_names=[name], pids=pids_given, executable_pattern="/no/such/*")
        )


def test_pids_that_do_not_exist_are_simply_absent() -> None:
    wanted = frozenset({os.getpid(), 2**31 - 1, 2**32 - 1, 0xFFFF_FFF0})
    assert pids(ProcessTable().select(Selection(pids=wanted))) == {os.getpid()}


def test_a_glob_takes_no_process_without_an_executable() -> None:
    assert all(
        sighting.record.executable_path
        for sighting in ProcessTable().select(Selection.of(ProcessFilter(executable_pattern="*")))
    )


@needs_proc
async def test_a_threads_id_is_no_pid() -> None:
    threads = [thread.id for thread in psutil.Process().threads()]
    assert pids(ProcessTable().select(Selection(pids=frozenset(threads)))) == {os.getpid()}


@without_names
def test_an_outline_has_only_pid_name_and_start_time() -> None:
    (outline,) = ProcessTable().outline(Selection(pids=frozenset({os.getpid()})))
    assert {field.name for field, _ in outline.record.ListFields()} == {"pid", "name", "start_time"}


async def test_a_tree_is_the_roots_and_all_their_descendants() -> None:
    code = (
        "import subprocess, sys; "
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE); "
        "print(child.pid, flush=True); input(); child.communicate()"
    )
    async with spawn(sys.executable, "-c", code) as middle, blocked_child() as other:
        leaf = int(await middle.stdout.next() or 0)
        table = ProcessTable()
        assert pids(table.tree(Selection(pids=frozenset({middle.pid})))) == {middle.pid, leaf}
        ours = pids(table.tree(Selection(pids=frozenset({os.getpid()}))))
        assert {os.getpid(), middle.pid, leaf, other.pid} <= ours
        assert table.tree(Selection(pids=frozenset({2**31 - 1}))) == []
        await middle.write(b"\n")
        await middle.end()


# --- processes that are not as one would like them ---


def test_a_process_that_vanishes_while_it_is_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        original = psutil.Process.cmdline

        def kill_first(process: psutil.Process) -> list[str]:
            if process.pid == child.pid:
                child.kill()
                child.communicate()
            return original(process)

        monkeypatch.setattr(psutil.Process, "cmdline", kill_first)
        found = pids(ProcessTable().select(Selection(pids=frozenset({child.pid, os.getpid()}))))
        assert found == {os.getpid()}


@without_names
def test_what_is_denied_is_missing_from_the_record_which_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(process: psutil.Process) -> Any:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "cmdline", deny)
    record = sight(os.getpid()).record
    assert not record.accessible
    assert not record.command_line
    assert record.name


@without_names
@pytest.mark.parametrize("error", [OSError("odd"), ValueError("odd"), IndexError("odd"), KeyError("odd")])
def test_an_attribute_that_cannot_be_parsed_is_missing_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(process: psutil.Process) -> Any:
        raise error

    monkeypatch.setattr(psutil.Process, "cmdline", fail)
    record = sight(os.getpid()).record
    assert not record.command_line
    assert record.accessible
    assert record.executable_path


@pytest.mark.parametrize("start", [float("inf"), float("nan"), 1e300, -1e300])
def test_a_number_that_its_field_cannot_hold_is_left_out(
    monkeypatch: pytest.MonkeyPatch, start: float
) -> None:
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: start)
    assert not sight(os.getpid()).record.HasField("start_time")


def test_numbers_are_judged_by_their_fields_limits() -> None:
    assert _within(2**32 - 1, 0, 2**32 - 1) == 2**32 - 1
    assert _within(2**32, 0, 2**32 - 1) is None
    assert _within(-1, 0, 2**64 - 1) is None
    assert _within(None, 0, 1) is None


@needs_proc
def test_a_zombie_is_a_process_without_an_executable() -> None:
    with zombie() as pid:
        found = sight(pid, algorithm="sha256")
        assert not found.record.HasField("executable_path")
        assert not found.record.command_line
        assert found.record.name
        assert found.hash_problem == "it runs no file"


@unix_only
async def test_a_command_line_of_arbitrary_bytes_becomes_valid_text() -> None:
    async with blocked_child(b"\xff\xfe", "grüß".encode()) as child:
        record = sight(child.pid).record
        assert list(record.command_line[-2:]) == ["\ufffd\ufffd", "grüß"]
        assert ProcessRecord.FromString(record.SerializeToString()) == record


@needs_proc
async def test_an_executable_of_arbitrary_bytes_in_its_path_is_reported_and_hashed(
    tmp_path: Path, executable: Path
) -> None:
    directory = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(directory)
    odd = Path(shutil.copy(executable, os.fsdecode(directory + b"/cat")))
    async with running_copy(odd) as program:
        record = sight(program.pid, algorithm="sha256").record
        assert record.executable_path == f"{tmp_path}/\ufffd/cat"
        assert record.executable_hash == sha256_of(executable)
        assert record.file_exists


def test_lone_surrogates_of_any_kind_are_replaced() -> None:
    assert valid_text("a\udcff\ud800b") == "a\ufffd\ufffdb"


# --- executables that are no longer what runs ---


@needs_proc
async def test_an_untouched_executable_is_no_mismatch(executable: Path) -> None:
    async with running_copy(executable) as program:
        record = sight(program.pid).record
        assert (record.file_exists, record.on_disk_mismatch) == (True, False)


@needs_proc
async def test_an_executable_deleted_while_running_is_a_mismatch_and_still_hashed(executable: Path) -> None:
    expected = sha256_of(executable)
    async with running_copy(executable) as program:
        delete(executable)
        record = sight(program.pid, algorithm="sha256").record
        assert record.executable_path == str(executable)
        assert (record.file_exists, record.on_disk_mismatch) == (False, True)
        assert record.executable_hash == expected


@needs_proc
async def test_an_executable_replaced_while_running_is_a_mismatch(executable: Path) -> None:
    expected = sha256_of(executable)
    async with running_copy(executable) as program:
        replace(executable)
        record = sight(program.pid, algorithm="sha256").record
        assert record.executable_path == str(executable)
        assert (record.file_exists, record.on_disk_mismatch) == (True, True)
        assert record.executable_hash == expected, "it is the image that runs which is hashed"


@needs_proc
async def test_an_executable_renamed_while_running_is_reported_under_its_new_name(executable: Path) -> None:
    async with running_copy(executable) as program:
        moved = executable.with_name("moved (deleted)")
        rename(executable, moved)
        record = sight(program.pid).record
        assert record.executable_path == str(moved)
        assert (record.file_exists, record.on_disk_mismatch) == (True, False)


@needs_proc
def test_the_executable_is_never_guessed_from_what_the_process_claims() -> None:
    claim = [sys.executable, "-c", "read x"]
    with subprocess.Popen(claim, executable="/bin/sh", stdin=subprocess.PIPE) as child:
        assert sight(child.pid).record.executable_path == os.path.realpath("/bin/sh")
        child.kill()
        assert sys.platform != "win32"
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not sight(child.pid).record.HasField("executable_path")
