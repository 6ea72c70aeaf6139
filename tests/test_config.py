from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.platforms import unix_only
from trio_ipc import ConfigError, Crc32Variant, IpcConfig, IpcError, TransportType
from trio_ipc.endpoint import DEFAULT_ENDPOINT, MAX_PATH_BYTES


def test_the_fields_and_defaults_are_the_adrs() -> None:
    assert attrs.asdict(IpcConfig()) == {
        "transport": TransportType.INTERPROCESS,
        "endpoint_path": DEFAULT_ENDPOINT,
        "max_frame_bytes": 1_048_576,
        "accept_timeout_ms": 5_000,
        "read_timeout_ms": 30_000,
        "write_timeout_ms": 10_000,
        "max_connections": 16,
        "socket_group": None,
        "crc32_variant": Crc32Variant.IEEE,
        "handler_timeout_ms": None,
        "shutdown_grace_ms": 5_000,
        "poll_attempts": 75,
    }


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        IpcConfig().max_connections = 1  # type: ignore[misc]


def test_the_handlers_budget_is_the_read_timeout_unless_set() -> None:
    assert IpcConfig(read_timeout_ms=2_000).handler_timeout == 2.0
    assert IpcConfig(read_timeout_ms=2_000, handler_timeout_ms=500).handler_timeout == 0.5


WRONG: list[Any] = [
    ("transport", "carrier-pigeon", 'must be "interprocess" or "legacy"'),
    ("crc32_variant", "crc16", 'must be "ieee" or "castagnoli"'),
    ("endpoint_path", "", "not empty"),
    ("endpoint_path", 7, "must be a string"),
    pytest.param("endpoint_path", "relative.sock", "must be an absolute path", marks=unix_only),
    ("endpoint_path", "/tmp/a\0b", "without NUL"),
    pytest.param("endpoint_path", "/tmp/", "not of a directory", marks=unix_only),
    pytest.param("endpoint_path", "/tmp/..", "not of a directory", marks=unix_only),
    pytest.param(
        "endpoint_path", "/" + "x" * MAX_PATH_BYTES, f"at most {MAX_PATH_BYTES} bytes", marks=unix_only
    ),
    pytest.param(
        "endpoint_path",
        "/" + "ü" * (MAX_PATH_BYTES // 2 + 1),
        f"at most {MAX_PATH_BYTES} bytes",
        marks=unix_only,
    ),
    pytest.param("endpoint_path", "/tmp/\ud800", "encoding (utf-8) can write", marks=unix_only),
    ("max_frame_bytes", 0, "a whole number of bytes from 1 to 2147483647"),
    ("max_frame_bytes", 2**31, "a whole number of bytes from 1 to 2147483647"),
    ("accept_timeout_ms", 0, "a whole number of milliseconds from 1"),
    ("read_timeout_ms", -1, "a whole number of milliseconds from 1"),
    ("write_timeout_ms", 1.5, "a whole number of milliseconds"),
    ("max_connections", "16", "a whole number of connections"),
    ("max_connections", True, "a whole number of connections"),
    ("handler_timeout_ms", 0, "a whole number of milliseconds from 1"),
    ("shutdown_grace_ms", -1, "a whole number of milliseconds from 0"),
]


@pytest.mark.parametrize(("field", "value", "allowed"), WRONG)
def test_a_wrong_value_is_one_error_that_names_field_value_and_what_is_allowed(
    field: str, value: Any, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        IpcConfig(**{field: value})
    assert field in str(caught.value)
    assert repr(value) in str(caught.value)
    assert allowed in str(caught.value)
    assert isinstance(caught.value, IpcError)


@unix_only
def test_a_path_object_is_a_path() -> None:
    assert IpcConfig(endpoint_path=Path("/run/x.sock")).endpoint_path == "/run/x.sock"


@unix_only
def test_a_path_of_exactly_the_limit_is_good() -> None:
    path = "/" + "x" * (MAX_PATH_BYTES - 1)
    assert IpcConfig(endpoint_path=path).endpoint_path == path


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    file = tmp_path / "settings.toml"
    file.write_text('ipc.transport = "interprocess"\nipc.max_connections = 2\nipc.read_timeout_ms = 2\n')
    return file


def test_a_file_goes_over_keywords_and_the_environment_over_the_file(toml: Path) -> None:
    environ = {"TRIO_IPC_READ_TIMEOUT_MS": "3", "TRIO_IPC_CRC32_VARIANT": "castagnoli", "PATH": "/bin"}
    config = IpcConfig.load(toml, environ=environ, write_timeout_ms=1, max_connections=1, read_timeout_ms=1)
    assert config == IpcConfig(
        write_timeout_ms=1, max_connections=2, read_timeout_ms=3, crc32_variant=Crc32Variant.CASTAGNOLI
    )


def test_the_process_environment_is_read_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIO_IPC_MAX_CONNECTIONS", "3")
    assert IpcConfig.load().max_connections == 3
    assert IpcConfig.load(environ={}).max_connections == 16


def test_an_empty_environment_variable_counts_as_not_set() -> None:
    assert IpcConfig.load(environ={"TRIO_IPC_MAX_CONNECTIONS": ""}) == IpcConfig()


@pytest.mark.parametrize(
    ("name", "value"), [("MAX_CONNECTIONS", "many"), ("MAX_CONNECTIONS", "1.5"), ("MAX_CONNECTIONS", "1_0")]
)
def test_a_number_in_the_environment_must_be_one(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"max_connections is '{value}', must be a whole number"):
        IpcConfig.load(environ={"TRIO_IPC_MAX_CONNECTIONS": value})


def test_a_wrong_value_is_traced_to_where_it_was_set(toml: Path) -> None:
    toml.write_text("[ipc]\nread_timeout_ms = 0\n")
    with pytest.raises(ConfigError, match=rf"it was set by table \[ipc\] of {re.escape(str(toml))}"):
        IpcConfig.load(toml, environ={})
    with pytest.raises(ConfigError, match="it was set by environment variable TRIO_IPC_TRANSPORT"):
        IpcConfig.load(environ={"TRIO_IPC_TRANSPORT": "x"})
    with pytest.raises(ConfigError, match="it was set by a keyword"):
        IpcConfig.load(environ={}, transport="x")


def test_an_unknown_setting_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[ipc]\nread_timeout = 5\n")
    with pytest.raises(ConfigError, match=r"'read_timeout' \(table \[ipc\].*did you mean read_timeout_ms"):
        IpcConfig.load(file, environ={})
    with pytest.raises(ConfigError, match=r"'TRIO_IPC_BOGUS' \(an environment variable"):
        IpcConfig.load(environ={"TRIO_IPC_BOGUS": "1"})
    with pytest.raises(ConfigError, match="did you mean TRIO_IPC_MAX_CONNECTIONS"):
        IpcConfig.load(environ={"TRIO_IPC_MAX_conNECTIONS": "1"})
    with pytest.raises(ConfigError, match=r"'bogus' \(a keyword"):
        IpcConfig.load(environ={}, bogus=1)
    with pytest.raises(ConfigError, match=r"'bogus' \(a keyword"):
        IpcConfig().replace(bogus=1)


def test_other_tables_of_a_file_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[agent]\ninterval = 5\n")
    assert IpcConfig.load(file, environ={}) == IpcConfig()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[ipc", "is not valid TOML"),
        (b"x=" + b"[" * 100_000, "is not valid TOML"),
        (b"\xff", "is not valid TOML"),
        (b"ipc = 1", "must be a table"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_its_name(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=problem) as caught:
        IpcConfig.load(file, environ={})
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration file .*none.toml: No such file"):
        IpcConfig.load(tmp_path / "none.toml", environ={})


def test_a_copy_with_changes_is_checked_like_a_new_one() -> None:
    assert IpcConfig().replace(max_connections=2).max_connections == 2
    with pytest.raises(ConfigError, match="max_connections is 0"):
        IpcConfig().replace(max_connections=0)
