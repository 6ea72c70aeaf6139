"""Who is at the other end, and who may be.

The operating system says who the peer is; nothing that the peer sends is asked. This module must never
admit a peer that it knows nothing about, unless the policy says that anyone may come.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Self

import attrs


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

    def __str__(self) -> str:
        """Give the known parts, such as ``process 17, uid 0, gid 0``."""
        named = (("process", self.pid), ("uid", self.uid), ("gid", self.gid), ("sid", self.sid))
        return ", ".join(f"{name} {value}" for name, value in named if value is not None) or "unknown"


@attrs.frozen
class PeerPolicy:
    """Which users may be at the other end.

    Make one with :meth:`own_user_and_root`, :meth:`users` or :meth:`anyone`.

    Attributes:
        uids: the user ids that are allowed, or None for anyone at all.
    """

    uids: frozenset[int] | None

    @classmethod
    def own_user_and_root(cls) -> Self:
        """Allow the effective user of this process, and root, who can do as it likes anyway."""
        return cls(frozenset({os.geteuid(), 0}))

    @classmethod
    def users(cls, uids: Iterable[int]) -> Self:
        """Allow exactly these user ids."""
        return cls(frozenset(uids))

    @classmethod
    def anyone(cls) -> Self:
        """Allow every peer; the directory's and the socket's modes are then the only control."""
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
        return self.uids is None or (peer is not None and peer.uid in self.uids)

    def __str__(self) -> str:
        """Give what is allowed, as the end of "allowed is ..."."""
        if self.uids is None:
            return "anyone"
        return "uid " + " or ".join(str(uid) for uid in sorted(self.uids))
