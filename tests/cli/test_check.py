"""``trio-ipc check`` as a process: both sides, both forms of output, each status, and unlucky users."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cli.processes import command
from tests.platforms import unix_only
from tests.support import hang, succeed
from trio_ipc import IpcError
from trio_ipc.cli.ending import Status
from trio_ipc.daemoneye import DETECTION, DetectionTask
from trio_ipc.testing import (
    SystemEndpoint,
    bad_checksum,
    open_client_at,
    open_server,
    simulate_collector,
    temporary_endpoint,
)

CHECK = [sys.executable, "-m", "trio_ipc", "check"]


async def check(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, without a terminal."""
    return await command("check", *arguments, **environ)


@asynccontextmanager
async def started(*arguments: str) -> AsyncIterator[tuple[trio.Process, str]]:
    """The command for the length of a block; what it says first on standard error."""
    process = await trio.lowlevel.open_process(
        [*CHECK, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert process.stderr is not None
    try:
        with trio.fail_after(60):
            said = b""
            while not said.endswith(b"\n"):
                said += await process.stderr.receive_some()
            yield process, said.decode()
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()


async def output_of(process: trio.Process) -> str:
    assert process.stdout is not None
    said = b""
    async for piece in process.stdout:
        said += piece
    return said.decode()


# --- A server -----------------------------------------------------------------------------------------------


async def test_a_good_server_is_told_line_by_line_in_a_pipe() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            run = await check(endpoint.path)
    assert (run.returncode, run.stderr) == (Status.DONE, "")
    lines = run.stdout.splitlines()
    assert len(lines) == 25
    assert lines[0].startswith("S1   kept       A request is answered by a frame: its length, 1 to the limit")
    assert lines[16].startswith("S17  not shown  A length of 0 ends the connection: it takes hostile bytes")
    assert lines[-1].startswith(f"server at {endpoint.path}: ")
    assert ", 0 broken, " in lines[-1]


async def test_a_broken_server_is_told_by_the_status_and_as_json() -> None:
    with temporary_endpoint() as endpoint:
        async with simulate_collector(endpoint=endpoint) as collector:
            collector.negotiation = bad_checksum()
            run = await check("--json", endpoint.path)
    assert run.returncode == Status.NO
    assert run.stdout.count("\n") == 1
    found = json.loads(run.stdout)
    assert (found["endpoint"], found["side"], found["ok"]) == (endpoint.path, "server", False)
    assert [one["rule"] for one in found["rules"] if one["verdict"] == "broken"] == ["S2"]


async def test_hostile_and_deadlines_are_asked_for() -> None:
    # The other process has to answer within this, which on a busy machine is no matter of milliseconds.
    settings = {"TRIO_IPC_READ_TIMEOUT_MS": "1000", "TRIO_IPC_MAX_CONNECTIONS": "2"}
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint, read_timeout_ms=1_000, max_connections=2):
            run = await check(
                "--hostile", "--deadlines", "--patience=2", "--json=short", endpoint.path, **settings
            )
    assert run.returncode == Status.DONE, run.stdout
    unseen = [one["rule"] for one in json.loads(run.stdout)["rules"] if one["verdict"] == "not shown"]
    assert unseen == ([] if sys.platform != "win32" else ["S11", "S12", "S13", "S20"])


async def test_another_contract_needs_a_request_that_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "contract_of_a_test.py").write_text(
        "from trio_ipc import Contract\n"
        "from trio_ipc.daemoneye import DetectionResult, DetectionTask\n"
        "LOOSE = Contract(name='loose', request_type=DetectionTask, response_type=DetectionResult)\n"
    )
    named = ["--contract", "contract_of_a_test:LOOSE"]
    environ = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with temporary_endpoint() as endpoint:
        run = await check(endpoint.path, *named, **environ)
        assert run.returncode == Status.USAGE
        assert "the contract loose has no negotiation: give one that does no harm by --request" in run.stderr
        for wrong in ('{"task": 1}', "[]"):  # protobuf takes an empty list for an empty message
            run = await check(endpoint.path, *named, "--request", wrong, **environ)
            assert run.returncode == Status.USAGE
            assert "Invalid value for --request: it is no trio_ipc.daemoneye.v1.DetectionTask" in run.stderr
            assert run.stderr.count("\n") == 1
        async with open_server(succeed, DETECTION, endpoint):
            run = await check(endpoint.path, *named, "--request", '{"task_id": "1"}', **environ)
    assert run.returncode == Status.DONE, run.stdout


# --- A client -----------------------------------------------------------------------------------------------


async def test_a_client_is_checked_while_it_listens() -> None:
    with temporary_endpoint() as endpoint:
        async with started("--listen", "--json", endpoint.path) as (process, said):
            assert said.strip() == f"listening at {endpoint.path}: run the client now"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask_on, endpoint)
                found = json.loads(await output_of(process))
                nursery.cancel_scope.cancel()
            assert await process.wait() == Status.DONE
    kept = [one["rule"] for one in found["rules"] if one["verdict"] == "kept"]
    assert (found["side"], kept) == ("client", [f"C{number}" for number in range(1, 7)])


async def ask_on(endpoint: SystemEndpoint) -> None:
    while True:
        try:
            async with open_client_at(DETECTION, endpoint) as client:
                while True:
                    assert (await client.call(DetectionTask(task_id="1"))).success
        except IpcError:
            await trio.sleep(0.05)


async def test_without_a_client_it_ends_in_time() -> None:
    with temporary_endpoint() as endpoint:
        run = await check("--listen", "--wait=0.2", endpoint.path)
    assert run.returncode == Status.NO
    assert "no client came" in run.stdout


@unix_only
async def test_ctrl_c_ends_listening_with_what_was_seen() -> None:
    with temporary_endpoint() as endpoint:
        async with started("--listen", "--hostile", endpoint.path) as (process, _):
            async with open_client_at(DETECTION, endpoint) as client:
                await client.call(DetectionTask(task_id="1"))
            process.send_signal(signal.SIGINT)
            shown = await output_of(process)
            assert await process.wait() == Status.DONE
        assert "C1   kept" in shown
        assert not os.path.exists(endpoint.path)


@unix_only
async def test_a_service_managers_signal_ends_it_and_leaves_no_socket() -> None:
    with temporary_endpoint() as endpoint:
        async with started("--listen", endpoint.path) as (process, _):
            process.terminate()
            assert await output_of(process) == ""
            assert await process.wait() == 128 + signal.SIGTERM
        assert not os.path.exists(endpoint.path)


# --- Users who are unlucky ----------------------------------------------------------------------------------


def unlucky(directory: Path) -> Sequence[tuple[str, list[str], int, str]]:
    """What is there, the arguments, the status and what is said."""
    (directory / "plain").write_text("")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(directory / "dead.sock"))
    dead.close()
    missing = directory / "missing" / "s.sock"
    return [
        ("nothing", [str(missing)], Status.UNREACHABLE, f"{missing}: "),
        ("a plain file", [str(directory / "plain")], Status.UNREACHABLE, "plain: "),
        ("a directory", [str(directory)], Status.UNREACHABLE, f"{directory}: "),
        ("a dead server's socket", [str(directory / "dead.sock")], Status.UNREACHABLE, "dead.sock: "),
        ("a file to listen at", ["--listen", str(directory / "plain")], Status.UNREACHABLE, "plain: "),
        ("an option that is none", ["--hostil", "/s"], Status.USAGE, "--hostil"),
        ("no endpoint", [], Status.USAGE, "Missing argument 'ENDPOINT'"),
        ("no settings", ["--config", str(missing), "/s"], Status.USAGE, "missing"),
        ("patience that is none", ["--patience=no", "/s"], Status.USAGE, "more than 0"),
        (
            "two ways at once",
            ["--listen", "--request={}", "/s"],
            Status.USAGE,
            "with --listen the client asks",
        ),
    ]


@unix_only
async def test_whatever_is_wrong_is_one_line_and_a_status(tmp_path: Path) -> None:
    for what, arguments, status, said in unlucky(tmp_path):
        run = await check(*arguments)
        assert (run.returncode, run.stdout) == (status, ""), (what, run)
        assert run.stderr.count("\n") == 1, (what, run.stderr)
        assert run.stderr.startswith("trio-ipc"), (what, run.stderr)
        assert said in run.stderr, what


@unix_only
@pytest.mark.skipif(sys.platform != "win32" and os.geteuid() == 0, reason="root may connect everywhere")
async def test_who_may_not_connect_is_told(tmp_path: Path) -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            Path(endpoint.path).chmod(0)
            run = await check(endpoint.path)
    assert run.returncode == Status.UNREACHABLE
    assert run.stderr.count("\n") == 1


async def test_a_server_that_never_answers_is_waited_for_no_longer_than_is_set() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(hang, DETECTION, endpoint):
            run = await check("--json", endpoint.path, TRIO_IPC_READ_TIMEOUT_MS="200")
    assert run.returncode == Status.NO
    first = json.loads(run.stdout)["rules"][0]
    assert first["seen"] == "a request was not answered: nothing came within 0.2 s"


@unix_only
async def test_ctrl_c_ends_a_check_of_a_server_that_hangs() -> None:
    asked = trio.Event()

    async def hang_loudly(_task: Any, _call: Any) -> Any:
        asked.set()
        await trio.sleep_forever()

    with temporary_endpoint() as endpoint:
        async with open_server(hang_loudly, DETECTION, endpoint):
            process = await trio.lowlevel.open_process(
                [*CHECK, endpoint.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            with trio.fail_after(60):
                await asked.wait()
                process.send_signal(signal.SIGINT)
                assert await output_of(process) == ""
                assert await process.wait() == 130
            assert process.stderr is not None
            assert (await process.stderr.receive_some()).strip() == b""


@unix_only
async def test_a_reader_that_has_seen_enough_changes_nothing() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            for form in ([], ["--json"]):
                read, write = os.pipe()
                os.close(read)
                run = await trio.run_process(
                    [*CHECK, *form, endpoint.path], stdout=write, capture_stderr=True, check=False
                )
                os.close(write)
                assert (run.returncode, run.stderr) == (Status.DONE, b"")
