"""Which peers are allowed.

This module must never admit a peer whose user the system does not really know, unless the policy says that
anyone may come, and never take a name for somebody else's.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from typing import Final, NamedTuple, Self

import attrs

from trio_ipc.errors import ConfigError
from trio_ipc.transports.credentials import SYSTEM, PeerCredentials

if sys.platform == "win32":
    from trio_ipc.transports.credentials import user_of
    from trio_ipc.transports.windows import accounts, win32
else:
    from trio_ipc.transports import accounts
    from trio_ipc.transports.user_namespace import hidden_gid, hidden_uid, hidden_words

#: The descriptor language's name for everyone who has logged on: neither guests nor the anonymous.
_LOGGED_ON: Final = "AU"

#: All that GENERIC_READ and GENERIC_WRITE mean, less FILE_CREATE_PIPE_INSTANCE: to connect, and not to serve.
_MAY_CONNECT: Final = "0x12019b"

_SID_FORM: Final = re.compile(r"S-1(-[0-9]+){2,16}", re.ASCII)


class Verdict(NamedTuple):
    """What a policy says of one peer.

    Attributes:
        allowed: whether it is allowed.
        peer: who it is, with what else was looked at, for people.
        by: which part of the policy let it in, such as ``user 0`` or ``group 27``; empty if none did.
    """

    allowed: bool
    peer: str
    by: str = ""


@attrs.frozen
class PeerPolicy:
    """Which users may be at the other end.

    Make one with :meth:`own_user_and_root`, :meth:`users`, :meth:`group` or :meth:`anyone`, and narrow it
    with :meth:`running`. What decides are numbers (user and group ids), on Windows security identifiers.

    Attributes:
        allowed: the users that are allowed, or None for anyone at all.
        groups: ids of the groups whose members are allowed as well.
        executables: paths of the programs of which the peer must run one, or None for any program.
    """

    allowed: frozenset[int | str] | None
    groups: frozenset[int] = frozenset()
    executables: frozenset[str] | None = None

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
        """Allow exactly these users.

        Args:
            users: a list of user ids, as numbers or digits, and of user names, which are looked up now, by
                whatever this system keeps its users in (getpwnam(3)). On Windows, a list of security
                identifiers of users.

        Raises:
            ConfigError: it is a single string and no list; or one of them is no user of this system, or
                somebody who can't be told from others in this user namespace.
        """
        if isinstance(users, (str, bytes)) or not isinstance(users, Iterable):
            raise ConfigError(
                f"PeerPolicy.users() was given {users!r}, must be a list of users",
                hint="PeerPolicy.users([...]), also for one of them",
            )
        return cls(frozenset(_user(user) for user in users))

    @classmethod
    def group(cls, group: int | str) -> Self:
        """Allow what :meth:`own_user_and_root` does, and every member of a group.

        Members are whom the kernel tells as such when they connect, by their group or one of their
        supplementary groups (on Linux before 4.13 by their group alone). On a server this goes with
        ``IpcConfig.socket_group``, by which they reach the socket, and is its default then. On a client it
        would trust any member to be the server; name the server's user there.

        Args:
            group: its id, as a number or digits, or its name, which is looked up now (getgrnam(3)).

        Raises:
            ConfigError: it is no group of this system; or this is Windows, where a policy names users.
        """
        if sys.platform == "win32":
            raise ConfigError(
                f"PeerPolicy.group() was given {group!r}, but groups are judged on Unix only",
                hint="name the users: PeerPolicy.users(['S-1-5-21-...'])",
            )
        else:  # noqa: RET506 - so that mypy looks at one of them only
            gid = accounts.gid_of(group)
            if gid == hidden_gid():
                raise ConfigError(f"the PeerPolicy allows {hidden_words('gid', gid)}", hint="name another")
            return cls(frozenset({os.geteuid(), 0}), frozenset({gid}))

    @classmethod
    def anyone(cls) -> Self:
        """Allow every peer; the endpoint's own permissions are then the only control.

        A Unix socket is its owner's and root's alone, and its ``socket_group``'s where it has one. A Windows
        pipe admits every user who has logged on.
        """
        return cls(None)

    @classmethod
    def of(cls, policy: PeerPolicy | None, *, group: int | str | None = None) -> PeerPolicy:
        """Return the policy, or the default one for None.

        Args:
            policy: what a caller gave.
            group: the group that the default allows besides; only for servers.

        Raises:
            TypeError: it is something else.
            ConfigError: there is no such group.
        """
        if policy is None:
            return cls.own_user_and_root() if group is None else cls.group(group)
        if not isinstance(policy, PeerPolicy):
            raise TypeError(f"peers is a {type(policy).__name__}, must be a PeerPolicy")
        return policy

    def running(self, *executables: str | os.PathLike[str]) -> Self:
        """Return this policy narrowed to peers that run one of these programs.

        Both are compared as files (device and number) at the moment of connecting, of the very process that
        made the connection. Where that can't be told, the peer is refused: on Linux before 6.5, on other
        systems, of a process that has ended, or of one that this process may not look into, as another
        user's is to all but root. After an upgrade, who runs the former program is refused until it starts
        the new one.

        It keeps out the wrong program, not a hostile user: one who may start the right program can also bend
        it to their will, or run it after having connected. For a script, the program is its interpreter.

        Args:
            executables: absolute paths.

        Raises:
            ConfigError: none was given, or one is no absolute path.
        """
        paths = frozenset(os.fspath(path) for path in executables)
        wrong = sorted(repr(path) for path in paths if not os.path.isabs(path))
        if wrong or not paths:
            raise ConfigError(
                f"PeerPolicy.running() was given {', '.join(wrong) or 'nothing'}, must be absolute paths of "
                "programs",
                hint="PeerPolicy.own_user_and_root().running('/usr/bin/agent')",
            )
        return attrs.evolve(self, executables=paths)

    def allows(self, peer: PeerCredentials | None) -> bool:
        """Return whether this peer is allowed. One whose user is not known never is, except by anyone."""
        return self.judge(peer).allowed

    def judge(self, peer: PeerCredentials | None) -> Verdict:
        """Say whether this peer is allowed, and by what."""
        by = self._user_allowed_by(peer)
        if self.executables is None or not by:
            return Verdict(bool(by), str(peer), by)
        running = None if peer is None else peer.executable()
        if running is None:
            return Verdict(False, f"{peer}, whose program cannot be told")
        allowed = running.file in {_file_at(path) for path in self.executables}
        return Verdict(allowed, f"{peer}, running {running}", by if allowed else "")

    def said_of(self, verdict: Verdict) -> str:
        """Name an allowed peer, and what let it in where the policy has more than users to go by."""
        return f"{verdict.peer}, allowed as {verdict.by}" if self.groups or self.executables else verdict.peer

    def _user_allowed_by(self, peer: PeerCredentials | None) -> str:
        if self.allowed is None:
            return "anyone"
        if peer is None or peer.user is None:
            return ""
        if peer.user in self.allowed:
            return f"user {peer.user}"
        shared = self.groups & peer.groups
        return f"group {min(shared)}" if shared else ""

    def __str__(self) -> str:
        """Give what is allowed, as the end of "allowed is ..."."""
        if self.allowed is None:
            who = "anyone"
        else:
            who = "user " + " or ".join(sorted(str(user) for user in self.allowed))
        if self.groups:
            who += " or group " + " or ".join(sorted(str(group) for group in self.groups))
        if self.executables is not None:
            who += " running " + " or ".join(sorted(self.executables))
        return who


def _file_at(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


if sys.platform == "win32":

    def _user(user: object) -> str:
        sid = _sid(user)
        kind = accounts.group_kind(sid)
        if kind is not None:
            raise ConfigError(
                f"the PeerPolicy allows {sid}, which is {kind} and no user",
                hint="name its members, as 'whoami /user' does",
            )
        return sid

    def _sid(user: object) -> str:
        if isinstance(user, str) and _SID_FORM.fullmatch(user):
            return user
        raise ConfigError(
            f"the PeerPolicy allows user {user!r}, which is no security identifier",
            hint="name users as 'whoami /user' does, such as S-1-5-18 for SYSTEM",
        )

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

else:

    def _user(user: object) -> int:
        uid = accounts.uid_of(user)
        if uid == hidden_uid():
            raise ConfigError(
                f"the PeerPolicy allows {hidden_words('uid', uid)}",
                hint="run both sides in one user namespace, as users that it maps, and name those",
            )
        return uid
