from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.platforms import unix_only
from trio_ipc import ConfigError, Crc32Variant, IpcConfig, IpcError, TransportType
from trio_ipc.client.connecting import check_max_in_flight
from trio_ipc.endpoint import DEFAULT_ENDPOINT, MAX_PATH_BYTES
from trio_ipc.resilient import Endpoint, ResilientConfig
from trio_ipc.settings import WholeNumber


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
    ("transport", "pigeon", 'must be "interprocess" or "legacy"'),
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


def test_a_copy_with_changes_is_checked_like_a_new_one() -> None:
    assert IpcConfig().replace(max_connections=2).max_connections == 2
    with pytest.raises(ConfigError, match="max_connections is 0"):
        IpcConfig().replace(max_connections=0)


# --- None ---------------------------------------------------------------------------------------------------

#: The numbers that may be left open, and what None means then is in the docstrings.
OPTIONAL = {"IpcConfig.handler_timeout_ms", "ResilientConfig.max_connections"}

NUMBERS = [
    (kind, field.name)
    for kind in (IpcConfig, ResilientConfig)
    for field in attrs.fields(kind)
    if isinstance(field.validator, WholeNumber)
]


@pytest.mark.parametrize(("kind", "field"), NUMBERS, ids=lambda value: getattr(value, "__name__", value))
def test_none_is_no_number_where_one_is_required(kind: Callable[..., object], field: str) -> None:
    if f"{kind.__name__}.{field}" in OPTIONAL:
        assert getattr(kind(**{field: None}), field) is None
        return
    with pytest.raises(ConfigError, match=f"^{field} is None, must be a whole number of .* to 2147483647"):
        kind(**{field: None})


def test_the_numbers_are_all_of_them() -> None:
    assert {f"{kind.__name__}.{field}" for kind, field in NUMBERS} > OPTIONAL
    assert len(NUMBERS) == 8 + 14


def test_a_priority_and_a_number_in_flight_are_required_too() -> None:
    with pytest.raises(ConfigError, match="^priority is None, must be a whole number of ranks"):
        Endpoint(IpcConfig(), priority=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="^max_in_flight is None, must be a whole number"):
        check_max_in_flight(None)
