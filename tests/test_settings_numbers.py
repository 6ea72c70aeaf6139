"""Settings that are numbers, and what is none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.settings_support import (
    BOTH,
    DIGITS,
    Kind,
    written,
)
from trio_ipc import (
    ConfigError,
    Endpoint,
    IpcConfig,
    ResilientConfig,
)
from trio_ipc.client.connecting import check_max_in_flight

TEXTS = [
    *(
        "many",
        "1.5",
        "1_0",
        "1e3",
        "1e400",
        "nan",
        "inf",
        "-inf",
        "True",
        "+5",
        " 5",
        "5 ",
        "5\n",
        "0x10",
        "٣",
    ),
    *("５", "-0x1", "--1", "-", DIGITS, f"-{DIGITS}", "0" * 5_000 + "5"),  # noqa: RUF001 - digits of another script
]


@BOTH
@pytest.mark.parametrize("text", TEXTS, ids=[ascii(text[:8]) for text in TEXTS])
def test_a_number_in_the_environment_must_be_one(kind: Kind, prefix: str, table: str, text: str) -> None:
    with pytest.raises(ConfigError, match=r"max_connections is '.*must be a whole number of connections") as (
        caught
    ):
        kind.load(environ={f"{prefix}MAX_CONNECTIONS": text})
    assert len(str(caught.value)) < 500


@BOTH
@pytest.mark.parametrize("text", ["nan", "inf", "1e400", "1.5", "true", "'5'", "[5]", "0x" + "f" * 5_000])
def test_a_number_in_a_file_must_be_one(
    kind: Kind, prefix: str, table: str, text: str, tmp_path: Path
) -> None:
    file = written(tmp_path, f"[{table}]\nmax_connections = {text}\n")
    with pytest.raises(ConfigError, match="max_connections is .*must be a whole number of connections") as (
        caught
    ):
        kind.load(file, environ={})
    assert len(str(caught.value)) < 500


class Unwritable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Panicking:
    def __repr__(self) -> str:
        raise BaseException("as PyO3 makes of a panic in Rust")  # noqa: TRY002


@BOTH
@pytest.mark.parametrize(
    ("value", "says"),
    [
        (10**5_000, "a number of about 4,983 digits"),
        (-(10**5_000), "a number of about 4,983 digits"),
        ([10**5_000], "a list"),
        ("x" * 5_000, r"xxx\.\.\. \(5,002 characters\)"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (True, "True"),
        (Unwritable(), "an? Unwritable"),
        (Panicking(), "a Panicking"),
    ],
    ids=["huge", "huge below 0", "list", "long", "nan", "inf", "bool", "unwritable", "panicking"],
)
def test_a_number_of_the_programs_own_must_be_one(
    kind: Kind, prefix: str, table: str, value: Any, says: str
) -> None:
    for make in (kind, kind().replace, kind.load):
        with pytest.raises(
            ConfigError, match=f"max_connections is .*{says}, must be a whole number"
        ) as caught:
            make(max_connections=value)
        assert len(str(caught.value)) < 500


HUGE = 10**5_000


@pytest.mark.parametrize(
    "make",
    [
        lambda: IpcConfig(transport=HUGE),  # type: ignore[arg-type]
        lambda: IpcConfig(endpoint_path=HUGE),  # type: ignore[arg-type]
        lambda: IpcConfig(endpoint_path="/" + "x" * 5_000),
        lambda: IpcConfig(socket_group=HUGE),
        lambda: IpcConfig.load(environ={}, bogus=HUGE),
        lambda: ResilientConfig(strategy=HUGE),  # type: ignore[arg-type]
        lambda: Endpoint(IpcConfig(), priority=HUGE),
        lambda: check_max_in_flight(-HUGE),
    ],
)
def test_a_huge_number_is_a_short_error_wherever_it_is_given(make: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert len(str(caught.value)) < 500
