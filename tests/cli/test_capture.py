"""``trio-ipc capture`` as a process: clients come to it, and what they said is in the file."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.cli.processes import PROGRAM, command
from tests.platforms import unix_only
from tests.support import succeed
from trio_ipc.cli.ending import Status
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import open_server, read_recording, temporary_endpoint


@asynccontextmanager
async def capturing(*arguments: str) -> AsyncIterator[trio.Process]:
    """The command for the length of a block, from when clients can connect."""
    process = await trio.lowlevel.open_process(
        [*PROGRAM, "capture", *arguments], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        with trio.fail_after(60):
            said = b""
            while not said.endswith(b"\n"):
                said += await process.stderr.receive_some()
            assert said.startswith(b"recording what comes to ")
            yield process
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()


@unix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_what_is_said_is_passed_on_and_recorded_until_a_signal(tmp_path: Path, number: int) -> None:
    file = tmp_path / "said.jsonl"
    with temporary_endpoint() as server, temporary_endpoint() as between:
        async with (
            open_server(succeed, DETECTION, server),
            capturing(server.path, str(file), "--listen", between.path) as process,
        ):
            for task in ("1", "2"):
                run = await command("call", between.path, json.dumps({"task_id": task}))
                assert json.loads(run.stdout)["task_id"] == task
            process.send_signal(number)
            assert await process.wait() == Status.DONE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    recording = read_recording(file)
    assert recording.damage is None
    asked = [DETECTION.decode_request(one.request).task_id for one in recording.exchanges()]
    assert [one for one in asked if len(one) == 1] == ["1", "2"]
    assert all(one.response is not None for one in recording.exchanges())


async def test_it_ends_by_itself_after_some_seconds(tmp_path: Path) -> None:
    file = tmp_path / "nothing.jsonl"
    with temporary_endpoint() as server, temporary_endpoint() as between:
        run = await command("capture", server.path, str(file), "--listen", between.path, "--seconds", "0.1")
    assert (run.returncode, run.stdout) == (Status.DONE, "")
    assert read_recording(file).exchanges() == []


async def test_a_file_that_exists_and_an_endpoint_in_use_are_told(tmp_path: Path) -> None:
    file = tmp_path / "there.jsonl"
    file.touch()
    with temporary_endpoint() as server, temporary_endpoint() as between:
        run = await command("capture", server.path, str(file), "--listen", between.path)
        assert run.returncode == Status.USAGE
        assert "there.jsonl" in run.stderr
        assert run.stderr.count("\n") == 1
        async with open_server(succeed, DETECTION, server):
            run = await command("capture", server.path, str(tmp_path / "new"), "--listen", server.path)
    assert run.returncode == Status.UNREACHABLE
    assert "in use by " in run.stderr
