"""The commands that make calls, at a server that is not trusted: one line says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.processes import command
from tests.cli.strangers import endpoint_of_a_stranger, needs_another_user
from tests.platforms import unix_only
from tests.support import succeed
from trio_ipc.cli.ending import Status
from trio_ipc.daemoneye import DETECTION, DetectionTask
from trio_ipc.testing import Recorder, open_client_at, open_server, temporary_endpoint

REQUEST = '{"task_id": "1"}'


@unix_only
@needs_another_user
@pytest.mark.parametrize("name", ["call", "bench", "replay"])
async def test_a_server_that_is_not_trusted_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    file = tmp_path / "said.jsonl"
    with temporary_endpoint() as endpoint, Recorder(file, DETECTION) as recorder:
        async with (
            open_server(succeed, DETECTION, endpoint),
            open_client_at(DETECTION, endpoint, wrap=recorder.wrap) as client,
        ):
            await client.call(DetectionTask(task_id="1"))
    with endpoint_of_a_stranger() as path:
        arguments = {"call": [path, REQUEST], "bench": [path], "replay": [str(file), path]}
        run = await command(name, *arguments[name])
    assert (run.returncode, run.stdout) == (Status.UNREACHABLE, "")
    assert run.stderr.startswith(f"trio-ipc: {path}: the server is not trusted")
    assert run.stderr.count("\n") == 1


@unix_only
@needs_another_user
async def test_a_server_that_is_not_trusted_and_gone_around_is_told() -> None:
    with endpoint_of_a_stranger() as path, temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            run = await command("call", path, "--also", endpoint.path, REQUEST)
    assert run.returncode == Status.DONE
    assert run.stderr.startswith(f"refused to talk to the server at {path}")
    assert run.stderr.count("\n") == 1
