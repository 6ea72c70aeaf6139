"""Listening sockets that somebody else opened: systemd, a parent process, or the program itself with Trio.

Each is judged before it is served on: what it is, and who can reach or replace it. The file at its path is
its maker's and stays. This module must never close what it refuses.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
from typing import Final

import trio

from trio_ipc.endpoint import socket_path_problem
from trio_ipc.errors import ConfigError, EndpointError, EndpointUnsafeError, shown
from trio_ipc.logs import Log
from trio_ipc.transports import accounts, forks, unix_paths
from trio_ipc.transports.detach import Detached
from trio_ipc.transports.user_namespace import hidden_uid

assert sys.platform != "win32", "for Unix only"  # noqa: S101  # mypy skips the rest elsewhere

_log = Log(__name__)

#: The largest number that a descriptor can have: it is an int of C.
_LARGEST_FD: Final = 2**31 - 1

#: A user who may write a socket may connect to it (unix(7)). The other bits say nothing.
_MAY_CONNECT: Final = stat.S_IWGRP | stat.S_IWOTH


def inherited(fd: int, *, most: int, group: int | str | None = None) -> Detached:
    """Judge a listening socket by its descriptor, and take it over; see :func:`inherited_unix_listener`.

    Args:
        fd: the descriptor.
        most: permissions that the socket may have.
        group: id or name of the group that they are for; None for any.

    Raises:
        TypeError, ConfigError, EndpointError: as that function does, and for a group that there is not.
    """
    if not _is_number(fd):
        raise TypeError(f"fd must be the number of a descriptor, not {shown(fd)}")
    if not 0 <= fd <= _LARGEST_FD:
        raise ConfigError(f"fd is {shown(fd)}, must be the number of a descriptor, from 0 to {_LARGEST_FD}")
    gid = None if group is None else accounts.gid_of(group)
    sock = _socket_of(fd)
    try:
        _check_kind(sock)
        endpoint = _path_of(sock)
        inode = _judged(endpoint, most, gid)
        return _taken_over(sock, endpoint, inode)
    except BaseException:
        sock.detach()
        raise


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def give_back(detached: Detached) -> None:
    """Leave a socket that was taken over to the one who gave its descriptor."""
    detached.socket.detach()


def of_trio(listener: trio.SocketListener) -> Detached:
    """Take over the socket of a listener of Trio's, which cannot be used by itself any more.

    Raises:
        TypeError: it is no Unix socket with a path.
    """
    theirs = listener.socket
    if theirs.family != socket.AF_UNIX:
        raise TypeError(
            f"the SocketListener has a socket of family {_name_of(theirs.family)}, must be a Unix socket: "
            "no network here"
        )
    try:
        endpoint = theirs.getsockname()
    except OSError as exc:
        raise TypeError(f"the socket of the SocketListener cannot be used: {exc.strerror}") from exc
    if not isinstance(endpoint, str) or not endpoint:
        raise TypeError(
            f"the SocketListener has the abstract socket {shown(endpoint)}, must be one with a path: an "
            "abstract one has neither owner nor mode, and any user could take its name"
        )
    sock = socket.socket(fileno=theirs.detach())
    return _taken_over(sock, endpoint, _inode_at(endpoint))


def _taken_over(sock: socket.socket, endpoint: str, inode: tuple[int, int] | None) -> Detached:
    sock.set_inheritable(False)
    sock.setblocking(False)
    detached = Detached(endpoint=endpoint, socket=sock, inode=inode, ours=False)
    forks.keep_from_children(sock)
    return detached


# --- What it is ---------------------------------------------------------------------------------------------


def _socket_of(fd: int) -> socket.socket:
    try:
        mode = os.fstat(fd).st_mode
    except OSError as exc:
        raise EndpointError(
            f"descriptor {fd} is not open ({exc.strerror})",
            hint="see which one the socket was passed as: systemd begins at 3",
        ) from exc
    if not stat.S_ISSOCK(mode):
        raise EndpointError(f"descriptor {fd} is no socket", hint="pass a listening Unix socket")
    try:
        return socket.socket(fileno=fd)
    except OSError as exc:
        raise EndpointError(f"descriptor {fd} cannot be used: {exc.strerror}") from exc


def _check_kind(sock: socket.socket) -> None:
    found = None
    if sock.family != socket.AF_UNIX:
        found = f"a socket of the family {_name_of(sock.family)}"
    elif sock.type != socket.SOCK_STREAM:
        found = f"a Unix socket of the type {_name_of(sock.type)}"
    elif not _listens(sock):
        found = "a Unix stream socket that does not listen"
    if found is not None:
        raise EndpointError(
            f"descriptor {sock.fileno()} is {found}, must be a listening Unix stream socket",
            hint="in a .socket unit: ListenStream= with an absolute path, and Accept=no",
        )


def _listens(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return True  # macOS does not tell (trio.SocketListener); accepting will


def _name_of(constant: int) -> str:
    return str(getattr(constant, "name", constant))


def _path_of(sock: socket.socket) -> str:
    name = sock.getsockname()
    # The system gives an abstract socket's name as bytes that begin with NUL.
    path = name if isinstance(name, str) else "@" + bytes(name[1:]).decode("ascii", "backslashreplace")
    problem = socket_path_problem(path)
    if problem is None:
        return path
    raise EndpointUnsafeError(
        f"the socket of descriptor {sock.fileno()} is at {shown(path)}, must be {problem}",
        hint="bind it there before it is passed on",
    )


# --- Who can reach or replace it ----------------------------------------------------------------------------


def _judged(endpoint: str, most: int, group: int | None) -> tuple[int, int] | None:
    """Judge the file and the way to it; return its device and number, None where it cannot be seen."""
    try:
        found = os.lstat(endpoint)
    except OSError as exc:
        _log_unseen(endpoint, exc)
        return None
    if not stat.S_ISSOCK(found.st_mode):
        raise EndpointUnsafeError(
            "the path does not lead to the socket that was passed, but to another kind of file",
            endpoint=endpoint,
            hint="see who put it there, and have the socket opened again",
        )
    # Before the way, of which a part may be for others to look at: the file was seen.
    _refuse_open(endpoint, found, most)
    _refuse_owners(endpoint, found, most, group)
    try:
        unix_paths.judge(
            endpoint,
            found.st_gid if found.st_mode & stat.S_IWGRP else None,
            others=bool(found.st_mode & stat.S_IWOTH),
        )
    except OSError as exc:
        _log_unseen(endpoint, exc)
    return found.st_dev, found.st_ino


def _log_unseen(endpoint: str, exc: OSError) -> None:
    _log.info(
        "%s cannot be seen from here (%s): who can reach or replace it is not known, each peer is judged",
        endpoint,
        exc.strerror,
        extra={"endpoint": endpoint},
    )


def _refuse_open(endpoint: str, found: os.stat_result, most: int) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if mode & ~most & _MAY_CONNECT:
        raise EndpointUnsafeError(
            f"the socket that was passed has mode {mode:04o}, and may have {most:04o} at most: who may write "
            "it may connect",
            endpoint=endpoint,
            hint="SocketMode=0600 in its .socket unit; or a policy of peers, which then decides alone",
        )


def _refuse_owners(endpoint: str, found: os.stat_result, most: int, group: int | None) -> None:
    """Refuse a file that somebody else could open up, where that matters."""
    if most & stat.S_IWOTH:
        return
    me = os.geteuid()
    if found.st_uid not in {0, me} or found.st_uid == hidden_uid():
        raise EndpointUnsafeError(
            f"the socket that was passed belongs to uid {found.st_uid}, not to uid {me} or root",
            endpoint=endpoint,
            hint="SocketUser= of its .socket unit; or a policy of peers, which then decides alone",
        )
    if group is not None and found.st_mode & stat.S_IWGRP and found.st_gid != group:
        raise EndpointUnsafeError(
            f"the socket that was passed is open to group {found.st_gid}, and the socket_group is {group}",
            endpoint=endpoint,
            hint="SocketGroup= of its .socket unit, or another socket_group",
        )


def _inode_at(endpoint: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(endpoint)
    except OSError:
        return None
    return found.st_dev, found.st_ino
