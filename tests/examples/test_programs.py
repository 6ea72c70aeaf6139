"""The two programs from outside, as a user or a service manager meets them."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from .support import (
    Program,
    agent,
    blocked_child,
    collector_at,
    exists,
    fails_with_one_line,
    once,
    procmond,
    sha256_of,
    spawn,
)

TINY_FRAMES = {"TRIO_IPC_MAX_FRAME_BYTES": "4096"}


# --- the collector ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_collector_well(short_dir: Path, number: signal.Signals) -> None:
    endpoint = short_dir / "sub" / "s"
    async with collector_at(endpoint) as collector:
        assert exists(endpoint)
        collector.process.send_signal(number)
        assert await collector.end() == 0
        assert not exists(endpoint)
        (line,) = collector.stderr.seen
        assert line.startswith("procmond: served: transport=interprocess")


async def test_the_collector_counts_what_it_served(short_dir: Path) -> None:
    async with collector_at(short_dir / "s") as collector:
        await once(short_dir / "s")
        await once(short_dir / "s")
        collector.process.terminate()
        await collector.end()
        assert "requests=4" in collector.stderr.seen[-1].split()


async def test_a_second_signal_ends_the_collector_at_once(short_dir: Path, tmp_path: Path) -> None:
    endless = make_endless(tmp_path)
    patient = {"TRIO_IPC_SHUTDOWN_GRACE_MS": "600000", "TRIO_IPC_HANDLER_TIMEOUT_MS": "600000"}
    async with (
        collector_at(short_dir / "s", "--verbose", environ=patient) as collector,
        spawn(*hash_client(short_dir / "s", endless)),
    ):
        await collector.stderr.until(lambda line: "task 'endless'" in line)
        # Two different signals, as two of a kind may arrive as one.
        collector.process.send_signal(signal.SIGTERM)
        collector.process.send_signal(signal.SIGINT)
        assert await collector.end() == 0
        assert not exists(short_dir / "s")


def make_endless(directory: Path) -> Path:
    """Make a sparse file that takes minutes to hash."""
    path = directory / "endless"
    path.touch()
    os.truncate(path, 1 << 40)
    return path


def hash_client(endpoint: Path, path: Path) -> list[str]:
    """Return the command line of a client that asks for a file's hash."""
    code = f"""
import trio
from trio_ipc import IpcConfig, open_client
from trio_ipc.daemoneye import DetectionTask, HashCheck, TaskType
async def main():
    async with open_client(IpcConfig(endpoint_path={str(endpoint)!r})) as client:
        await client.call(DetectionTask(
            task_id="endless", task_type=TaskType.CHECK_PROCESS_HASH,
            hash_check=HashCheck(executable_path={str(path)!r}),
        ))
trio.run(main)
"""
    return [sys.executable, "-c", code]


async def test_a_file_where_the_endpoint_should_be_is_one_line_and_stays(short_dir: Path) -> None:
    path = short_dir / "file"
    write(path, "precious")
    line = await fails_with_one_line(procmond(path))
    assert line.startswith(f"procmond: {path}: ")
    assert read(path) == "precious"


async def test_an_endpoint_in_use_is_one_line_that_names_its_owner(short_dir: Path) -> None:
    async with collector_at(short_dir / "s") as collector:
        line = await fails_with_one_line(procmond(short_dir / "s"))
        assert str(collector.pid) in line
        assert (await once(short_dir / "s"))["cycle"] == 1, "the first one goes on"


@pytest.mark.parametrize(
    ("endpoint", "environ", "reason"),
    [
        ("/tmp/" + "x" * 200, {}, "endpoint_path is "),
        ("", {}, "endpoint_path is ''"),
        ("/tmp/s", {"TRIO_IPC_MAX_CONNECTIONS": "none"}, "max_connections is 'none'"),
        ("/tmp/s", {"TRIO_IPC_TRANSPORT": "pigeon"}, "transport is 'pigeon'"),
        ("/tmp/s", {"TRIO_IPC_MAX_CONECTIONS": "1"}, "did you mean "),
    ],
)
async def test_a_wrong_setting_is_one_line_to_both_programs(
    endpoint: str, environ: dict[str, str], reason: str
) -> None:
    assert reason in await fails_with_one_line(procmond(endpoint), environ)
    assert reason in await fails_with_one_line(agent(endpoint, "--once"), environ)


async def test_a_configuration_file_that_is_missing_is_one_line(short_dir: Path) -> None:
    line = await fails_with_one_line(procmond(short_dir / "s", "--config", f"{short_dir}/missing.toml"))
    assert f"{short_dir}/missing.toml" in line


async def test_the_endpoint_option_wins_over_the_environment_and_the_file(short_dir: Path) -> None:
    file = short_dir / "config.toml"
    write(file, f'[ipc]\nendpoint_path = "{short_dir}/of-the-file"\nmax_frame_bytes = 2000000\n')
    environ = {"TRIO_IPC_ENDPOINT_PATH": f"{short_dir}/of-the-environment"}
    async with collector_at(short_dir / "s", "--config", str(file), environ=environ):
        assert exists(short_dir / "s")
        assert not exists(short_dir / "of-the-environment")
    command = [sys.executable, "-m", "examples.procmond", "--config", str(file)]
    async with spawn(*command, environ=environ) as from_environment:
        assert await from_environment.stdout.next() == f"listening on {short_dir}/of-the-environment"
    async with spawn(*command) as from_file:
        assert await from_file.stdout.next() == f"listening on {short_dir}/of-the-file"


def write(path: Path, text: str) -> None:
    path.write_text(text)


def read(path: Path) -> str:
    return path.read_text()


# --- the agent ---


async def test_the_agent_sees_this_process_and_its_hash(short_dir: Path) -> None:
    async with collector_at(short_dir / "s"):
        document = await once(short_dir / "s", "--hash")
    own = next(record for record in document["processes"] if record["pid"] == os.getpid())
    assert own["executable_hash"] == sha256_of(sys.executable)
    assert document["skipped"] == []


async def test_names_and_pids_narrow_what_the_agent_asks_for(short_dir: Path) -> None:
    own = str(os.getpid())
    async with collector_at(short_dir / "s") as collector:
        two = await once(short_dir / "s", "--pid", own, "--pid", str(collector.pid), "1")
        assert {str(record["pid"]) for record in two["processes"]} >= {own, str(collector.pid)}
        none = await once(short_dir / "s", "--pid", own, "--name", "no such name", "nor this")
        assert none["processes"] == []


async def test_any_of_several_collectors_answers_and_is_named(short_dir: Path) -> None:
    both = {f"{short_dir}/a", f"{short_dir}/b"}
    more = ["--endpoint", f"{short_dir}/b", "--json", "--interval", "0.05"]
    async with (
        collector_at(short_dir / "a") as first,
        collector_at(short_dir / "b") as second,
        spawn(*agent(short_dir / "a", *more)) as program,
    ):
        seen: set[str] = set()
        while seen != both:
            seen |= set(json.loads(await program.stdout.next() or "null")["collectors"])
        first.process.kill()
        await first.process.wait()
        async with blocked_child() as child:
            await changes_until(program, "appeared", child.pid)
        assert program.stderr.seen == [], "nobody noticed"
        document = json.loads(await program.stdout.next() or "null")
        assert document["collectors"] == [f"{short_dir}/b"]
        assert second.process.returncode is None


@pytest.mark.parametrize("strategy", ["round-robin", "weighted", "priority"])
async def test_the_table_says_who_answered(short_dir: Path, strategy: str) -> None:
    command = agent(short_dir / "s", "--once", "--strategy", strategy, "--endpoint", f"{short_dir}/nobody")
    async with collector_at(short_dir / "s"), spawn(*command) as program:
        assert await program.end() == 0, program.stderr.seen
        assert f"answered by {short_dir}/s" in program.stdout.seen


async def test_the_table_in_a_pipe_names_processes_and_the_active_transport(short_dir: Path) -> None:
    async with (
        collector_at(short_dir / "s"),
        spawn(*agent(short_dir / "s", "--once", "--pid", str(os.getpid()))) as program,
    ):
        assert await program.end() == 0
        output = "\n".join(program.stdout.seen)
        assert "Executable" in output
        assert str(os.getpid()) in output
        assert "\x1b" not in output
        assert "1 of 1 processes" in output
        assert "asked: transport=interprocess" in program.stdout.seen[-1]


async def test_without_a_utf8_terminal_the_table_is_still_shown(short_dir: Path) -> None:
    async with (
        collector_at(short_dir / "s"),
        spawn(*agent(short_dir / "s", "--once"), environ={"PYTHONIOENCODING": "ascii"}) as program,
    ):
        assert await program.end() == 0
        assert program.stderr.seen == []


async def test_results_that_are_too_large_are_asked_for_in_pages(short_dir: Path) -> None:
    async with (
        collector_at(short_dir / "s", environ=TINY_FRAMES) as collector,
        blocked_child("x" * 5000) as large,
    ):
        document = await once(short_dir / "s", environ=TINY_FRAMES)
        found = {record["pid"] for record in document["processes"]}
        assert {os.getpid(), collector.pid} <= found
        assert large.pid in document["skipped"], "its record alone is larger than a frame"
        assert large.pid not in found
        assert all(record["collection_time"] for record in document["processes"]), "whole records"


async def test_a_list_of_pids_that_is_too_large_is_one_line(short_dir: Path) -> None:
    # 150 bytes hold the failure that says so, but no list of a machine's pids.
    tiny = {"TRIO_IPC_MAX_FRAME_BYTES": "150"}
    async with collector_at(short_dir / "s", environ=tiny):
        line = await fails_with_one_line(agent(short_dir / "s", "--once"), tiny)
        assert "even the list of pids is too large" in line
        assert "max_frame_bytes" in line


@pytest.mark.parametrize("mode", [["--once"], ["--once", "--json"], ["--interval", "1"]])
async def test_no_collector_is_one_line(short_dir: Path, mode: list[str]) -> None:
    line = await fails_with_one_line(agent(short_dir / "s", *mode))
    assert line.startswith(f"agent: {short_dir}/s: ")


async def test_a_socket_where_nobody_listens_is_one_line(short_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(short_dir / "s"))
    line = await fails_with_one_line(agent(short_dir / "s", "--once"))
    assert line.startswith(f"agent: {short_dir}/s: ")


@pytest.mark.parametrize(
    "options",
    [
        ["--pid", "abc"],
        ["--pid", "-1"],
        ["--pid", str(2**32)],
        ["--interval", "0"],
        ["--interval", "nan"],
        ["--limit", "0"],
        ["--strategy", "best"],
    ],
)
async def test_a_wrong_option_is_refused_without_a_traceback(short_dir: Path, options: list[str]) -> None:
    async with spawn(*agent(short_dir / "s", *options)) as program:
        assert await program.end() == 2, program.stderr.seen
        assert options[0] in program.stderr.seen[-1]
        assert not any("Traceback" in line for line in program.stderr.seen)


async def changes_until(program: Program, what: str, pid: int) -> None:
    """Read documents until one reports this about a process."""
    while True:
        document = json.loads(await program.stdout.next() or "null")
        if pid in {record["pid"] for record in document["changes"][what]}:
            return


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_agent_reports_what_appears_and_vanishes_until_a_signal(
    short_dir: Path, number: signal.Signals
) -> None:
    async with (
        collector_at(short_dir / "s"),
        spawn(*agent(short_dir / "s", "--json", "--interval", "0.05")) as program,
    ):
        first = json.loads(await program.stdout.next() or "null")
        assert first["cycle"] == 1
        async with blocked_child() as child:
            await changes_until(program, "appeared", child.pid)
        await changes_until(program, "vanished", child.pid)
        program.process.send_signal(number)
        assert await program.end() == 0
        assert program.stderr.seen == []


async def test_the_agent_goes_on_when_the_collector_comes_back(short_dir: Path) -> None:
    async with spawn(*procmond(short_dir / "s")) as first:
        await first.stdout.next()
        async with spawn(*agent(short_dir / "s", "--json", "--interval", "0.05")) as program:
            await program.stdout.next()
            first.process.terminate()
            assert await first.end() == 0
            assert (await program.stderr.next() or "").startswith(f"agent: {short_dir}/s: ")
            async with collector_at(short_dir / "s") as second:
                await changes_until(program, "appeared", second.pid)
            program.process.terminate()
            assert await program.end() == 0
            assert not any("Traceback" in line for line in program.stderr.seen)


async def test_a_reader_that_has_seen_enough_is_no_error(short_dir: Path) -> None:
    for mode in ["--json"], ["--limit", "3"]:
        async with (
            collector_at(short_dir / "s"),
            spawn(*agent(short_dir / "s", "--interval", "0.05", *mode)) as program,
        ):
            await program.stdout.next()
            await program.stdout.close()
            async with blocked_child():  # something to report in table mode
                assert await program.stderr.rest() == []
                assert await program.process.wait() == 0
