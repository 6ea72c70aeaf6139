"""Who is at the other end, and who may be.

The operating system says who the peer is; nothing that the peer sends is asked. This module must never
admit a peer that it knows nothing about, unless the policy says that anyone may come.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Final, Self

import attrs

if sys.platform == "win32":
    from . import win32

#: Windows' own services ("Well-known SIDs", Local System).
SYSTEM: Final = "S-1-5-18"


@attrs.frozen
class PeerCredentials:
    """The peer's process and user as the system reported them when the connection was made.

    What the platform does not tell is None.

    Attributes:
        pid: process id. A process may have ended, and its number be another's, by the time it is read.
        uid: effective user id.
        gid: effective group id.
        sid: security identifier of the user, on Windows.
    """

    pid: int | None = None
    uid: int | None = None
    gid: int | None = None
    sid: str | None = None

    @classmethod
    def of_this_process(cls) -> Self:
        """Return what a peer of this process sees. On Windows that has no uid and gid, elsewhere no sid."""
        if sys.platform == "win32":
            return cls(pid=os.getpid(), sid=user_of(win32.current_process()))
        return cls(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())

    @property
    def user(self) -> int | str | None:
        """What a :class:`PeerPolicy` judges: the user id, on Windows the security identifier."""
        return self.sid if self.uid is None else self.uid

    def __str__(self) -> str:
        """Give the known parts, such as ``process 17, uid 0, gid 0``."""
        named = (("process", self.pid), ("uid", self.uid), ("gid", self.gid), ("sid", self.sid))
        return ", ".join(f"{name} {value}" for name, value in named if value is not None) or "unknown"


@attrs.frozen
class PeerPolicy:
    """Which users may be at the other end.

    Make one with :meth:`own_user_and_root`, :meth:`users` or :meth:`anyone`. A user is a user id, on
    Windows the string of a security identifier.

    Attributes:
        allowed: the users that are allowed, or None for anyone at all.
    """

    allowed: frozenset[int | str] | None

    @classmethod
    def own_user_and_root(cls) -> Self:
        """Allow the effective user of this process, and root, who can do as it likes anyway.

        On Windows that is SYSTEM.
        """
        if sys.platform == "win32":
            return cls(frozenset({user_of(win32.current_process()), SYSTEM}))
        return cls(frozenset({os.geteuid(), 0}))

    @classmethod
    def users(cls, users: Iterable[int | str]) -> Self:
        """Allow exactly these users."""
        return cls(frozenset(users))

    @classmethod
    def anyone(cls) -> Self:
        """Allow every peer; the endpoint's own permissions are then the only control.

        A Unix socket is its owner's and root's alone. A Windows pipe admits every user who has logged on.
        """
        return cls(None)

    @classmethod
    def of(cls, policy: PeerPolicy | None) -> PeerPolicy:
        """Return the policy, or the default one for None.

        Raises:
            TypeError: it is something else.
        """
        if policy is None:
            return cls.own_user_and_root()
        if not isinstance(policy, PeerPolicy):
            raise TypeError(f"peers is a {type(policy).__name__}, must be a PeerPolicy")
        return policy

    def allows(self, peer: PeerCredentials | None) -> bool:
        """Return whether this peer is allowed. One whose user is not known never is, except by anyone."""
        return self.allowed is None or (peer is not None and peer.user in self.allowed)

    def __str__(self) -> str:
        """Give what is allowed, as the end of "allowed is ..."."""
        if self.allowed is None:
            return "anyone"
        return "user " + " or ".join(sorted(str(user) for user in self.allowed))


if sys.platform == "win32":

    def user_of(process: int) -> str:
        """Return the security identifier of a process's user, by a handle of the process.

        Raises:
            OSError: the system does not tell.
        """
        token = win32.open_process_token(process)
        try:
            return win32.token_user(token)
        finally:
            win32.close_handle(token)
