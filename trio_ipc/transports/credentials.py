"""The credentials of a peer.

The operating system reports them; nothing that the peer sends is used. :mod:`.policy` decides which are
allowed. This module must never name a user whom the system does not really know.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import Final, Self, TypeVar

import attrs

from trio_ipc.transports.peer_process import Executable, PeerProcess
from trio_ipc.transports.user_namespace import hidden_gid, hidden_uid, hidden_words

if sys.platform == "win32":
    from trio_ipc.transports.windows import win32

_AnswerT = TypeVar("_AnswerT")

#: Windows' own services ("Well-known SIDs", Local System).
SYSTEM: Final = "S-1-5-18"

#: Owner of what an administrator's processes make, unless they say otherwise ("Well-known SIDs").
_ADMINISTRATORS: Final = "S-1-5-32-544"

#: include/uapi/asm-generic/socket.h, since Linux 4.13.
_SO_PEERGROUPS: Final = 59

#: As much as Python asks an option for, which is room for 256 groups.
_LARGEST_OPTION: Final = 1024

#: What the kernel tells instead of an id where there is none (unix(7)).
_NO_ID: Final = 2**32 - 1

#: struct xucred of <sys/ucred.h>: cr_version, cr_uid, cr_ngroups, cr_groups.
_XUCRED: Final = struct.Struct("=IIhxx16I")


@attrs.frozen
class PeerCredentials:
    """The peer's process and user as the system reported them when the connection was made.

    What the platform does not tell is None.

    Attributes:
        pid: process id. A process may have ended, and its number be another's, by the time it is read; ask
            :meth:`still_runs`.
        uid: effective user id. None also where it says nothing: in a user namespace, the number of all who
            have none there.
        gid: effective group id, likewise.
        sid: security identifier of the user, on Windows.
        shown_uid: the number that was shown for a user who is not known; ``uid`` is None then.
        groups: ids of all groups that the peer is in, ``gid`` among them, as far as the system tells.
    """

    pid: int | None = None
    uid: int | None = None
    gid: int | None = None
    sid: str | None = None
    shown_uid: int | None = None
    groups: frozenset[int] = attrs.field(default=frozenset(), eq=False, repr=False)
    _process: PeerProcess = attrs.field(factory=PeerProcess, eq=False, repr=False)

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

    def still_runs(self) -> bool | None:
        """Return whether the process that made the connection runs, so that ``pid`` is still its number.

        On the client's side it is the process that called listen(2), which a server that was started by
        another (systemd's sockets) has not done itself.

        Returns:
            None where nobody can tell, which is so on Linux before 6.5, on other systems, and once the
            connection is closed on this side.
        """
        return self._process.still_runs()

    def executable(self) -> Executable | None:
        """Return the program that this process runs at this moment. ``str()`` of it is its path.

        It is this process's own, and never a later one's with the same id.

        Returns:
            None where that can't be told, as for :meth:`still_runs`; where the process has ended; or where
            this process may not look into it (ptrace(2), PTRACE_MODE_READ_FSCREDS).
        """
        return self._process.executable()

    def __str__(self) -> str:
        """Give the known parts, such as ``process 17, uid 0, gid 0``."""
        named = (("process", self.pid), ("uid", self.uid), ("gid", self.gid), ("sid", self.sid))
        known = [f"{name} {value}" for name, value in named if value is not None]
        if self.shown_uid is not None:
            known.append(hidden_words("uid", self.shown_uid))
        return ", ".join(known) or "unknown"


def peer_credentials(sock: socket.socket) -> PeerCredentials:
    """Ask the system who is at the other end of a connected Unix socket.

    Returns:
        What it tells: on Linux pid, uid, gid and groups (unix(7), SO_PEERCRED), on macOS and FreeBSD uid, gid
        and groups (unix(4), LOCAL_PEERCRED), elsewhere nothing.
    """
    if sys.platform == "linux":
        ucred = struct.Struct("iII")
        pid, uid, gid = ucred.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.size))
        gids = {gid, *_supplementary_groups(sock)}
        # Nobody but root itself could make 0 stand for others, and root's peers need not wait for two files.
        hidden = hidden_uid() if uid else None
        no_uid, no_gid = {_NO_ID, hidden}, {_NO_ID, hidden_gid() if gids != {0} else None}
        return PeerCredentials(
            # pid 0: the peer lives in a pid namespace that can't be seen from here.
            pid=pid or None,
            uid=None if uid in no_uid else uid,
            gid=None if gid in no_gid else gid,
            shown_uid=uid if uid == hidden else None,
            groups=frozenset(gids - no_gid),
            process=PeerProcess(sock),
        )
    if hasattr(socket, "LOCAL_PEERCRED"):
        sol_local = 0
        raw = sock.getsockopt(sol_local, socket.LOCAL_PEERCRED, _XUCRED.size)
        return parse_xucred(raw)
    return PeerCredentials()


def _supplementary_groups(sock: socket.socket) -> tuple[int, ...]:
    """Return what Linux tells, from 4.13 on: as they were when the connection was made."""
    if sys.platform != "linux":
        return ()
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _LARGEST_OPTION)
    except OSError:
        return ()  # an older kernel, or more groups than there is room for
    return struct.unpack(f"{len(raw) // 4}I", raw)


def parse_xucred(raw: bytes) -> PeerCredentials:
    """Read the ``struct xucred`` that LOCAL_PEERCRED gives on macOS and FreeBSD (unix(4))."""
    version, uid, count, *groups = _XUCRED.unpack(raw)
    if version != 0 or not 1 <= count <= len(groups):
        return PeerCredentials()
    return PeerCredentials(uid=uid, gid=groups[0], groups=frozenset(groups[:count]))


if sys.platform == "win32":

    def user_of(process: int) -> str:
        """Return the security identifier of a process's user, by a handle of the process.

        Raises:
            OSError: the system does not tell.
        """
        return _user_of_token(win32.open_process_token(process))

    def _user_of_token(token: int) -> str:
        try:
            return win32.token_user(token)
        finally:
            win32.close_handle(token)

    def client_of(handle: int) -> PeerCredentials:
        """Return what the system tells about who connected. Never raises.

        A client lends its token for this, which takes no privilege to read and is nobody else's. Where it has
        not, its process is asked; that may have ended meanwhile, and its number be another's. The descriptor
        of the pipe is what keeps others out.
        """
        pid = _or_none(win32.client_process_id, handle)
        sid = _or_none(_user_of_client, handle)
        if sid is None and pid is not None:
            sid = _or_none(_user_of_pid, pid)
        return PeerCredentials(pid=pid, sid=sid)

    def _user_of_client(handle: int) -> str:
        return _user_of_token(win32.open_client_token(handle))

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
