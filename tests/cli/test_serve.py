"""``trio-ipc serve`` as a process: it serves, stops, and says what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.cli.processes import PROGRAM, command
from tests.platforms import unix_only
from trio_ipc.cli.ending import Status
from trio_ipc.testing import temporary_endpoint

HANDLER = """
from trio_ipc.daemoneye import DetectionResult

async def handle(task, call):
    return DetectionResult(task_id=task.task_id, success=True, error_message="of a test")

def ordinary(task, call):
    return DetectionResult(task_id=task.task_id)
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    (tmp_path / "handler_of_a_test.py").write_text(HANDLER)
    return tmp_path


@asynccontextmanager
async def serving(directory: Path, *arguments: str, **environ: str) -> AsyncIterator[trio.Process]:
    """The command for the length of a block, from when clients can connect."""
    process = await trio.lowlevel.open_process(
        [*PROGRAM, "serve", *arguments],
        cwd=directory,  # where its handler is found
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environ},
    )
    assert process.stdout is not None
    try:
        with trio.fail_after(60):
            said = b""
            while not said.endswith(b"\n"):
                said += await process.stdout.receive_some()
            assert said.startswith(b"listening on ")
            yield process
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()


async def test_it_serves_a_handler_of_the_working_directory(module: Path) -> None:
    with temporary_endpoint() as endpoint:
        async with serving(module, "handler_of_a_test:handle", endpoint.path):
            run = await command("call", endpoint.path, '{"task_id": "1"}')
    assert json.loads(run.stdout)["error_message"] == "of a test"


@unix_only
async def test_the_endpoint_may_come_from_the_settings_and_a_signal_stops_it(module: Path) -> None:
    with temporary_endpoint() as endpoint:
        arguments = ["handler_of_a_test:handle", "--snapshot-file", str(module / "counters.json")]
        async with serving(module, *arguments, TRIO_IPC_ENDPOINT_PATH=endpoint.path) as process:
            await command("call", endpoint.path, '{"task_id": "1"}')
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == Status.DONE
        assert not os.path.exists(endpoint.path)
    assert json.loads((module / "counters.json").read_text())["requests"] == 1


async def test_an_endpoint_in_use_is_told_by_the_status(module: Path) -> None:
    path = os.pathsep.join([str(module), *sys.path])
    with temporary_endpoint() as endpoint:
        async with serving(module, "handler_of_a_test:handle", endpoint.path):
            run = await command("serve", "handler_of_a_test:handle", endpoint.path, PYTHONPATH=path)
    assert run.returncode == Status.UNREACHABLE
    assert "in use by " in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["handler_of_a_test"], "must be MODULE:NAME"),
        (["handler_of_a_test:none"], "cannot be imported: AttributeError"),
        (["no_such_module_at_all:none"], "cannot be imported: ModuleNotFoundError"),
        (["handler_of_a_test:ordinary"], "Invalid value for MODULE:HANDLER"),
        (["handler_of_a_test:handle", "--config", "none.toml"], "none.toml"),
        (["handler_of_a_test:handle", "--metrics-file", "counters.txt"], ".prom"),
    ],
)
async def test_a_mistake_is_told_in_one_line(module: Path, arguments: list[str], said: str) -> None:
    path = os.pathsep.join([str(module), *sys.path])
    with temporary_endpoint() as endpoint:
        place = [endpoint.path] if "--" not in arguments[-1] else []
        run = await command("serve", arguments[0], *place, *arguments[1:], PYTHONPATH=path)
    assert (run.returncode, run.stdout) == (Status.USAGE, "")
    assert said in run.stderr
    assert run.stderr.count("\n") == 1
