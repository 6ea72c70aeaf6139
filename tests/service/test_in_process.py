"""A service in this process, so that its lines are counted: a thread plays operator and service manager."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support import succeed
from trio_ipc import (
    Call,
    ConfigError,
    ContractError,
    EndpointError,
    EndpointInUseError,
    EndpointUnsafeError,
    ExitStatus,
    IpcConfig,
    IpcError,
    run_service,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.service.console import Console, JsonFormatter
from trio_ipc.service.statuses import status_of_all
from trio_ipc.streams import OutputError

from .support import ask

if sys.platform == "win32":
    pytest.skip("signals and sockets are as Unix has them", allow_module_level=True)
assert sys.platform != "win32"


class Operator(threading.Thread):
    """Does what a script says while a service runs in the main thread, and stops it whatever happens."""

    def __init__(self, directory: str, script: Callable[[Operator], None]) -> None:
        super().__init__(daemon=True)
        self.directory = directory
        self.endpoint = f"{directory}/s"
        self.failure: BaseException | None = None
        self._script = script
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.settimeout(30)
        self._notified.bind(f"{directory}/notify")
        writing, reading = socket.socketpair()
        reading.settimeout(30)
        self.errors = writing.makefile("w")
        self._lines = reading.makefile()
        writing.close()  # the files have them
        reading.close()

    def run(self) -> None:
        try:
            self.until_told("READY")
            self._script(self)
        except BaseException as exc:  # noqa: BLE001 - raised in the test
            self.failure = exc
            self.send(signal.SIGINT)
        finally:
            self.send(signal.SIGTERM)

    def send(self, number: int) -> None:
        os.kill(os.getpid(), number)

    def until_told(self, what: str) -> None:
        while what.encode() not in self._notified.recv(65_536):
            pass

    def until_said(self, what: str) -> str:
        while what not in (line := self._lines.readline()):
            assert line, "it ended"
        return line

    def ask(self) -> None:
        assert trio.run(ask, self.endpoint).success

    def close(self) -> None:
        self.join()
        self._notified.close()
        self.errors.close()
        self._lines.close()


@pytest.fixture
def _handlers_restored() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def serve_while(
    directory: str, monkeypatch: pytest.MonkeyPatch, _handlers_restored: None
) -> Callable[..., ExitStatus]:
    """Run a service of these options for as long as a script takes; return its status."""

    def run(script: Callable[[Operator], None], handler: Any = succeed, **options: Any) -> ExitStatus:
        operator = Operator(directory, script)
        config = options.pop("config", IpcConfig(endpoint_path=operator.endpoint))
        monkeypatch.setenv("NOTIFY_SOCKET", f"{directory}/notify")
        monkeypatch.setattr(sys, "stderr", operator.errors)
        operator.start()
        try:
            return run_service(handler, DETECTION, config, name="svc", **options)
        finally:
            operator.close()
            if operator.failure is not None:
                raise operator.failure

    return run


class Panic(BaseException):
    """What PyO3 makes of a panic in Rust is no Exception."""


def test_it_serves_tells_reloads_and_stops(serve_while: Callable[..., ExitStatus], directory: str) -> None:
    wanted: list[Any] = [{}]
    seen: list[int] = []

    def settings() -> IpcConfig:
        return IpcConfig(endpoint_path=f"{directory}/s", **wanted[-1])

    def reloaded(config: IpcConfig) -> None:
        if config.max_connections == 3:
            raise ValueError("three")
        if config.max_connections == 5:
            raise Panic("five")
        seen.append(config.max_connections)

    def operate(operator: Operator) -> None:
        operator.ask()
        operator.send(signal.SIGUSR1)
        told = json.loads(operator.until_said("svc: telemetry: ").removeprefix("svc: telemetry: "))
        assert told["requests"] == 1
        for settings, said in [
            ({"transport": "legacy"}, "the transport was interprocess, is now legacy"),
            ({"transport": "legacy", "max_connections": 4}, "these changes need a restart: max_connections"),
            ({"transport": "legacy", "max_connections": 3}, "svc: not reloaded: ValueError: three"),
            ({"transport": "legacy", "max_connections": 5}, "svc: not reloaded: Panic: five"),
            ({"transport": "pigeon"}, "svc: not reloaded: transport is 'pigeon'"),
        ]:
            wanted.append(settings)
            operator.send(signal.SIGHUP)
            operator.until_said(said)
            operator.until_told("RELOADING")
            operator.until_told("READY")
        operator.send(signal.SIGTERM)
        operator.until_told("STOPPING")
        operator.until_said("svc: served: transport=legacy")

    assert serve_while(operate, config=settings, on_reload=reloaded) is ExitStatus.OK
    assert seen == [16, 4]


def test_files_are_written_and_in_json_lines_are_fields(
    serve_while: Callable[..., ExitStatus], directory: str
) -> None:
    snapshot, metrics = Path(directory, "s.json"), Path(directory, "no", "s.prom")

    def operate(operator: Operator) -> None:
        line = json.loads(operator.until_said("telemetry cannot be written"))
        assert (line["level"], line["logger"]) == ("ERROR", "svc")
        metrics.parent.mkdir()
        operator.until_said("telemetry is written again")
        assert "trio_ipc_server_requests_total" in metrics.read_text()
        operator.send(signal.SIGUSR1)
        operator.send(signal.SIGTERM)
        operator.until_said("served: ")

    options = {"snapshot_file": snapshot, "metrics_file": metrics, "metrics_interval": 0.01}
    assert serve_while(operate, log_style="json", **options) is ExitStatus.OK
    assert json.loads(snapshot.read_text())["endpoint"] == f"{directory}/s"
    assert not metrics.exists()


def test_telemetry_without_a_file_is_a_field_of_a_json_line(serve_while: Callable[..., ExitStatus]) -> None:
    def operate(operator: Operator) -> None:
        operator.send(signal.SIGUSR1)
        assert json.loads(operator.until_said('"telemetry"'))["telemetry"]["requests"] == 0

    assert serve_while(operate, log_style="json") is ExitStatus.OK


def test_a_snapshot_that_cannot_be_written_is_a_line_and_at_the_end_the_status(
    serve_while: Callable[..., ExitStatus], directory: str
) -> None:
    def operate(operator: Operator) -> None:
        operator.send(signal.SIGUSR1)
        operator.until_said(f"svc: {directory}/no/s.json: telemetry cannot be written: No such file")

    assert serve_while(operate, snapshot_file=f"{directory}/no/s.json") is ExitStatus.OUTPUT


def test_a_second_signal_cuts_off_what_is_in_flight(serve_while: Callable[..., ExitStatus]) -> None:
    began = threading.Event()

    async def hang(_task: DetectionTask, _call: Call) -> DetectionResult:
        began.set()
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    def operate(operator: Operator) -> None:
        def call() -> None:
            with pytest.raises(IpcError):
                trio.run(ask, operator.endpoint)

        calling = threading.Thread(target=call)
        calling.start()
        assert began.wait(30)
        operator.send(signal.SIGTERM)
        operator.until_told("STOPPING")
        operator.send(signal.SIGINT)
        operator.until_said("requests_failed.cut_off=1")
        calling.join()

    assert serve_while(operate, hang) is ExitStatus.OK


def test_a_handler_that_ends_the_program_does_and_no_metrics_stay(
    serve_while: Callable[..., ExitStatus], directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leave(_task: DetectionTask, _call: Call) -> DetectionResult:
        raise SystemExit(5)

    def operate(operator: Operator) -> None:
        while "s.prom" not in os.listdir(directory):
            operator.until_told("WATCHDOG")
        with pytest.raises(IpcError):
            trio.run(ask, operator.endpoint)

    monkeypatch.setenv("WATCHDOG_USEC", "10000")
    with pytest.raises(SystemExit) as caught:
        serve_while(operate, leave, metrics_file=f"{directory}/s.prom")
    assert caught.value.code == 5
    assert "s.prom" not in os.listdir(directory)


def test_the_watchdog_is_told(
    serve_while: Callable[..., ExitStatus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "10000")

    def operate(operator: Operator) -> None:
        for _ in range(3):
            operator.until_told("WATCHDOG")

    assert serve_while(operate) is ExitStatus.OK


def test_a_transport_that_was_switched_before_on_reload_failed_can_be_switched_back(
    serve_while: Callable[..., ExitStatus], directory: str
) -> None:
    transports = ["interprocess"]

    def settings() -> IpcConfig:
        return IpcConfig.load(endpoint_path=f"{directory}/s", transport=transports[-1])

    def reloaded(config: IpcConfig) -> None:
        if str(config.transport) == "legacy":
            raise ValueError("not with this one")

    def operate(operator: Operator) -> None:
        for transport, said in [
            ("legacy", "not reloaded: ValueError: not with this one"),
            ("interprocess", "reloaded: the transport was legacy, is now interprocess"),
        ]:
            transports.append(transport)
            operator.send(signal.SIGHUP)
            operator.until_said(said)
            operator.until_told("RELOADING")
            operator.until_told("READY")

    assert serve_while(operate, config=settings, on_reload=reloaded) is ExitStatus.OK


@pytest.mark.usefixtures("_handlers_restored")
@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (ConfigError("x"), ExitStatus.CONFIG),
        (ContractError("x"), ExitStatus.DEFECT),
        (EndpointInUseError("x"), ExitStatus.IN_USE),
        (EndpointUnsafeError("x"), ExitStatus.UNSAFE),
        (EndpointError("x"), ExitStatus.ENDPOINT),
        (OutputError("x"), ExitStatus.OUTPUT),
        (OSError(24, "x"), ExitStatus.SYSTEM),
        (ZeroDivisionError("x"), ExitStatus.DEFECT),
        (KeyboardInterrupt(), ExitStatus.OK),
        (ExceptionGroup("", [OSError(1, "x"), ConfigError("y")]), ExitStatus.SYSTEM),
        (ExceptionGroup("", [OSError(1, "x"), ZeroDivisionError("y")]), ExitStatus.DEFECT),
    ],
)
def test_what_ends_it_early_has_its_status(
    problem: BaseException, status: ExitStatus, capsys: pytest.CaptureFixture[str]
) -> None:
    def config() -> IpcConfig:
        raise problem

    assert run_service(succeed, DETECTION, config, name="svc") is status
    said = capsys.readouterr().err
    assert said.count("ZeroDivisionError") == (2 if "a defect" in said else 0), "with its traceback"
    assert bool(said) is (status is not ExitStatus.OK)


@pytest.mark.usefixtures("_handlers_restored")
def test_the_metrics_of_a_service_that_runs_already_stay(tmp_path: Path) -> None:
    file = tmp_path / "s.prom"
    file.write_text("the other one's")

    def config() -> IpcConfig:
        raise EndpointInUseError("in use")

    assert run_service(succeed, DETECTION, config, metrics_file=file) is ExitStatus.IN_USE
    assert file.read_text() == "the other one's"


def test_nothing_wrong_is_no_failure() -> None:
    assert status_of_all([]) is ExitStatus.OK


def test_a_field_that_cannot_be_written_costs_no_line() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise ValueError

    record = logging.makeLogRecord({"msg": "x", "odd": Odd(), "path": "\udcff", "time": "not this"})
    entry = json.loads(JsonFormatter().format(record))
    assert (entry["message"], entry["odd"], entry["path"]) == ("x", "a Odd", "\udcff")
    assert entry["time"].endswith("Z")


@pytest.mark.parametrize("value", [{(1, 2): 3}, float("nan"), [float("inf")]], ids=str)
def test_a_field_that_json_has_no_form_for_costs_no_line(value: object) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    record = logging.makeLogRecord(
        {"msg": "x", "odd": value, "exc_info": (ValueError, ValueError("y"), None)}
    )
    entry = json.loads(JsonFormatter().format(record), parse_constant=refuse)
    assert (entry["message"], entry["odd"], entry["exception"]) == ("x", repr(value), "ValueError: y")


def test_a_field_that_holds_itself_costs_no_line() -> None:
    circle: list[object] = []
    circle.append(circle)
    record = logging.makeLogRecord({"msg": "x", "odd": circle})
    assert json.loads(JsonFormatter().format(record))["odd"] == "[[...]]"


class Untellable:
    def __str__(self) -> str:
        raise Panic("no text")

    def __repr__(self) -> str:
        return "Untellable()"


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [("%d of %d", ("one",), "%d of %d ('one',)"), ("%s", (Untellable(),), "%s (Untellable(),)")],
)
def test_arguments_that_do_not_fit_their_message_cost_no_line(
    text: str, arguments: tuple[object, ...], said: str
) -> None:
    record = logging.makeLogRecord({"msg": text, "args": arguments})
    assert json.loads(JsonFormatter().format(record))["message"] == said


def test_a_terminal_is_steered_by_nothing_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    Console("svc", "text").say("red \x1b[31m\nline")
    assert capsys.readouterr().err == "svc: red \\x1b[31m\\nline\n"


@pytest.mark.parametrize(
    ("started_as", "name"),
    [("/x/collector.py", "collector"), ("/x/pkg/__main__.py", "pkg"), ("-c", "service"), ("", "service")],
)
def test_a_program_is_called_by_its_file(
    started_as: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [started_as])
    run_service(succeed, DETECTION, IpcConfig(), log_style="xml")
    assert capsys.readouterr().err.startswith(f"{name}: log_style is 'xml'")
