"""Users and groups as operators write them: what is a number, and what is none."""

from __future__ import annotations

import pytest

from tests.platforms import unix_only
from trio_ipc import ConfigError
from trio_ipc.transports import accounts

LARGEST = 4_294_967_294


@pytest.mark.parametrize(
    ("account", "number"),
    [
        (0, 0),
        (1000, 1000),
        (LARGEST, LARGEST),
        ("0", 0),
        (str(LARGEST), LARGEST),
        ("00000000007", 7),
        (-1, None),
        (LARGEST + 1, None),
        (str(LARGEST + 1), None),
        ("000000000007", None),
        ("9" * 5_000, None),
        (True, None),
        (1.0, None),
        ("", None),
        ("-1", None),
        ("1_0", None),
        ("\u0663", None),
        (None, None),
    ],
)
def test_what_is_a_number_of_an_account(account: object, number: int | None) -> None:
    assert accounts.number_of(account) == number


@unix_only
def test_names_are_looked_up_and_what_is_nobody_is_refused() -> None:
    assert (accounts.uid_of("root"), accounts.uid_of(7), accounts.uid_of("7")) == (0, 7, 7)
    assert (accounts.gid_of(7), accounts.gid_of("7")) == (7, 7)
    for account in ("", "no-such-account", "a\0b", 1.5, None, -1):
        with pytest.raises(ConfigError, match=r"is no user of this system; give a user's name or its number"):
            accounts.uid_of(account)
        with pytest.raises(ConfigError, match=r"is no group of this system; give .* from 0 to 4294967294"):
            accounts.gid_of(account)


@unix_only
def test_names_of_numbers_where_there_are_any() -> None:
    assert accounts.user_name(0) == "root"
    assert accounts.group_name(0) is not None
    for name_of in (accounts.user_name, accounts.group_name):
        assert name_of(None) is None
        assert name_of(LARGEST) is None
