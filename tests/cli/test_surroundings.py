"""The command where its surroundings are strange: directories, variables, libraries, streams."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from tests.cli.processes import PROGRAM, command
from tests.platforms import unix_only
from tests.support import succeed
from trio_ipc.cli.ending import Status
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import open_server, temporary_endpoint

ONE = '{"task_id": "1"}'
ROOT = Path(__file__).parents[2]


def shell(script: str, *arguments: str, environ: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Run a script of the shell's with the command as its arguments; return its status, output and talk."""
    run = subprocess.run(
        ["sh", "-c", script, "sh", *PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
    )
    return run.returncode, run.stdout, run.stderr


# --- Directories --------------------------------------------------------------------------------------------


@unix_only
@pytest.mark.parametrize("name", ["describe", "info", "doctor"])
def test_a_working_directory_that_is_gone_is_no_obstacle(name: str, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    place = [] if name == "describe" else [str(tmp_path / "no.sock")]
    status, out, err = shell(f'cd "{tmp_path}/gone" && rmdir "$PWD" && exec "$@"', name, *place)
    assert status == {"describe": Status.DONE, "info": Status.UNREACHABLE, "doctor": Status.NO}[name], err
    assert "the system" not in err
    assert out


def test_a_module_of_the_working_directory_takes_no_installed_ones_place(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise SystemExit('the wrong one')\n")
    (tmp_path / "app.py").write_text("from trio_ipc.daemoneye import DETECTION as CONTRACT\n")
    run = subprocess.run(
        [*PROGRAM, "describe", "--contract", "app:CONTRACT"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (run.returncode, run.stderr) == (Status.DONE, "")
    assert run.stdout.startswith("contract daemoneye.detection")


# --- Variables ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "more"),
    [("bash_complete", {}), ("bash_complete", {"COMP_WORDS": "x", "COMP_CWORD": "x"}), ("nonsense", {})],
)
async def test_a_variable_of_completion_that_no_shell_has_set_is_told(
    value: str, more: dict[str, str]
) -> None:
    run = await command("--version", _TRIO_IPC_COMPLETE=value, **more)
    assert (run.returncode, run.stdout) == (Status.USAGE, "")
    assert "unset it" in run.stderr
    assert run.stderr.count("\n") == 1


async def test_an_empty_variable_of_completion_is_none() -> None:
    run = await command("--version", _TRIO_IPC_COMPLETE="")
    assert (run.returncode, run.stderr) == (Status.DONE, "")


async def test_colour_that_is_forced_animates_no_log_file() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            for arguments in (["call", endpoint.path, ONE], ["check", endpoint.path]):
                run = await command(*arguments, FORCE_COLOR="1", TTY_COMPATIBLE="1", TERM="xterm")
                assert (run.returncode, run.stderr) == (Status.DONE, "")
                assert "\x1b" not in run.stdout


@unix_only
@pytest.mark.parametrize("columns", ["0", "²", "9" * 5000, "99999999", "1", "-5", "x"])
async def test_a_strange_width_is_no_obstacle(columns: str) -> None:
    from tests.cli.terminal import at_terminal, plain

    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            status, said = await at_terminal("info", endpoint.path, COLUMNS=columns, LINES=columns)
    assert status == Status.DONE
    assert "Traceback" not in said
    assert "alive" in "".join(plain(said).split())


@unix_only
async def test_a_dumb_terminal_shows_each_writing_below_the_one_before(tmp_path: Path) -> None:
    from tests.cli.terminal import until_enough

    def enough(said: str) -> bool:
        if said.count("requests answered") == 1 and not written:
            written.append(True)
            file.write_text(json.dumps({**counters, "requests": 77_000, "uptime_seconds": 1e6}))
        return "77,000" in said

    file, written = tmp_path / "s.json", list[bool]()
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint) as server:
            counters = server.snapshot().as_dict()
    file.write_text(json.dumps(counters))
    status, said = await until_enough(enough, "top", str(file), "--interval", "0.05", TERM="dumb")
    assert status == Status.DONE
    assert "\x1b" not in said


# --- Libraries ----------------------------------------------------------------------------------------------


@unix_only
@pytest.mark.parametrize(
    "arguments", [["call", "{}/s.sock", '{{"task_id": "1"}}'], ["info", "{}/s.sock"]], ids=str
)
async def test_where_rich_is_missing_it_says_what_to_install(arguments: list[str], tmp_path: Path) -> None:
    from tests.cli.terminal import at_terminal

    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['rich'] = None\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH")]))
    given = [word.format(tmp_path) for word in arguments]
    status, said = await at_terminal(*given, PYTHONPATH=path)
    assert status == Status.USAGE
    assert said == "trio-ipc: rich is not installed; run: python -m pip install 'trio-ipc[cli]'\n"
    run = await command(*given, PYTHONPATH=path)
    assert run.returncode == Status.UNREACHABLE, "in a pipe nothing needs it"


# --- Streams ------------------------------------------------------------------------------------------------


@unix_only
async def test_a_standard_input_that_does_not_block_is_waited_for() -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            os.write(write, b'{"task_id": "1"}')
            process = await trio.lowlevel.open_process(
                [*PROGRAM, "call", endpoint.path],
                stdin=read,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            os.close(read)
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                with trio.fail_after(60):
                    said = b""
                    while said.count(b"\n") < 2:
                        piece = await process.stdout.receive_some()
                        assert piece, await process.stderr.receive_some()
                        said += piece
                        if said.count(b"\n") == 1:  # it has answered, and reads again
                            os.write(write, b'{"task_id": "2"}')
                    os.close(write)
                    assert await process.wait() == Status.DONE
            finally:
                with trio.CancelScope(shield=True):
                    process.kill()
                    await process.wait()
    assert [json.loads(line)["task_id"] for line in said.splitlines()] == ["1", "2"]


@unix_only
def test_a_standard_input_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    status, out, err = shell(f'exec "$@" 0>"{tmp_path}/for-writing"', "call", str(tmp_path / "s.sock"))
    assert (status, out) == (Status.USAGE, "")
    assert "standard input cannot be read: " in err
    assert err.count("\n") == 1


@unix_only
def test_without_a_library_and_without_standard_error_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['click'] = None\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    assert shell('exec "$@" 2>&-', "--help", environ={"PYTHONPATH": path}) == (Status.USAGE, "", "")


# --- Numbers ------------------------------------------------------------------------------------------------


@unix_only
def test_connections_without_number_take_no_memory(tmp_path: Path) -> None:
    place = str(tmp_path / "no.sock")
    status, _, err = shell(
        'ulimit -v 2000000; exec "$@"', "bench", place, "--calls", "1", "--connections", "10000000000"
    )
    assert (status, err.count("\n")) == (Status.UNREACHABLE, 1)


async def test_bytes_that_are_no_text_take_no_response_away() -> None:
    with temporary_endpoint() as endpoint:
        async with open_server(succeed, DETECTION, endpoint):
            with trio.fail_after(60):
                run = await trio.run_process(
                    [*PROGRAM, "call", endpoint.path],
                    stdin=ONE.encode() + b'\n{"task_id": "\xff"}',
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                )
    assert run.returncode == Status.FAILED
    assert json.loads(run.stdout)["task_id"] == "1"
    assert b"request 2 of standard input: 'utf-8' codec" in run.stderr


@unix_only
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
async def test_a_full_disk_is_told_once_of_a_response() -> None:
    with temporary_endpoint() as endpoint, open("/dev/full", "wb") as full:
        async with open_server(succeed, DETECTION, endpoint):
            with trio.fail_after(60):
                run = await trio.run_process(
                    [*PROGRAM, "call", endpoint.path, ONE], stdout=full, capture_stderr=True, check=False
                )
    assert run.returncode == Status.OUTPUT
    assert run.stderr == b"trio-ipc: standard output: No space left on device\n"
