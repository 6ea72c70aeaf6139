"""Recordings as a page, and the command that shows them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.platforms import unix_only
from tests.support import ME, STRICT_PYTHON, UNPRINTABLE, frame, succeed, success, task
from tests.testing.recordings import (
    WHOLE,
    record,
)
from trio_ipc import (
    Call,
    ChecksumMismatchError,
    FramedChannel,
    FrameTooLargeError,
    IpcConfig,
    TruncatedFrameError,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import (
    Faults,
    Flip,
    Recorder,
    at_frame,
    memory_streams,
    open_pair,
    read_recording,
)
from trio_ipc.testing.__main__ import main

# --- Showing ------------------------------------------------------------------------------------------------


async def test_it_is_shown_as_people_read_it(path: Path) -> None:
    async def odd(task: DetectionTask, _: Call) -> DetectionResult:
        return DetectionResult(task_id=task.task_id, error_message=UNPRINTABLE)

    with Recorder(path, DETECTION) as recorder:
        async with open_pair(odd, DETECTION, wrap=recorder.wrap) as (client, _):
            await client.call(task("a"))
    lines = list(read_recording(path).lines(DETECTION))
    text = "\n".join(lines)
    assert "contract 'daemoneye.detection', ieee, frames of at most 1048576 bytes" in lines[0]
    assert "#1 client: connected to" in lines[1]
    assert '    task_id: "a"' in lines
    assert "client: DetectionTask, 3 bytes" in text
    assert "server: DetectionResult, " in text
    assert "\x1b" not in text
    assert text.isascii()


async def played_to(path: Path, client: bytes, server: bytes = b"", config: IpcConfig | None = None) -> str:
    near, far = memory_streams()
    with Recorder(path, DETECTION, config) as recorder:
        recorded = recorder.wrap(near)
        await recorded.send_all(client)
        if server:
            await far.send_all(server)
            await recorded.receive_some()
        await recorded.aclose()
    return "\n".join(read_recording(path).lines(DETECTION))


async def test_errors_are_marked_each_as_what_it_is(path: Path) -> None:
    damaged = bytearray(frame(task("x")))
    damaged[-1] ^= 1
    text = await played_to(path, bytes(damaged) + frame(task("after")), frame(success())[:-1])
    assert "client: !! checksum mismatch" in text
    assert "after" not in text, "nothing can be told of what follows"
    assert "server: !! the peer closed inside a frame" in text


async def test_an_error_of_size_and_one_of_content_are_marked(path: Path) -> None:
    config = IpcConfig(max_frame_bytes=100)
    text = await played_to(path, frame(task("x" * 101)), frame(DetectionResult(task_id="x"))[:8], config)
    assert "client: !! a frame of 103 bytes is too large" in text
    path.unlink()
    near, _ = memory_streams()
    with Recorder(path, DETECTION) as recorder:
        channel = FramedChannel(recorder.wrap(near), IpcConfig(), endpoint="e", peer=ME)
        await channel.send(b"\xff" * 100)
    text = "\n".join(read_recording(path).lines(DETECTION))
    assert "client: !! a payload of 100 bytes does not decode as" in text
    assert "ff ff ff" in text
    assert text.endswith("...")


async def test_frames_carry_the_error_that_ends_their_direction(path: Path) -> None:
    await played_to(path, b"\xff" * 8, frame(success())[:9])
    kinds = {one.by: type(one.error) for one in read_recording(path).frames()}
    assert kinds == {"client": FrameTooLargeError, "server": TruncatedFrameError}


async def test_a_frame_larger_than_a_read_is_one_frame(path: Path) -> None:
    recording = await record(path, "x" * 300_000)
    assert [len(one.payload) > 300_000 for one in recording.frames()] == [True, True]


async def test_a_recorder_sees_what_faults_do_behind_it(path: Path) -> None:
    faults = Faults(receiving=[at_frame(1, Flip(0), offset=8)])
    with Recorder(path, DETECTION) as recorder, faults:
        async with open_pair(succeed, DETECTION, wrap=lambda stream: recorder.wrap(faults.wrap(stream))) as (
            client,
            _,
        ):
            with pytest.raises(ChecksumMismatchError):
                await client.call(task())
    assert [type(one.error) for one in read_recording(path).frames()] == [type(None), ChecksumMismatchError]


SHOW = [*STRICT_PYTHON, "-m", "trio_ipc.testing", "show"]


# --- The command --------------------------------------------------------------------------------------------


def test_the_command_shows_a_recording(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(WHOLE)
    assert main(["show", str(path)]) == 0
    assert 'task_id: "b"' in capsys.readouterr().out
    path.write_bytes(WHOLE[:-1])
    assert main(["show", str(path), "--contract", "trio_ipc.daemoneye:DETECTION"]) == 1
    assert "!! the recording ends in the middle" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "/nowhere/at/all"], "cannot read /nowhere/at/all: No such file or directory"),
        (["show", "{path}"], "is no recording"),
        (["show", "{path}", "--contract", "trio_ipc.daemoneye"], "must be MODULE:NAME"),
        (["show", "{path}", "--contract", "no.such.module:X"], "no.such.module"),
        (["show", "{path}", "--contract", "trio_ipc.daemoneye:NONE"], "NONE"),
        (["show", "{path}", "--contract", "trio_ipc:IpcConfig"], "no Contract"),
    ],
)
def test_a_mistake_is_one_line(
    path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_bytes(b"nonsense\n")
    assert main([argument.format(path=path) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert message in captured.err


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("def (", "SyntaxError"),
        ("raise RuntimeError('not today')", "not today"),
        ("raise SystemExit(0)", "SystemExit"),
    ],
)
def test_a_contracts_module_that_fails_is_one_line(
    path: Path,
    code: str,
    error: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path.write_bytes(WHOLE)
    path.with_name("contract_that_fails.py").write_text(code)
    monkeypatch.syspath_prepend(path.parent)
    assert main(["show", str(path), "--contract", "contract_that_fails:X"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--contract is 'contract_that_fails:X', which cannot be imported" in line
    assert error in line


def test_it_runs_as_a_program(path: Path) -> None:
    path.write_bytes(WHOLE)
    run = subprocess.run([*SHOW, str(path)], capture_output=True, text=True, check=True)
    assert "DetectionTask" in run.stdout
    assert run.stderr == ""


@unix_only
def test_a_reader_that_has_seen_enough_is_no_error(path: Path) -> None:
    path.write_bytes(WHOLE)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run = subprocess.run([*SHOW, str(path)], stdout=writer, stderr=subprocess.PIPE, check=True)
    finally:
        os.close(writer)
    assert run.stderr == b""


@unix_only
@pytest.mark.parametrize(
    ("streams", "argument"), [(">/dev/full", "{path}"), (">&-", "{path}"), (">/dev/full", "--help")]
)
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
def test_an_output_that_takes_nothing_is_one_line(path: Path, streams: str, argument: str) -> None:
    path.write_bytes(WHOLE)
    run = subprocess.run(
        ["sh", "-c", f'exec "$@" {streams}', "sh", *SHOW, argument.format(path=path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": ""},  # argparse hides what writing its help raises
    )
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1)
    assert "standard output" in run.stderr


def test_the_first_line_of_the_file_says_what_it_is() -> None:
    assert json.loads(WHOLE.splitlines()[0]).keys() == {
        "format", "version", "started", "contract", "crc32_variant", "max_frame_bytes",
    }  # fmt: skip
