"""``trio-ipc capture`` and ``monitor`` as processes: clients come to them, and what they said is shown."""

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
async def relaying(*arguments: str, stdout: int | None = None) -> AsyncIterator[trio.Process]:
    """The command for the length of a block, from when clients can connect."""
    process = await trio.lowlevel.open_process(
        [*PROGRAM, *arguments], stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        with trio.fail_after(60):
            said = b""
            while not said.endswith(b"\n"):
                said += await process.stderr.receive_some()
            assert b" what comes to " in said
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
            relaying("capture", server.path, str(file), "--listen", between.path) as process,
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


@unix_only
async def test_a_signal_that_its_starter_has_it_ignore_does_not_end_it(tmp_path: Path) -> None:
    with temporary_endpoint() as server, temporary_endpoint() as between:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does, and it is inherited
        try:
            async with (
                open_server(succeed, DETECTION, server),
                relaying("capture", server.path, str(tmp_path / "f"), "--listen", between.path) as process,
            ):
                process.send_signal(signal.SIGHUP)
                run = await command("call", between.path, '{"task_id": "1"}')
                assert run.returncode == Status.DONE, run.stderr
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == Status.DONE
        finally:
            signal.signal(signal.SIGHUP, before)


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
    assert not (tmp_path / "new").exists(), "the next try wants the name"


@unix_only
async def test_a_disk_that_is_full_is_told_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "said.jsonl"
    monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)  # its file would meet the limit, too
    # The shell's own limit for files that a process writes: one block, which the header does not fill.
    monkeypatch.setattr(
        "tests.cli.test_capture.PROGRAM", ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *PROGRAM]
    )
    with temporary_endpoint() as server, temporary_endpoint() as between:
        async with (
            open_server(succeed, DETECTION, server),
            relaying("capture", server.path, str(file), "--listen", between.path) as process,
        ):
            run = await command("call", between.path, json.dumps({"task_id": "1" * 2000}))
            assert run.returncode == Status.DONE
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            said = b""
            async for piece in process.stderr:
                said += piece
            assert await process.wait() == Status.OUTPUT
    assert said.decode().splitlines()[-1] == f"trio-ipc: {file}: File too large"


async def all_of(process: trio.Process) -> str:
    """Stop it, and return what it has written."""
    assert process.stdout is not None
    process.send_signal(signal.SIGINT)
    said = b""
    async for piece in process.stdout:
        said += piece
    assert await process.wait() == Status.DONE
    return said.decode()


@unix_only
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
async def test_what_is_said_is_shown_while_it_is_said(form: list[str]) -> None:
    with temporary_endpoint() as server, temporary_endpoint() as between:
        arguments = ["monitor", server.path, "--listen", between.path, *form]
        async with (
            open_server(succeed, DETECTION, server),
            relaying(*arguments, stdout=subprocess.PIPE) as process,
        ):
            assert process.stdout is not None
            run = await command("call", between.path, '{"task_id": "of a test"}')
            assert run.returncode == Status.DONE
            said = await process.stdout.receive_some()  # before it ends
            assert said
            text = bytes(said).decode() + await all_of(process)
    if form:
        messages = [json.loads(line) for line in text.splitlines()]
        assert [one["message"]["task_id"] for one in messages][-1] == "of a test"
        assert {one["by"] for one in messages} == {"client", "server"}
        assert all(one["error"] is None for one in messages)
    else:
        assert text.count('task_id: "of a test"') == 2
        assert "!!" not in text
        assert " #1 client: " in text


@unix_only
async def test_what_is_wrong_is_marked(tmp_path: Path) -> None:
    with temporary_endpoint() as server, temporary_endpoint() as between:
        async with (
            open_server(succeed, DETECTION, server),
            relaying("monitor", server.path, "--listen", between.path, stdout=subprocess.PIPE) as process,
        ):
            stream = await trio.open_unix_socket(between.path)
            await stream.send_all(b"\x02\0\0\0\0\0\0\0ab")
            while await stream.receive_some():  # the server's complaint, and its end
                pass
            await stream.aclose()
            text = await all_of(process)
    assert "!! " in text
    assert "checksum" in text


@unix_only
async def test_a_reader_who_has_seen_enough_ends_it() -> None:
    with temporary_endpoint() as server, temporary_endpoint() as between:
        arguments = ["monitor", server.path, "--listen", between.path]
        async with (
            open_server(succeed, DETECTION, server),
            relaying(*arguments, stdout=subprocess.PIPE) as process,
        ):
            assert process.stdout is not None
            await process.stdout.aclose()
            await command("call", between.path, '{"task_id": "1"}')
            assert await process.wait() == Status.DONE


@unix_only
@pytest.mark.parametrize("name", ["capture", "monitor"])
async def test_a_server_that_cannot_be_reached_is_told(tmp_path: Path, name: str) -> None:
    with temporary_endpoint() as nobody, temporary_endpoint() as between:
        arguments = [str(tmp_path / "f")] if name == "capture" else []
        async with relaying(name, nobody.path, *arguments, "--listen", between.path) as process:
            run = await command("call", between.path, '{"task_id": "1"}')
            assert run.returncode == Status.FAILED
            assert process.stderr is not None
            said = await process.stderr.receive_some()
            assert said.startswith(b"a client was closed: ")
            assert nobody.path.encode() in said
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == Status.DONE
