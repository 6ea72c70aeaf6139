"""How settings are gathered, for both classes that have some."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hardening.record import Attack
from tests.platforms import unix_only
from tests.settings_support import (
    BOTH,
    DIGITS,
    Kind,
    written,
)
from trio_ipc import (
    ConfigError,
    Crc32Variant,
    IpcConfig,
    ResilientConfig,
    Strategy,
    TransportType,
    settings,
)
from trio_ipc.settings import _warn_once

#: What Kubernetes gives every container of a namespace that has a service called "trio-ipc".
KUBERNETES = {
    "TRIO_IPC_SERVICE_HOST": "10.96.0.7",
    "TRIO_IPC_SERVICE_PORT": "80",
    "TRIO_IPC_PORT": "tcp://10.96.0.7:80",
    "TRIO_IPC_PORT_80_TCP": "tcp://10.96.0.7:80",
    "TRIO_IPC_PORT_80_TCP_PROTO": "tcp",
    "TRIO_IPC_PORT_80_TCP_PORT": "80",
    "TRIO_IPC_PORT_80_TCP_ADDR": "10.96.0.7",
}


@pytest.fixture(autouse=True)
def _nothing_warned_of() -> Iterator[None]:
    settings._warn_once.cache_clear()
    yield
    settings._warn_once.cache_clear()


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "trio_ipc.settings" and record.levelno == logging.WARNING
    ]


# --- Which source wins --------------------------------------------------------------------------------------


@BOTH
def test_a_keyword_wins_over_the_environment_that_over_the_file_and_that_over_defaults(
    kind: Kind, prefix: str, table: str, tmp_path: Path
) -> None:
    file = written(tmp_path, f"[{table}]\nmax_connections = 2\n")
    environ = {f"{prefix}MAX_CONNECTIONS": "3", "PATH": "/bin"}
    defaults = {"max_connections": 1}
    assert kind.load(environ={}, defaults=defaults).max_connections == 1
    assert kind.load(file, environ={}, defaults=defaults).max_connections == 2
    assert kind.load(file, environ=environ, defaults=defaults).max_connections == 3
    assert kind.load(file, environ=environ, defaults=defaults, max_connections=4).max_connections == 4
    assert kind.load(environ={}) == kind()


def test_of_several_fields_each_comes_from_where_it_is_set(tmp_path: Path) -> None:
    file = written(tmp_path, 'ipc.transport = "legacy"\nipc.read_timeout_ms = 2\n')
    environ = {"TRIO_IPC_READ_TIMEOUT_MS": "3", "TRIO_IPC_CRC32_VARIANT": "castagnoli"}
    config = IpcConfig.load(file, environ=environ, defaults={"poll_attempts": 1}, write_timeout_ms=4)
    assert config == IpcConfig(
        transport=TransportType.LEGACY,
        read_timeout_ms=3,
        crc32_variant=Crc32Variant.CASTAGNOLI,
        poll_attempts=1,
        write_timeout_ms=4,
    )


def test_defaults_are_not_changed() -> None:
    defaults = {"max_connections": 1}
    IpcConfig.load(environ={"TRIO_IPC_MAX_CONNECTIONS": "2"}, defaults=defaults)
    assert defaults == {"max_connections": 1}


def test_a_wrong_value_that_another_one_replaces_is_none(tmp_path: Path) -> None:
    file = written(tmp_path, "[ipc]\nmax_connections = 0\n")
    environ = {"TRIO_IPC_MAX_CONNECTIONS": "x"}
    assert IpcConfig.load(file, environ=environ, max_connections=1).max_connections == 1


def test_the_process_environment_is_read_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIO_IPC_MAX_CONNECTIONS", "3")
    assert IpcConfig.load().max_connections == 3
    assert IpcConfig.load(environ={}).max_connections == 16
    monkeypatch.setenv("TRIO_IPC_RESILIENT_STRATEGY", "priority")
    assert ResilientConfig.load().strategy is Strategy.PRIORITY


@BOTH
def test_an_empty_environment_variable_counts_as_not_set(kind: Kind, prefix: str, table: str) -> None:
    environ = {f"{prefix}MAX_CONNECTIONS": "", f"{prefix}BOGUS": ""}
    assert kind.load(environ=environ, strict=True) == kind()


def test_a_wrong_value_is_traced_to_where_it_was_set(tmp_path: Path) -> None:
    file = written(tmp_path, "[ipc]\nread_timeout_ms = 0\n")
    with pytest.raises(ConfigError, match=rf"it was set by table \[ipc\] of {re.escape(str(file))}"):
        IpcConfig.load(file, environ={})
    with pytest.raises(ConfigError, match="it was set by environment variable TRIO_IPC_TRANSPORT"):
        IpcConfig.load(environ={"TRIO_IPC_TRANSPORT": "x"})
    with pytest.raises(ConfigError, match="it was set by a keyword"):
        IpcConfig.load(environ={}, transport="x")
    with pytest.raises(ConfigError, match="it was set by a default of the program"):
        IpcConfig.load(environ={}, defaults={"transport": "x"})


# --- Names that are no settings -----------------------------------------------------------------------------


def test_an_unknown_name_of_the_programs_own_or_in_the_file_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "[ipc]\nread_timeout = 5\n")
    with pytest.raises(ConfigError, match=r"'read_timeout' \(table \[ipc\].*did you mean read_timeout_ms"):
        IpcConfig.load(file, environ={})
    with pytest.raises(ConfigError, match=r"'bogus' \(a keyword, value 1\); known are transport, endpoint"):
        IpcConfig.load(environ={}, bogus=1)
    with pytest.raises(ConfigError, match=r"'bogus' \(a default of the program"):
        IpcConfig.load(environ={}, defaults={"bogus": 1})
    with pytest.raises(ConfigError, match=r"'bogus' \(a keyword"):
        IpcConfig().replace(bogus=1)
    with pytest.raises(ConfigError, match=r"'breaker_failure' \(a keyword.*did you mean breaker_failures"):
        ResilientConfig.load(environ={}, breaker_failure=1)


def test_variables_that_are_no_settings_are_warned_of_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    environ = {**KUBERNETES, "TRIO_IPC_MAX_CONECTIONS": "8", "TRIO_IPC_READ_TIMEOUT_MS": "3"}
    assert IpcConfig.load(environ=environ) == IpcConfig(read_timeout_ms=3)
    (said,) = warnings_in(caplog)
    assert said == (
        "TRIO_IPC_MAX_CONECTIONS (did you mean TRIO_IPC_MAX_CONNECTIONS?), TRIO_IPC_PORT, "
        "TRIO_IPC_PORT_80_TCP, TRIO_IPC_PORT_80_TCP_ADDR, TRIO_IPC_PORT_80_TCP_PORT, "
        "TRIO_IPC_PORT_80_TCP_PROTO, TRIO_IPC_SERVICE_HOST, TRIO_IPC_SERVICE_PORT in the environment are no "
        "settings of trio_ipc, and not used"
    )
    assert "10.96" not in caplog.text  # a value may be somebody's secret


def test_each_set_of_names_in_the_process_environment_is_warned_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _warn_once.cache_clear()  # it is the process's, and other tests run in it
    monkeypatch.setenv("TRIO_IPC_SERVICE_HOST", "10.96.0.7")
    for _ in range(3):
        IpcConfig.load()
    assert warnings_in(caplog) == [
        "TRIO_IPC_SERVICE_HOST in the environment is no setting of trio_ipc, and not used"
    ]
    monkeypatch.setenv("TRIO_IPC_PORT", "tcp://10.96.0.7:80")
    IpcConfig.load()
    IpcConfig.load()
    assert len(warnings_in(caplog)) == 2


@pytest.mark.parametrize("name", ["TRIO_IPC_max_connections", "TRIO_IPC_MAX_conNECTIONS"])
def test_a_name_in_the_wrong_case_is_close(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert IpcConfig.load(environ={name: "8"}) == IpcConfig()
    assert "(did you mean TRIO_IPC_MAX_CONNECTIONS?)" in caplog.text


def test_a_name_of_control_characters_or_without_end_is_shown_harmless(
    caplog: pytest.LogCaptureFixture,
) -> None:
    IpcConfig.load(environ={"TRIO_IPC_\x1b[31m\n": "8", "TRIO_IPC_" + "X" * 10_000: "8"})
    (said,) = warnings_in(caplog)
    assert said.isprintable()
    assert r"TRIO_IPC_\x1b[31m\n" in said
    assert len(said) < 300


@BOTH
def test_a_strict_load_refuses_variables_that_are_no_settings(kind: Kind, prefix: str, table: str) -> None:
    environ = {f"{prefix}BOGUS": "secret", f"{prefix}MAX_CONECTIONS": "8", f"{prefix}MAX_CONNECTIONS": "1"}
    with pytest.raises(ConfigError) as caught:
        kind.load(environ=environ, strict=True)
    assert f"{prefix}BOGUS, {prefix}MAX_CONECTIONS (did you mean {prefix}MAX_CONNECTIONS?)" in str(
        caught.value
    )
    assert "are no settings" in str(caught.value)
    assert "secret" not in str(caught.value)
    del environ[f"{prefix}BOGUS"], environ[f"{prefix}MAX_CONECTIONS"]
    assert kind.load(environ=environ, strict=True).max_connections == 1


def test_a_program_goes_on_where_kubernetes_has_a_service_of_this_name(
    tmp_path: Path, attack: Attack
) -> None:
    program = (
        "import trio, trio_ipc, trio_ipc.daemoneye as d\n"
        "async def main():\n"
        "    for _ in range(2):\n"
        "        try:\n"
        "            async with trio_ipc.open_client(d.DETECTION): pass\n"
        "        except trio_ipc.ServerNotFoundError as exc: print('asked')\n"
        "trio.run(main)\n"
    )
    nobody = r"\\.\pipe\trio-ipc-nobody" if sys.platform == "win32" else str(tmp_path / "s.sock")
    environ = {**os.environ, **KUBERNETES, "TRIO_IPC_ENDPOINT_PATH": nobody}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert run.stdout == "asked\nasked\n"
    assert len(run.stderr.splitlines()) == 1
    assert "TRIO_IPC_SERVICE_HOST" in run.stderr
    attack(
        "the variables of a Kubernetes service called `trio-ipc` in a program's environment",
        tried=1,
        outcome="one warning that names all of them, and the program goes on",
    )


# --- Several endpoints in one process -----------------------------------------------------------------------


def test_two_endpoints_are_configured_by_two_prefixes_and_two_tables(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "[ipc]\nmax_connections = 1\nread_timeout_ms = 1\n"
        "[audit.ipc]\nmax_connections = 2\nread_timeout_ms = 2\n",
    )
    environ = {"TRIO_IPC_READ_TIMEOUT_MS": "3", "AUDIT_IPC_READ_TIMEOUT_MS": "4"}
    first = IpcConfig.load(file, environ=environ, strict=True)
    second = IpcConfig.load(file, environ=environ, prefix="AUDIT_IPC_", table="audit.ipc", strict=True)
    assert (first.max_connections, first.read_timeout_ms) == (1, 3)
    assert (second.max_connections, second.read_timeout_ms) == (2, 4)


def test_errors_and_warnings_name_the_prefix_and_the_table(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = written(tmp_path, "[audit]\nread_timeout_ms = 0\n")
    with pytest.raises(ConfigError, match=r"it was set by table \[audit\]"):
        IpcConfig.load(file, environ={}, table="audit")
    with pytest.raises(ConfigError, match="it was set by environment variable AUDIT_MAX_CONNECTIONS"):
        IpcConfig.load(environ={"AUDIT_MAX_CONNECTIONS": "0"}, prefix="AUDIT_")
    IpcConfig.load(environ={"AUDIT_MAX_CONECTIONS": "0"}, prefix="AUDIT_")
    assert "AUDIT_MAX_CONECTIONS (did you mean AUDIT_MAX_CONNECTIONS?)" in caplog.text


def test_the_two_classes_do_not_read_each_others_variables_or_tables(tmp_path: Path) -> None:
    file = written(tmp_path, "[ipc]\nmax_connections = 1\n[ipc.resilient]\nmax_connections = 2\n")
    environ = {"TRIO_IPC_READ_TIMEOUT_MS": "3", "TRIO_IPC_RESILIENT_MAX_IN_FLIGHT": "4"}
    assert IpcConfig.load(file, environ=environ, strict=True) == IpcConfig(
        max_connections=1, read_timeout_ms=3
    )
    assert ResilientConfig.load(file, environ=environ, strict=True) == ResilientConfig(
        max_connections=2, max_in_flight=4
    )


@pytest.mark.parametrize("prefix", ["", "A=", "\0"])
def test_a_prefix_that_no_variable_can_have_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match="prefix is .*, must be how variables begin, such as TRIO_IPC_"):
        IpcConfig.load(environ={}, prefix=prefix)


@pytest.mark.parametrize("table", ["", ".", "ipc.", ".ipc", "a..b"])
def test_a_table_without_a_name_is_refused(table: str) -> None:
    with pytest.raises(ConfigError, match="table is .*, must be the name of a table, such as ipc"):
        IpcConfig.load(environ={}, table=table)


@pytest.mark.parametrize("wrong", [1, b"x", ["x"]])
def test_a_prefix_and_a_table_are_strings(wrong: Any) -> None:
    with pytest.raises(TypeError, match="prefix is .*, must be a string or None"):
        IpcConfig.load(environ={}, prefix=wrong)
    with pytest.raises(TypeError, match="table is .*, must be a string or None"):
        IpcConfig.load(environ={}, table=wrong)


@pytest.mark.parametrize("wrong", [1, True, ["x"], {"max_connections": 2}])
def test_a_file_is_a_path(wrong: Any) -> None:
    with pytest.raises(TypeError, match="file is .*, must be the path of a TOML file or None"):
        IpcConfig.load(wrong, environ={})


@pytest.mark.parametrize("wrong", [1, "TRIO_IPC_X", [("a", "b")]])
def test_an_environment_and_defaults_are_mappings(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"environ is .*, must be a mapping \(.*\) or None"):
        IpcConfig.load(environ=wrong)
    with pytest.raises(TypeError, match=r"defaults is .*, must be a mapping \(.*\) or None"):
        IpcConfig.load(environ={}, defaults=wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"TRIO_IPC_MAX_CONNECTIONS": 2}, "'TRIO_IPC_MAX_CONNECTIONS' with a int"),
        ({b"TRIO_IPC_TRANSPORT": b"secret"}, "b'TRIO_IPC_TRANSPORT' with a bytes"),
    ],
)
def test_an_environment_has_strings(wrong: Any, said: str) -> None:
    with pytest.raises(TypeError, match=f"environ has {said}, must have strings by strings"):
        IpcConfig.load(environ=wrong)


def test_a_default_whose_name_is_none_is_no_setting() -> None:
    with pytest.raises(ConfigError, match="there is no setting 1 "):
        IpcConfig.load(environ={}, defaults={1: 2})  # type: ignore[dict-item]


# --- Files --------------------------------------------------------------------------------------------------


def test_other_tables_of_a_file_are_left_alone_and_those_within_the_table_too(tmp_path: Path) -> None:
    file = written(tmp_path, "[agent]\ninterval = 5\n[ipc]\nmax_connections = 2\n[ipc.other]\nx = 1\n")
    assert IpcConfig.load(file, environ={}) == IpcConfig(max_connections=2)
    assert ResilientConfig.load(file, environ={}) == ResilientConfig()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[ipc", "is not valid TOML"),
        (b"\xff", "is not valid TOML"),
        (b"ipc = 1", r"ipc in .* is 1, must be a table \[ipc\]"),
        (b"[ipc.max_connections]\nx = 1", r"max_connections is {'x': 1}, must be a whole number"),
        (b"a = " + b"[" * 50_000, "is not valid TOML"),
        (f"[ipc]\nmax_connections = {DIGITS}".encode(), "has a number that is too long to be read"),
        (f"[agent]\nx = [{DIGITS}]".encode(), "has a number that is too long to be read"),
    ],
    ids=["cut", "no UTF-8", "no table", "table", "deep", "long number", "long number elsewhere"],
)
def test_a_file_that_makes_no_sense_is_refused_by_its_name(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=problem) as caught:
        IpcConfig.load(file, environ={})
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["none.toml", "a\0b"])
def test_a_file_that_is_not_there_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration file .*(none\.toml: No such|null)"):
        IpcConfig.load(tmp_path / name, environ={})


def test_a_byte_order_mark_of_an_editor_is_no_part_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(b"\xef\xbb\xbf[ipc]\r\nmax_connections = 2\r\n")
    assert IpcConfig.load(file, environ={}).max_connections == 2


@unix_only
def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="/dev/zero is larger than 16,777,216 bytes"):
        IpcConfig.load("/dev/zero", environ={})
