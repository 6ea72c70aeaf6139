"""The process that forks those of most tests of the command: they are as those that begin from nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

if sys.platform == "win32":
    pytest.skip("there is no fork(2)", allow_module_level=True)

from tests.cli.processes import PROGRAM, command
from trio_ipc import Call
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import open_server, temporary_endpoint


@pytest.mark.parametrize(
    "arguments", [["describe"], ["describe", "--contract", "of_a_test:C"], ["no-such-command"], ["top", "."]]
)
async def test_it_writes_and_returns_what_a_new_process_does(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_a_test.py").write_text("from trio_ipc.daemoneye import DETECTION as C\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    monkeypatch.chdir(tmp_path)
    forked = await command(*arguments, PYTHONPATH=path)
    monkeypatch.setenv("PYTHONPATH", path)
    new = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert (forked.returncode, forked.stdout, forked.stderr) == (new.returncode, new.stdout, new.stderr)


async def test_several_run_at_a_time_and_one_that_is_cancelled_is_killed() -> None:
    asked, gone = trio.Event(), trio.Event()

    async def handle(task: DetectionTask, _: Call) -> DetectionResult:
        if task.task_id == "quick":
            return DetectionResult(task_id=task.task_id, success=True)
        asked.set()
        try:
            await trio.sleep_forever()
        finally:
            gone.set()

    with temporary_endpoint() as endpoint, trio.fail_after(60):
        async with open_server(handle, DETECTION, endpoint):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(command, "call", endpoint.path, '{"task_id": "slow"}')
                await asked.wait()
                assert (await command("call", endpoint.path, '{"task_id": "quick"}')).returncode == 0
                assert not gone.is_set()
                nursery.cancel_scope.cancel()
            await gone.wait()


async def test_one_that_is_cancelled_as_it_begins_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    kill, killed = os.kill, list[int]()

    def note(process: int, number: int) -> None:
        killed.append(number)
        kill(process, number)

    monkeypatch.setattr(os, "kill", note)
    with trio.CancelScope() as scope:
        scope.cancel()
        await command("describe")
    assert killed == [signal.SIGKILL]
