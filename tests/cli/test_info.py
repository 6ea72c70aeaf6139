"""``trio-ipc info`` as a process: each state of an endpoint, in a pipe and at a terminal."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from tests.cli.processes import command
from tests.cli.strangers import STRANGER, endpoint_of_a_stranger, needs_another_user
from tests.platforms import unix_only
from tests.support import hang, succeed
from trio_ipc import PeerCredentials
from trio_ipc.cli import looking
from trio_ipc.cli.ending import Status
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import open_server, temporary_endpoint
from trio_ipc.transports import findings


async def test_a_live_server_is_told_with_its_process_and_its_variant() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint, crc32_variant="castagnoli"):
            run = await command("info", "--json", endpoint.path)
    assert (run.returncode, run.stderr) == (Status.DONE, "")
    found = json.loads(run.stdout)
    assert (found["state"], found["trusted"], found["variant"]) == ("alive", True, "castagnoli")
    assert found["answer"]["success"] is True
    assert found["server"]["pid"] in {os.getpid(), None}  # macOS tells none
    if sys.platform == "win32":
        assert found["file"] is None
    else:
        assert (found["file"]["kind"], found["file"]["mode"]) == ("socket", "0600")
        assert (found["server"]["uid"], found["file"]["uid"]) == (os.geteuid(), os.geteuid())


def test_a_process_that_got_the_number_meanwhile_is_not_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = True

    def start_of(_pid: int) -> dt.datetime:
        nonlocal runs
        runs = False  # it has ended, and this is another one
        return dt.datetime.now(dt.UTC)

    monkeypatch.setattr(looking, "start_of", start_of)
    monkeypatch.setattr(PeerCredentials, "still_runs", lambda _self: runs)
    found = looking.process_of(PeerCredentials(pid=os.getpid()))
    assert (found["runs"], found["started"]) == (False, None)


@pytest.mark.parametrize("given", [[], ["--silent"], ["--json"]], ids=str)
async def test_a_contract_without_a_question_is_said_not_to_be_asked(
    given: list[str], tmp_path: Path
) -> None:
    (tmp_path / "contract_for_info.py").write_text(
        "from google.protobuf.wrappers_pb2 import StringValue as Text\n"
        "from trio_ipc import Contract\n"
        "TEXTS = Contract(name='texts', request_type=Text, response_type=Text)\n"
    )
    environ = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint) as server:
            named = ["--contract", "contract_for_info:TEXTS"]
            run = await command("info", endpoint.path, *named, *given, **environ)
            assert server.snapshot().bytes_received == 0
    assert (run.returncode, run.stderr) == (Status.DONE, "")
    if given == ["--json"]:
        assert json.loads(run.stdout)["answer"] is None
    line = r"^answer +not asked: the contract texts has no question for it$"
    assert bool(re.search(line, run.stdout, re.MULTILINE)) == (given == [])


async def test_in_silence_nothing_is_sent() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint) as server:
            run = await command("info", "--silent", "--json", endpoint.path)
            assert server.snapshot().bytes_received == 0
    assert run.returncode == Status.DONE
    assert json.loads(run.stdout)["variant"] is None


async def test_a_server_that_does_not_answer_is_told_by_the_status() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(hang, DETECTION, endpoint):
            run = await command("info", "--timeout", "0.2", "--json", endpoint.path)
    assert run.returncode == Status.NO
    found = json.loads(run.stdout)
    assert (found["state"], found["variant"]) == ("alive", None)
    assert "0.2" in found["why"]


async def test_an_absent_server_is_a_state_and_a_line() -> None:
    with temporary_endpoint() as endpoint:
        run = await command("info", endpoint.path)
    assert run.returncode == Status.UNREACHABLE
    assert "state      absent\n" in run.stdout
    assert run.stderr.startswith(f"trio-ipc: {endpoint.path}: no server")
    assert run.stderr.count("\n") == 1


@unix_only
@pytest.mark.parametrize("kind", ["stale", "unusable"])
async def test_what_is_left_at_a_path_is_told(tmp_path: Path, kind: str) -> None:
    path = os.path.relpath(tmp_path / "s.sock")
    if kind == "stale":
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(path)
    else:
        Path(path).touch()
    run = await command("info", "--json", path)
    assert run.returncode == Status.UNREACHABLE
    found = json.loads(run.stdout)
    assert (found["state"], found["endpoint"]) == (kind, os.path.abspath(path))
    assert found["file"]["kind"] == ("socket" if kind == "stale" else "regular file")


@unix_only
def test_a_file_whose_time_no_calendar_has_is_shown_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.sock"
    path.touch()
    found = os.lstat(path)
    # Not by utime(2): ext4 has no such times, tmpfs has.
    odd = os.stat_result((*found[:8], 10**12, found[9]))
    monkeypatch.setattr(os, "lstat", lambda _: odd)
    shown = findings.file_at(str(path))
    assert shown is not None
    assert (shown["kind"], shown["made"]) == ("regular file", None)


@unix_only
@needs_another_user
async def test_another_users_server_is_shown_and_not_asked_unless_it_is_trusted() -> None:
    with endpoint_of_a_stranger() as path:
        run = await command("info", "--json", path)
        found = json.loads(run.stdout)
        assert run.returncode == Status.NO
        assert (found["trusted"], found["answer"], found["server"]["uid"]) == (False, None, STRANGER)
        run = await command("info", "--json", "--silent", "--trust", str(STRANGER), path)
        assert (run.returncode, json.loads(run.stdout)["trusted"]) == (Status.DONE, True)


@unix_only
@pytest.mark.parametrize(("columns", "colour"), [(40, True), (120, True), (80, False)])
async def test_at_a_terminal_it_is_a_table_that_fits(columns: int, colour: bool) -> None:
    from tests.cli.terminal import at_terminal, plain

    environ = {} if colour else {"NO_COLOR": "1"}
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            status, said = await at_terminal("info", endpoint.path, columns=columns, **environ)
    assert status == Status.DONE
    assert ("\x1b[32malive" in said) is colour
    lines = plain(said).splitlines()
    assert max(map(len, lines)) <= columns
    assert any(line.split()[:2] == ["state", "alive"] for line in lines)
    assert any(line.split()[:2] == ["variant", "ieee"] for line in lines)
