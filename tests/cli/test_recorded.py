"""``trio-ipc show`` and ``replay`` as processes: recordings as text and JSON, and made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any

from tests.cli.processes import command
from tests.platforms import unix_only
from trio_ipc import Call, Contract, Crc32Variant
from trio_ipc.cli.ending import Status
from trio_ipc.cli.recorded import frame_as_json
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import (
    RecordedFrame,
    Recorder,
    memory_streams,
    open_client_at,
    open_server,
    temporary_endpoint,
)
from trio_ipc.wire import FrameEncoder

frame_of = FrameEncoder(1_000, Crc32Variant.IEEE).encode


async def first(task: DetectionTask, _: Call) -> DetectionResult:
    return DetectionResult(task_id=task.task_id, success=True, error_message="first")


async def second(task: DetectionTask, _: Call) -> DetectionResult:
    return DetectionResult(task_id=task.task_id, success=True, error_message="\x1b[31msecond")


@pytest.fixture
async def recording(tmp_path: Path) -> Path:
    """Two requests and their responses."""
    file = tmp_path / "two.jsonl"
    with temporary_endpoint() as endpoint, Recorder(file, DETECTION) as recorder:
        async with (
            open_server(first, DETECTION, endpoint),
            open_client_at(DETECTION, endpoint, wrap=recorder.wrap) as client,
        ):
            for number in ("1", "2"):
                await client.call(DetectionTask(task_id=number))
    return file


async def test_a_recording_is_shown_as_text_and_as_json(recording: Path) -> None:
    run = await command("show", str(recording))
    assert (run.returncode, run.stderr) == (Status.DONE, "")
    assert run.stdout.startswith("recorded '")
    assert "!!" not in run.stdout
    assert run.stdout.count('task_id: "2"') == 2
    run = await command("show", str(recording), "--json")
    assert run.stdout.count("\n") == 1
    found = json.loads(run.stdout)
    assert [one["request"]["task_id"] for one in found["exchanges"]] == ["1", "2"]
    assert [one["response"]["error_message"] for one in found["exchanges"]] == ["first", "first"]


async def test_a_damaged_recording_is_shown_as_far_as_it_goes(recording: Path) -> None:
    recording.write_bytes(recording.read_bytes()[:-5])
    run = await command("show", str(recording), "--json=short")
    assert run.returncode == Status.NO
    assert json.loads(run.stdout)["damage"]
    assert run.stderr.count("\n") == 1


async def test_requests_of_a_damaged_recording_are_not_all(recording: Path) -> None:
    recording.write_bytes(recording.read_bytes()[:-5])
    with temporary_endpoint() as endpoint:
        async with open_server(first, DETECTION, endpoint):
            run = await command("replay", str(recording), endpoint.path)
            assert (run.returncode, run.stdout) == (Status.NO, "2 requests, 0 answered otherwise\n")
            assert run.stderr.endswith("ends in the middle of a record\n")
            run = await command("replay", str(recording), endpoint.path, "--json")
    assert run.returncode == Status.NO
    assert json.loads(run.stdout)["damage"] == "the recording ends in the middle of a record"


async def test_a_payload_that_is_no_message_hides_no_other(tmp_path: Path) -> None:
    file = tmp_path / "odd.jsonl"
    with Recorder(file, DETECTION) as recorder:
        recorded = recorder.wrap(memory_streams()[0])
        await recorded.send_all(
            frame_of(b"\xff") + frame_of(DetectionTask(task_id="good").SerializeToString())
        )
        await recorded.aclose()
    run = await command("show", str(file), "--json")
    assert (run.returncode, run.stderr) == (Status.DONE, "")
    found = json.loads(run.stdout)
    assert [one["request"] and one["request"]["task_id"] for one in found["exchanges"]] == [None, "good"]
    assert ["does not decode as trio_ipc.daemoneye" in one["error"] for one in found["errors"]] == [True]


def test_a_message_that_has_no_form_in_json_is_an_error_of_its_frame() -> None:
    contract = Contract(name="any", request_type=Any, response_type=Any)
    payload = Any(type_url="x/unknown", value=b"1").SerializeToString()
    told = frame_as_json(RecordedFrame(0.0, 1, "client", payload), contract)
    assert told["message"] is None
    assert "has no form in JSON" in told["error"]


async def test_another_contracts_recording_is_bytes_unless_its_contract_is_named(recording: Path) -> None:
    recording.write_text(recording.read_text().replace(DETECTION.name, "other"))
    run = await command("show", str(recording))
    assert "!! the contract 'other' was not given: payloads are shown as bytes" in run.stdout
    run = await command("show", str(recording), "--json")
    assert run.returncode == Status.USAGE
    assert "give it by --contract" in run.stderr
    run = await command("show", str(recording), "--json", "--contract", "trio_ipc.daemoneye:DETECTION")
    assert run.returncode == Status.DONE


@pytest.mark.parametrize("name", ["show", "replay"])
async def test_what_is_no_recording_is_a_mistake(tmp_path: Path, name: str) -> None:
    file = tmp_path / "none.jsonl"
    place = [str(tmp_path / "s.sock")] if name == "replay" else []
    run = await command(name, str(file), *place)
    assert (run.returncode, run.stdout) == (Status.USAGE, "")
    assert "none.jsonl" in run.stderr
    file.write_text("hello\n")
    run = await command(name, str(file), *place)
    assert (run.returncode, run.stdout) == (Status.USAGE, "")
    assert run.stderr.count("\n") == 1


async def test_the_same_answers_are_no_differences(recording: Path) -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(first, DETECTION, endpoint, crc32_variant="castagnoli"):
            run = await command("replay", str(recording), endpoint.path)
    assert (run.returncode, run.stderr) == (Status.DONE, "")
    assert run.stdout == "2 requests, 0 answered otherwise\n"


async def test_other_answers_are_told_unless_the_field_is_ignored(recording: Path) -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(second, DETECTION, endpoint):
            run = await command("replay", str(recording), endpoint.path)
            assert run.returncode == Status.NO
            assert run.stdout.startswith("connection 1, request 1: {")
            assert run.stdout.endswith("2 requests, 2 answered otherwise\n")
            assert "\x1b" not in run.stdout
            run = await command("replay", str(recording), endpoint.path, "--json")
            assert json.loads(run.stdout)["differences"][0]["got"]["error_message"] == "\x1b[31msecond"
            run = await command("replay", str(recording), endpoint.path, "--ignore", "error_message")
            assert run.returncode == Status.DONE
            run = await command("replay", str(recording), endpoint.path, "--ignore", "none")
    assert run.returncode == Status.USAGE
    assert "has no field 'none'" in run.stderr


async def test_nobody_there_has_its_status(recording: Path) -> None:
    with temporary_endpoint() as endpoint:
        run = await command("replay", str(recording), endpoint.path)
    assert run.returncode == Status.UNREACHABLE
    assert run.stderr.count("\n") == 1


@unix_only
@pytest.mark.parametrize("columns", [40, 120])
async def test_at_a_terminal_nothing_is_raw(recording: Path, columns: int) -> None:
    from tests.cli.terminal import at_terminal, plain

    with temporary_endpoint() as endpoint:
        async with open_server(second, DETECTION, endpoint):
            status, said = await at_terminal("replay", str(recording), endpoint.path, columns=columns)
    assert status == Status.NO
    assert "\x1b[31msecond" not in said
    assert "2 answered otherwise" in plain(said)
    status, said = await at_terminal("show", str(recording), columns=columns)
    assert status == Status.DONE
    assert said.startswith("recorded '")
