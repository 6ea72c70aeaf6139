"""What kind of account a security identifier is.

Only a user's identifier can be that of whom a process runs as. This module must never refuse an identifier
that the system cannot place: it may be a user's of a domain that is out of reach.
"""

from __future__ import annotations

import sys
from typing import Final

from trio_ipc.transports.windows import win32

assert sys.platform == "win32", "for Windows only"  # noqa: S101  # mypy skips the rest elsewhere

#: SID_NAME_USE (winnt.h), and what to call them.
_GROUP_KINDS: Final = {2: "a group", 3: "a domain", 4: "a group of this machine", 5: "a well-known group"}

#: Accounts that processes do run as, though the system calls them well-known groups: SYSTEM, the anonymous,
#: LOCAL SERVICE, NETWORK SERVICE ("Well-known SIDs"), and the virtual accounts of services, application
#: pools, virtual machines and window managers.
_ACCOUNTS: Final = frozenset({"S-1-5-18", "S-1-5-7", "S-1-5-19", "S-1-5-20"})
_VIRTUAL_ACCOUNTS: Final = ("S-1-5-80-", "S-1-5-82-", "S-1-5-83-", "S-1-5-90-", "S-1-5-96-")

#: The machine's own groups ("Well-known SIDs", BUILTIN), whatever the system says.
_BUILTIN: Final = "S-1-5-32-"


def group_kind(sid: str) -> str | None:
    """Say what kind of group an identifier is, None for a user's and for one that the system cannot place.

    It may ask a domain's controller, and take as long as that does.
    """
    if sid in _ACCOUNTS or sid.startswith(_VIRTUAL_ACCOUNTS):
        return None
    if sid.startswith(_BUILTIN):
        return _GROUP_KINDS[4]
    try:
        return _GROUP_KINDS.get(win32.sid_name_use(sid))
    except OSError:
        return None
