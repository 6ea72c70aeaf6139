"""Users and groups by number or by name, as operators write them.

A name is looked up once, where it is given, so that a wrong one is refused before anything starts. This
module must never take anything for a number that is none.
"""

from __future__ import annotations

import sys
from typing import Final

from trio_ipc.errors import ConfigError, shown

#: The largest id. The number above it means "none" to the system (chown(2)).
_LARGEST_ID: Final = 2**32 - 2


def number_of(account: object) -> int | None:
    """Return the number that an account is given by, in digits or as an int; None if that is no number."""
    if isinstance(account, str) and account.isascii() and account.isdigit() and len(account) < 12:
        account = int(account)
    # bool is an int to Python, never a user to an operator.
    if isinstance(account, int) and not isinstance(account, bool) and 0 <= account <= _LARGEST_ID:
        return account
    return None


if sys.platform != "win32":

    def uid_of(user: object) -> int:
        """Return the id of a user: an int, digits, or a name of this system's (getpwnam(3)).

        Raises:
            ConfigError: it is nothing of these, or there is no such user.
        """
        import pwd  # noqa: PLC0415 - for names only

        number = number_of(user)
        if number is not None:
            return number
        try:
            if isinstance(user, str) and user:
                return pwd.getpwnam(user).pw_uid
        except (KeyError, ValueError, OSError) as exc:
            raise _no_account("user", user, exc) from exc
        raise _no_account("user", user)

    def gid_of(group: object) -> int:
        """Return the id of a group: an int, digits, or a name of this system's (getgrnam(3)).

        Raises:
            ConfigError: it is nothing of these, or there is no such group.
        """
        import grp  # noqa: PLC0415 - for names only

        number = number_of(group)
        if number is not None:
            return number
        try:
            if isinstance(group, str) and group:
                return grp.getgrnam(group).gr_gid
        except (KeyError, ValueError, OSError) as exc:
            raise _no_account("group", group, exc) from exc
        raise _no_account("group", group)

    def first_gid_of(uid: int) -> int:
        """Return the id of a user's primary group (getpwuid(3)); -1, which is none, where it is not known."""
        import pwd  # noqa: PLC0415 - Unix has it

        try:
            return pwd.getpwuid(uid).pw_gid
        except (KeyError, OSError):
            return -1


def user_name(uid: int | None) -> str | None:
    """Return a user's name, None where there is none."""
    if sys.platform == "win32" or uid is None:
        return None
    import pwd  # noqa: PLC0415 - Unix has it

    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return None


def group_name(gid: int | None) -> str | None:
    """Return a group's name, None where there is none."""
    if sys.platform == "win32" or gid is None:
        return None
    import grp  # noqa: PLC0415 - Unix has it

    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OSError):
        return None


def _no_account(kind: str, account: object, cause: Exception | None = None) -> ConfigError:
    why = f" ({cause.strerror})" if isinstance(cause, OSError) else ""
    return ConfigError(
        f"{shown(account)} is no {kind} of this system{why}",
        hint=f"give a {kind}'s name or its number from 0 to {_LARGEST_ID}",
    )
