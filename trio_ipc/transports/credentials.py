"""Who is at the other end, and who may be.

The operating system says who the peer is; nothing that the peer sends is asked. This module must never
admit a peer that it knows nothing about, unless the policy says that anyone may come.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from typing import Final, Self, TypeVar

import attrs

from trio_ipc.errors import ConfigError

if sys.platform == "win32":
    from . import win32

_AnswerT = TypeVar("_AnswerT")

#: Windows' own services ("Well-known SIDs", Local System).
SYSTEM: Final = "S-1-5-18"

#: Owner of what an administrator's processes make, unless they say otherwise ("Well-known SIDs").
_ADMINISTRATORS: Final = "S-1-5-32-544"

#: The descriptor language's name for everyone who has logged on: neither guests nor the anonymous.
_LOGGED_ON: Final = "AU"

#: All that GENERIC_READ and GENERIC_WRITE mean, less FILE_CREATE_PIPE_INSTANCE: to connect, and not to serve.
_MAY_CONNECT: Final = "0x12019b"

_SID_FORM: Final = re.compile(r"S-1(-[0-9]+){2,16}", re.ASCII)

#: struct xucred of <sys/ucred.h>: cr_version, cr_uid, cr_ngroups, cr_groups[0].
_XUCRED: Final = struct.Struct("=IIhxxI60x")


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


def peer_credentials(sock: socket.socket) -> PeerCredentials:
    """Ask the system who is at the other end of a connected Unix socket.

    Returns:
        What it tells: on Linux pid, uid and gid (unix(7), SO_PEERCRED), on macOS and FreeBSD uid and
        gid (unix(4), LOCAL_PEERCRED), elsewhere nothing.
    """
    if hasattr(socket, "SO_PEERCRED"):
        ucred = struct.Struct("iII")
        pid, uid, gid = ucred.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.size))
        # pid 0: the peer lives in a pid namespace that can't be seen from here.
        return PeerCredentials(pid=pid or None, uid=uid, gid=gid)
    if hasattr(socket, "LOCAL_PEERCRED"):
        sol_local = 0
        raw = sock.getsockopt(sol_local, socket.LOCAL_PEERCRED, _XUCRED.size)
        return parse_xucred(raw)
    return PeerCredentials()


def parse_xucred(raw: bytes) -> PeerCredentials:
    """Read the ``struct xucred`` that LOCAL_PEERCRED gives on macOS and FreeBSD (unix(4))."""
    version, uid, groups, gid = _XUCRED.unpack(raw)
    if version != 0 or groups < 1:
        return PeerCredentials()
    return PeerCredentials(uid=uid, gid=gid)


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

    def descriptor_for(peers: PeerPolicy) -> str:
        """Return the descriptor of a pipe that admits those whom a policy allows, and inherits nothing.

        The user of this process and SYSTEM have all rights, whatever the policy: the one must make the pipe's
        instances, the other can do as it likes anyway. Others may connect and not serve. This process's user
        becomes the owner, by which clients know whose pipe it is.

        Returns:
            A string in Microsoft's security descriptor definition language.

        Raises:
            ConfigError: a user of the policy is no security identifier.
        """
        own = user_of(win32.current_process())
        others = {_LOGGED_ON} if peers.allowed is None else {_sid(user) for user in peers.allowed}
        may_connect = sorted(others - {own, SYSTEM})
        return f"O:{own}D:P(A;;GA;;;SY)(A;;GA;;;{own})" + "".join(
            f"(A;;{_MAY_CONNECT};;;{user})" for user in may_connect
        )

    def _sid(user: int | str) -> str:
        if isinstance(user, str) and _SID_FORM.fullmatch(user):
            return user
        raise ConfigError(
            f"the PeerPolicy allows user {user!r}, which is no security identifier",
            hint="name users as 'whoami /user' does, such as S-1-5-18 for SYSTEM",
        )

    def client_of(handle: int) -> PeerCredentials:
        """Return what the system tells about the process that connected. Never raises.

        The descriptor of the pipe is what keeps others out. This is for policies and logs: a process may have
        ended meanwhile, and its number be another's.
        """
        pid = _or_none(win32.client_process_id, handle)
        return PeerCredentials(pid=pid, sid=None if pid is None else _or_none(_user_of_pid, pid))

    def server_of(handle: int) -> PeerCredentials:
        """Return what the system tells about whose pipe this is. Never raises.

        Its owner can be read by every client, also where the process is a service's that others may not look
        into, and none but an administrator can give it to somebody else. Where it is the administrators'
        group, the process tells which of them.
        """
        pid = _or_none(win32.server_process_id, handle)
        sid = _or_none(win32.owner, handle)
        if sid in {None, _ADMINISTRATORS} and pid is not None:
            sid = _or_none(_user_of_pid, pid) or sid
        return PeerCredentials(pid=pid, sid=sid)

    def _user_of_pid(pid: int) -> str:
        process = win32.open_process(pid, win32.PROCESS_QUERY_LIMITED_INFORMATION)
        try:
            return user_of(process)
        finally:
            win32.close_handle(process)

    def _or_none(ask: Callable[[int], _AnswerT], about: int) -> _AnswerT | None:
        try:
            return ask(about)
        except OSError:
            return None
