"""``trio-ipc call`` and ``describe`` as processes: in a pipe and at a terminal, and what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue

from tests.cli.processes import PROGRAM, command
from tests.platforms import unix_only
from tests.support import hang, succeed
from trio_ipc import Call, Contract
from trio_ipc.cli.ending import Status
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import open_server, temporary_endpoint

ONE = '{"task_id": "1"}'


async def echo(task: DetectionTask, _: Call) -> DetectionResult:
    return DetectionResult(task_id=task.task_id, success=task.task_id != "bad", error_message="\x1b[31mred")


async def test_a_response_is_json_on_one_line_in_a_pipe() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint, crc32_variant="castagnoli"):
            run = await command("call", endpoint.path, ONE)
    assert (run.returncode, run.stderr) == (Status.DONE, "")
    assert run.stdout.count("\n") == 1
    answer = json.loads(run.stdout)
    assert (answer["task_id"], answer["success"], answer["processes"]) == ("1", True, [])


async def test_several_requests_and_repeats_are_answered_in_order() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint) as server:
            run = await command("call", endpoint.path, ONE, '{"task_id": "2"}', "--repeat", "2")
            assert server.snapshot().connections_accepted == 1
    assert [json.loads(line)["task_id"] for line in run.stdout.splitlines()] == ["1", "1", "2", "2"]


async def test_requests_come_from_standard_input_on_any_lines() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            run = await command(
                "call", endpoint.path, stdin='{"task_id": "1"}\n\n{"task_id":\n"2"} {"task_id": "3"}'
            )
    assert (run.returncode, run.stderr) == (Status.DONE, "")
    assert [json.loads(line)["task_id"] for line in run.stdout.splitlines()] == ["1", "2", "3"]


async def test_each_response_is_there_before_the_next_request_is() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            process = await trio.lowlevel.open_process(
                [*PROGRAM, "call", endpoint.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                with trio.fail_after(60):
                    for number in ("1", "2"):
                        await process.stdin.send_all(json.dumps({"task_id": number}).encode())
                        said = b""
                        while not said.endswith(b"\n"):
                            said += await process.stdout.receive_some()
                        assert json.loads(said)["task_id"] == number
                    await process.stdin.aclose()
                    assert await process.wait() == 0
            finally:
                with trio.CancelScope(shield=True):
                    process.kill()
                    await process.wait()


async def test_a_failed_response_is_shown_and_told_by_the_status() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(echo, DETECTION, endpoint):
            run = await command("call", endpoint.path, '{"task_id": "bad"}', ONE)
    assert run.returncode == Status.NO
    assert [json.loads(line)["success"] for line in run.stdout.splitlines()] == [False, True]
    assert "\x1b" not in run.stdout


async def test_which_field_says_so_can_be_told() -> None:
    with temporary_endpoint() as endpoint:
        run = await command("call", endpoint.path, ONE, "--success", "task_id")
    assert run.returncode == Status.USAGE
    assert "DetectionResult has no bool field 'task_id'" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (['{"task": 1}'], "", "Invalid value for JSON: it is no trio_ipc.daemoneye.v1.DetectionTask"),
        ([], "", "there is no request, neither as an argument nor on standard input"),
        ([], '{"task_id":', "Invalid value for standard input: it ends within an object"),
        ([], '{"task": 1}', "Invalid value for standard input: it is no trio_ipc"),
        (
            ["{}"],
            "",
            "Invalid value for JSON: an empty trio_ipc.daemoneye.v1.DetectionTask encodes to no bytes",
        ),
        ([], "{}", "Invalid value for standard input: an empty trio_ipc"),
        ([ONE, "--timeout", "0"], "", "must be a number of seconds, more than 0"),
        ([ONE, "--repeat", "0"], "", "--repeat"),
        ([ONE, "--trust", "no such user"], "", "no such user"),
        ([ONE, "--contract", "trio_ipc:IpcConfig"], "", "is no Contract but a"),
    ],
)
async def test_a_mistake_is_told_before_anything_is_begun(
    arguments: list[str], stdin: str, said: str
) -> None:
    with temporary_endpoint() as endpoint:
        run = await command("call", endpoint.path, *arguments, stdin=stdin)
    assert (run.returncode, run.stdout) == (Status.USAGE, "")
    assert said in run.stderr
    assert run.stderr.count("\n") == 1


async def test_a_later_request_that_is_wrong_ends_it_after_the_answers_before() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            run = await command("call", endpoint.path, stdin=f"{ONE}\nnonsense")
    assert run.returncode == Status.FAILED
    assert run.stdout.count("\n") == 1
    assert "request 2 of standard input: it is no JSON object" in run.stderr


async def test_nobody_there_and_nobody_who_answers_have_a_status_of_their_own() -> None:
    with temporary_endpoint() as endpoint:
        run = await command("call", endpoint.path, ONE)
        assert run.returncode == Status.UNREACHABLE
        assert run.stderr.startswith(f"trio-ipc: {endpoint.path}: no server")
        async with open_server(hang, DETECTION, endpoint):
            run = await command("call", endpoint.path, ONE, "--timeout", "0.2")
    assert run.returncode == Status.FAILED
    assert "0.2" in run.stderr
    assert run.stderr.count("\n") == 1


async def test_a_further_server_answers_where_the_first_is_not_there() -> None:
    with temporary_endpoint() as absent, temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            run = await command("call", absent.path, ONE, "--also", endpoint.path)
    assert (run.returncode, run.stderr) == (Status.DONE, "")
    assert json.loads(run.stdout)["success"] is True


async def test_another_contract_is_called(tmp_path: Path) -> None:
    (tmp_path / "contract_for_call.py").write_text(
        "from google.protobuf.api_pb2 import Method, Api\n"
        "from trio_ipc import Contract\n"
        "OTHER = Contract(name='other', request_type=Method, response_type=Api)\n"
    )
    environ = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    from google.protobuf.api_pb2 import Api, Method

    async def answer(method: Method, _: Call) -> Api:
        return Api(name=method.name)

    contract = Contract(name="other", request_type=Method, response_type=Api)
    named = ["--contract", "contract_for_call:OTHER"]
    with temporary_endpoint() as endpoint:
        async with open_server(answer, contract, endpoint):
            # It has no question to find out the variant by, and may not make a request twice.
            environ["TRIO_IPC_CRC32_VARIANT"] = "ieee"
            run = await command("call", endpoint.path, '{"name": "n"}', *named, **environ)
            assert (run.returncode, json.loads(run.stdout)["name"]) == (Status.DONE, "n")
    run = await command("describe", *named, **environ)
    assert run.stdout.startswith("contract other: google.protobuf.Method -> google.protobuf.Api\n")


@pytest.mark.parametrize("subcommand", ["call", "bench"])
@pytest.mark.parametrize(("answer", "said"), [(b"2", "task_id '2'"), (b"\xff", "does not decode")])
async def test_a_contract_that_was_not_named_is_told_where_another_may_be_meant(
    subcommand: str, answer: bytes, said: str
) -> None:
    async def handle(request: BytesValue, _: Call) -> BytesValue:
        # of a DetectionResult it is the task_id, which is no text in the second case
        return BytesValue(value=answer)

    contract = Contract(name="words", request_type=BytesValue, response_type=BytesValue)
    given = [] if subcommand == "bench" else [ONE]
    with temporary_endpoint() as endpoint:
        async with open_server(handle, contract, endpoint):
            run = await command(subcommand, endpoint.path, *given)
            named = await command(
                subcommand, endpoint.path, *given, "--contract", "trio_ipc.daemoneye:DETECTION"
            )
    for one in (run, named):
        assert (one.returncode, one.stdout) == (Status.FAILED, "")
        assert said in one.stderr
        assert one.stderr.count("\n") == 1
    assert "; DaemonEye's contract was used: name another by --contract MODULE:NAME\n" in run.stderr
    assert "DaemonEye" not in named.stderr


async def test_a_request_that_is_no_object_in_json_is_called_as_described(tmp_path: Path) -> None:
    (tmp_path / "contract_for_values.py").write_text(
        "from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue\n"
        "from trio_ipc import Contract\n"
        "LENGTH = Contract(name='length', request_type=StringValue, response_type=Int64Value)\n"
    )
    environ = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "TRIO_IPC_CRC32_VARIANT": "ieee"}

    async def length(text: StringValue, _: Call) -> Int64Value:
        return Int64Value(value=len(text.value))

    contract = Contract(name="length", request_type=StringValue, response_type=Int64Value)
    named = ["--contract", "contract_for_values:LENGTH"]
    run = await command("describe", "--json=short", *named, **environ)
    example = json.dumps(json.loads(run.stdout)["example"])
    with temporary_endpoint() as endpoint:
        async with open_server(length, contract, endpoint):
            run = await command("call", endpoint.path, example, '"a{b"', *named, **environ)
            assert (run.returncode, run.stdout, run.stderr) == (Status.DONE, '"5"\n"3"\n', "")
            run = await command("call", endpoint.path, *named, stdin='"12"\n\n  "}{"', **environ)
            assert (run.returncode, run.stdout, run.stderr) == (Status.DONE, '"2"\n"2"\n', "")
            run = await command("call", endpoint.path, "12", *named, **environ)
            assert (run.returncode, run.stdout) == (Status.USAGE, "")
            assert "it is no google.protobuf.StringValue" in run.stderr


@unix_only
async def test_a_reader_who_has_seen_enough_ends_it() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            read, write = os.pipe()
            os.close(read)
            with trio.fail_after(60):
                run = await trio.run_process(
                    [*PROGRAM, "call", endpoint.path, ONE, "--repeat", "1000000"],
                    stdout=write,
                    capture_stderr=True,
                    check=False,
                )
            os.close(write)
    assert (run.returncode, run.stderr) == (Status.DONE, b"")


@unix_only
async def test_a_signal_ends_it_while_it_waits_for_standard_input() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            process = await trio.lowlevel.open_process(
                [*PROGRAM, "call", endpoint.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                with trio.fail_after(60):
                    await process.stdin.send_all(ONE.encode())
                    await process.stdout.receive_some()  # it has answered, and waits for more
                    process.send_signal(signal.SIGTERM)
                    assert await process.wait() == 128 + signal.SIGTERM
                    assert await process.stderr.receive_some() == b""
            finally:
                with trio.CancelScope(shield=True):
                    process.kill()
                    await process.wait()


@unix_only
@pytest.mark.parametrize("columns", [40, 120])
async def test_at_a_terminal_the_response_is_indented_and_without_the_peers_escapes(columns: int) -> None:
    from tests.cli.terminal import at_terminal, plain

    with temporary_endpoint() as endpoint:
        async with open_server(echo, DETECTION, endpoint):
            status, said = await at_terminal("call", endpoint.path, ONE, columns=columns)
    assert status == Status.DONE
    assert "\x1b[31m" not in said
    text = plain(said)
    found, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
    assert found["error_message"] == "\x1b[31mred"
    assert '\n  "task_id": "1",\n' in text


async def test_a_contract_is_described_as_text_and_as_json() -> None:
    run = await command("describe")
    assert (run.returncode, run.stderr) == (Status.DONE, "")
    assert run.stdout.startswith("contract daemoneye.detection: ")
    run = await command("describe", "--json")
    assert run.stdout.count("\n") == 1
    assert json.loads(run.stdout)["example"] == {"task_id": "task_id", "task_type": "ENUMERATE_PROCESSES"}
    run = await command("describe", "--json=pretty")
    assert run.stdout.startswith('{\n  "contract": ')
