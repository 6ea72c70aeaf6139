"""What several commands take: endpoint, contract, settings, ``--json``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from tests.cli.conftest import Run
from tests.platforms import unix_only
from trio_ipc import Contract, IpcConfig
from trio_ipc.cli import arguments, output
from trio_ipc.cli.ending import Status
from trio_ipc.daemoneye import DETECTION


class Seen:
    """A command that keeps what it was given."""

    def __init__(self, *decorators: Any) -> None:
        self.given: dict[str, Any] = {}
        self._decorators = decorators

    def __call__(self) -> Any:
        def probe(**given: Any) -> None:
            self.given.update(given)

        for decorator in self._decorators:
            decorator(probe)
        return probe


@unix_only
def test_an_endpoint_is_a_path_from_here(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = Seen(arguments.endpoint_argument)
    assert run(seen(), "s.sock") == 0
    assert seen.given == {"endpoint": os.path.join(os.getcwd(), "s.sock")}


@unix_only
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "not empty"),
        ("@s", "an abstract socket has neither owner nor mode"),
        ("unix:///run/s", "write /run/s"),
        ("/" + "x" * 200, "at most"),
    ],
)
def test_a_wrong_endpoint_is_refused(
    run: Run, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Seen(arguments.endpoint_argument)(), name) == Status.USAGE
    shown = capsys.readouterr().err
    assert shown.startswith("trio-ipc probe: Invalid value for 'ENDPOINT': ")
    assert said in shown


def test_the_contract_is_daemoneyes_unless_another_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(arguments.contract_option)
    assert run(seen()) == 0
    assert seen.given["contract"] is DETECTION

    (tmp_path / "mine_of_a_test.py").write_text(
        "from trio_ipc import Contract\n"
        "from trio_ipc.daemoneye import DetectionResult, DetectionTask\n"
        "class Inner:\n"
        "    MINE = Contract(name='mine', request_type=DetectionTask, response_type=DetectionResult)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        assert run(seen(), "--contract", "mine_of_a_test:Inner.MINE") == 0
    finally:
        sys.modules.pop("mine_of_a_test", None)
    assert isinstance(seen.given["contract"], Contract)
    assert seen.given["contract"].name == "mine"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mine", "must be MODULE:NAME, such as trio_ipc.daemoneye:DETECTION"),
        ("no_such_module:X", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("trio_ipc.daemoneye:NOTHING", "cannot be imported: AttributeError: "),
        ("trio_ipc:IpcConfig", "is no Contract but a type"),
        (".x:Y", "cannot be imported: TypeError: "),
    ],
)
def test_a_wrong_contract_is_refused(
    run: Run, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Seen(arguments.contract_option)(), "--contract", name) == Status.USAGE
    assert said in capsys.readouterr().err


def test_a_module_that_ends_the_program_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ending_of_a_test.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    status = run(Seen(arguments.contract_option)(), "--contract", "ending_of_a_test:X")
    assert status == Status.USAGE
    assert "its module ends the program" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon"])
def test_seconds_are_more_than_none(run: Run, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen = Seen(click.option("--timeout", type=arguments.SECONDS))
    assert run(seen(), "--timeout=2.5") == 0
    assert seen.given == {"timeout": 2.5}
    assert run(seen(), f"--timeout={value}") == Status.USAGE
    assert "must be a number of seconds, more than 0" in capsys.readouterr().err


@unix_only
def test_json_may_stand_without_a_value_before_an_argument(run: Run) -> None:
    seen = Seen(arguments.endpoint_argument, arguments.json_option)
    for given, form in (([], None), (["--json"], "auto"), (["--json=short"], "short")):
        assert run(seen(), *given, "/s") == 0
        assert seen.given == {"endpoint": "/s", "json_form": form}
    assert run(seen(), "--json=long", "/s") == Status.USAGE


def test_json_is_on_one_line_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"a": ["\x1b[31m", 1]}
    for form in ("auto", "short", "pretty"):
        output.write_json(value, form)
    first, second, rest = capsys.readouterr().out.split("\n", 2)
    assert first == second == '{"a":["\\u001b[31m",1]}'
    assert rest.count("\n") == 6
    assert json.loads(rest) == value


@unix_only
def test_a_number_that_json_lacks_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    odd = {"a": [float("nan"), 1.5], "b": {"c": float("inf")}, "d": (float("-inf"),)}
    output.write_json(odd, "short")
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5], "b": {"c": None}, "d": [None]}


def test_settings_come_from_file_environment_and_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[ipc]\nmax_frame_bytes = 5\nread_timeout_ms = 6\nendpoint_path = "/other"\n')
    monkeypatch.setenv("TRIO_IPC_READ_TIMEOUT_MS", "7")
    made = arguments.settings("/s", str(file), write_timeout_ms=8)
    assert made == IpcConfig(
        endpoint_path="/s", max_frame_bytes=5, read_timeout_ms=7, write_timeout_ms=8, crc32_variant="auto"
    )
