"""The two programs from outside, as a user or a service manager meets them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.platforms import UNDER_WINE, exists, fails_under_wine, unix_only
from trio_ipc.transports.host import STOP_SIGNALS

from .support import (
    agent,
    collector_at,
    example,
    fails_with_one_line,
    once,
    procmond,
    spawn,
)

# --- the collector ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", STOP_SIGNALS)
async def test_a_signal_ends_the_collector_well(endpoint_called: Callable[[str], str], number: int) -> None:
    endpoint = endpoint_called("sub/s" if sys.platform != "win32" else "s")
    async with collector_at(endpoint) as collector:
        assert exists(endpoint)
        await collector.signal(number)
        assert await collector.end() == 0
        assert not exists(endpoint)
        (line,) = collector.stderr.seen
        assert line.startswith("procmond: served: transport=interprocess")


async def test_the_collector_counts_what_it_served(endpoint: str) -> None:
    async with collector_at(endpoint) as collector:
        await once(endpoint)
        await once(endpoint)
        await collector.signal(STOP_SIGNALS[-1])
        await collector.end()
        assert "requests=4" in collector.stderr.seen[-1].split()


@pytest.mark.parametrize(
    ("served_by", "asked_by"), [("legacy", "legacy"), ("legacy", "interprocess"), ("interprocess", "legacy")]
)
async def test_one_variable_is_enough_to_choose_a_transport(
    endpoint: str, served_by: str, asked_by: str
) -> None:
    async with collector_at(endpoint, environ={"TRIO_IPC_TRANSPORT": served_by}) as collector:
        asking = {"TRIO_IPC_TRANSPORT": asked_by}
        async with spawn(*agent(endpoint, "--once"), environ=asking) as program:
            assert await program.end() == 0, program.stderr.seen
            assert f"asked: transport={asked_by}" in program.stdout.seen[-1]
        await collector.signal(STOP_SIGNALS[-1])
        assert await collector.end() == 0
        assert collector.stderr.seen[-1].startswith(f"procmond: served: transport={served_by} ")


async def test_a_second_signal_ends_the_collector_at_once(endpoint: str, tmp_path: Path) -> None:
    endless = make_endless(tmp_path)
    patient = {"TRIO_IPC_SHUTDOWN_GRACE_MS": "600000", "TRIO_IPC_HANDLER_TIMEOUT_MS": "600000"}
    async with (
        collector_at(endpoint, "--verbose", environ=patient) as collector,
        spawn(*hash_client(endpoint, endless)),
    ):
        await collector.stderr.until(lambda line: "task 'endless'" in line)
        # Two different signals, as two of a kind may arrive as one.
        for number in STOP_SIGNALS:
            await collector.signal(number)
        assert await collector.end() == 0
        assert not exists(endpoint)


def make_endless(directory: Path) -> Path:
    """Make a sparse file that takes minutes to hash."""
    path = directory / "endless"
    path.touch()
    os.truncate(path, 1 << 40)
    return path


def hash_client(endpoint: str, path: Path) -> list[str]:
    """Return the command line of a client that asks for a file's hash."""
    code = f"""
import trio
from trio_ipc import IpcConfig, open_client
from trio_ipc.daemoneye import DETECTION, DetectionTask, HashCheck, TaskType
async def main():
    async with open_client(DETECTION, IpcConfig(endpoint_path={endpoint!r})) as client:
        await client.call(DetectionTask(
            task_id="endless", task_type=TaskType.CHECK_PROCESS_HASH,
            hash_check=HashCheck(executable_path={str(path)!r}),
        ))
trio.run(main)
"""
    return [sys.executable, "-c", code]


# --- the collector's telemetry ------------------------------------------------------------------------------


async def test_the_collector_writes_its_telemetry_when_it_ends(endpoint: str, short_dir: Path) -> None:
    file = short_dir / "telemetry.json"
    write(file, "an old one, and longer than the new one" * 1_000)
    async with collector_at(endpoint, "--telemetry", str(file)) as collector:
        await once(endpoint)
        await collector.signal(STOP_SIGNALS[-1])
        assert await collector.end() == 0
    snapshot = json.loads(read(file))
    assert (snapshot["transport"], snapshot["endpoint"]) == ("interprocess", endpoint)
    assert snapshot["requests"] == snapshot["requests_answered"] == 2
    assert (snapshot["connections_active"], snapshot["requests_in_flight"]) == (0, 0)
    assert snapshot["connections_closed"]["peer_closed"] == 1
    assert names_in(short_dir) == {"telemetry.json"}
    if sys.platform != "win32":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@unix_only
async def test_sigusr1_writes_the_collectors_telemetry_while_it_serves(
    endpoint: str, short_dir: Path
) -> None:
    assert sys.platform != "win32"
    file = short_dir / "telemetry.json"
    async with collector_at(endpoint, "--telemetry", str(file)) as collector:
        for requests in (2, 4):
            await once(endpoint)
            await collector.signal(signal.SIGUSR1)
            await until_written(file, requests)
        assert names_in(short_dir) == {"s", "telemetry.json"}
        await collector.signal(signal.SIGTERM)
        assert await collector.end() == 0


@unix_only
async def test_without_a_file_sigusr1_gives_a_line(endpoint: str) -> None:
    assert sys.platform != "win32"
    async with collector_at(endpoint) as collector:
        await once(endpoint)
        await collector.signal(signal.SIGUSR1)
        line = await collector.stderr.next() or ""
        start = "procmond: telemetry: "
        assert line.startswith(start)
        assert json.loads(line.removeprefix(start))["requests"] == 2
        assert (await once(endpoint))["cycle"] == 1, "it goes on"


@unix_only
async def test_telemetry_that_cannot_be_written_is_a_line_and_at_the_end_a_failure(
    endpoint: str, short_dir: Path
) -> None:
    assert sys.platform != "win32"
    file = f"{short_dir}/missing/telemetry.json"
    async with collector_at(endpoint, "--telemetry", file) as collector:
        await collector.signal(signal.SIGUSR1)
        line = await collector.stderr.next() or ""
        assert line == (
            f"procmond: {file}: telemetry cannot be written: No such file or directory; "
            "see to the directory, or choose another file"
        )
        assert file in line
        assert (await once(endpoint))["cycle"] == 1, "it goes on"
        await collector.signal(signal.SIGTERM)
        assert await collector.end() == 1
        assert collector.stderr.seen == [line, line]


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


async def until_written(file: Path, requests: int) -> None:
    """Wait for a file that tells of so many requests. It must be whole whenever there is one."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            if json.loads(read(file))["requests"] == requests:
                return
        await trio.sleep(0.01)


@unix_only
async def test_a_file_where_the_endpoint_should_be_is_one_line_and_stays(short_dir: Path) -> None:
    path = short_dir / "file"
    write(path, "precious")
    line = await fails_with_one_line(procmond(str(path)))
    assert line.startswith(f"procmond: {path}: ")
    assert read(path) == "precious"


@fails_under_wine("FILE_FLAG_FIRST_PIPE_INSTANCE is ignored", versions=[8, 10])
async def test_an_endpoint_in_use_is_one_line_that_names_its_owner(endpoint: str) -> None:
    async with collector_at(endpoint) as collector:
        with trio.fail_after(10 if UNDER_WINE else 60):  # there the second one listens, too, and goes on
            line = await fails_with_one_line(procmond(endpoint))
        assert str(collector.pid) in line
        assert (await once(endpoint))["cycle"] == 1, "the first one goes on"


@pytest.mark.parametrize(
    ("endpoint", "environ", "reason"),
    [
        ("/tmp/" + "x" * 200, {}, "endpoint_path is "),
        ("", {}, "endpoint_path is ''"),
        ("/tmp/s", {"TRIO_IPC_MAX_CONNECTIONS": "none"}, "max_connections is 'none'"),
        ("/tmp/s", {"TRIO_IPC_TRANSPORT": "pigeon"}, "transport is 'pigeon'"),
        ("/tmp/s", {"TRIO_IPC_MAX_CONNECTIONS": "9" * 5_000}, "max_connections is '999"),
    ],
)
async def test_a_wrong_setting_is_one_line_to_both_programs(
    endpoint: str, environ: dict[str, str], reason: str
) -> None:
    assert reason in await fails_with_one_line(procmond(endpoint), environ)
    assert reason in await fails_with_one_line(agent(endpoint, "--once"), environ)


async def test_a_variable_that_is_no_setting_is_one_line_and_both_programs_go_on(endpoint: str) -> None:
    environ = {"TRIO_IPC_SERVICE_HOST": "10.96.0.7", "TRIO_IPC_MAX_CONECTIONS": "1"}
    said = "TRIO_IPC_MAX_CONECTIONS (did you mean TRIO_IPC_MAX_CONNECTIONS?), TRIO_IPC_SERVICE_HOST in the"
    async with (
        collector_at(endpoint, environ=environ) as collector,
        spawn(*agent(endpoint, "--once", "--json"), environ=environ) as asking,
    ):
        assert await asking.end() == 0
        assert [said in line for line in asking.stderr.seen] == [True]
        assert said in await collector.stderr.until(lambda line: "TRIO_IPC" in line)


async def test_how_the_agent_calls_is_in_its_file_and_its_environment(endpoint: str, short_dir: Path) -> None:
    file = short_dir / "config.toml"
    write(file, "[ipc.resilient]\nconnect_attempts = 0\n")
    command = agent(endpoint, "--once", "--config", str(file))
    assert f"table [ipc.resilient] of {file}" in await fails_with_one_line(command)
    environ = {"TRIO_IPC_RESILIENT_CONNECT_ATTEMPTS": "1", "TRIO_IPC_RESILIENT_STRATEGY": "none"}
    assert "TRIO_IPC_RESILIENT_STRATEGY" in await fails_with_one_line(command, environ)
    line = await fails_with_one_line([*command, "--strategy", "priority"], environ)
    assert "nothing is there" in line or "not found" in line or "no server" in line, line


async def test_a_configuration_file_that_is_missing_is_one_line(endpoint: str, short_dir: Path) -> None:
    line = await fails_with_one_line(procmond(endpoint, "--config", f"{short_dir}/missing.toml"))
    assert f"{short_dir}/missing.toml" in line


async def test_the_endpoint_option_wins_over_the_environment_and_the_file(
    endpoint: str, endpoint_called: Callable[[str], str], short_dir: Path
) -> None:
    of_the_file, of_the_environment = endpoint_called("of-the-file"), endpoint_called("of-the-environment")
    file = short_dir / "config.toml"
    write(file, f"[ipc]\nendpoint_path = '{of_the_file}'\nmax_frame_bytes = 2000000\n")
    environ = {"TRIO_IPC_ENDPOINT_PATH": of_the_environment}
    async with collector_at(endpoint, "--config", str(file), environ=environ):
        assert exists(endpoint)
        assert not exists(of_the_environment)
    command = example("procmond", "--config", str(file))
    async with spawn(*command, environ=environ) as from_environment:
        assert await from_environment.stdout.next() == f"listening on {of_the_environment}"
    async with spawn(*command) as from_file:
        assert await from_file.stdout.next() == f"listening on {of_the_file}"


def write(path: Path, text: str) -> None:
    path.write_text(text)


def read(path: Path) -> str:
    return path.read_text()
