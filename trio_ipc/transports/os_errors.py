"""What a user is told where the system refuses an endpoint.

Both transports tell it in the same words, so these are here once. This module only makes exceptions of what
its callers have found out: it must never open, wait or change anything. Whether a refusal is one, and what
to do about it, they decide.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
import sys
from typing import Final

from trio_ipc.errors import (
    ConnectError,
    EndpointError,
    EndpointInUseError,
    EndpointPermissionError,
    EndpointUnsafeError,
    OutOfResourcesError,
    ServerNotFoundError,
    ServerRefusedError,
)

if sys.platform == "win32":
    from trio_ipc.transports.windows import win32

    #: What a client may run out of when it opens a pipe ("System Error Codes"): none of it is the server's.
    _OUT_OF_RESOURCES: Final = frozenset(
        {
            win32.ERROR_TOO_MANY_OPEN_FILES,
            win32.ERROR_NOT_ENOUGH_MEMORY,
            win32.ERROR_OUTOFMEMORY,
            win32.ERROR_NO_SYSTEM_RESOURCES,
            win32.ERROR_NOT_ENOUGH_QUOTA,
        }
    )


def in_use(endpoint: str, pid: int | None) -> EndpointInUseError:
    """Return the error for an endpoint that a live server has, in a process that may be unknown."""
    owner = "another process" if pid is None else f"process {pid}"
    first = "stop it first"
    if pid == 1 and sys.platform == "linux":
        first = "if that is systemd, it listens for a unit (systemctl list-sockets): stop that one first"
    error = EndpointInUseError(
        f"in use by {owner}", endpoint=endpoint, hint=f"{first}, or choose another endpoint_path"
    )
    error.pid = pid
    return error


def left_to_others(endpoint: str, pid: int) -> EndpointInUseError:
    """Return the error for an endpoint whose server has ended, while another process still has its socket."""
    return EndpointInUseError(
        f"in use, and not by its server: process {pid}, which listened, has ended, and another process still "
        "has its socket open, such as one that it forked",
        endpoint=endpoint,
        hint=f"find that one with: ss -xlp src {shlex.quote(endpoint)} (or lsof), and stop it",
    )


def speak_of(what: str, exc: EndpointError, *, instead: str = "") -> None:
    """Put an error's hint in words for somebody who has no settings.

    Args:
        what: what an endpoint was given as, such as ``path``.
        exc: the error, which is changed.
        instead: what else can be done where a server is in the way; may be empty.
    """
    exc.hint = exc.hint.replace("endpoint_path", what)
    if instead and isinstance(exc, EndpointInUseError):
        exc.hint += f", or {instead}"


if sys.platform == "win32":

    def connect_error(exc: OSError, endpoint: str) -> ConnectError:
        """Return the error for what opening a pipe as its client failed with."""
        if exc.winerror == win32.ERROR_FILE_NOT_FOUND:
            return ServerNotFoundError(
                "no server: the pipe does not exist",
                endpoint=endpoint,
                hint="start the server, or check the endpoint's name on both sides",
            )
        if exc.winerror == win32.ERROR_ACCESS_DENIED:
            return EndpointPermissionError(
                "permission denied",
                endpoint=endpoint,
                hint="run as the server's user, or have the server's PeerPolicy allow yours",
            )
        if exc.winerror in _OUT_OF_RESOURCES:
            return OutOfResourcesError(
                f"cannot connect: {exc.strerror} (error {exc.winerror})",
                endpoint=endpoint,
                hint="close what is not needed, here or in other programs",
            )
        return ConnectError(
            f"cannot connect: {exc.strerror} (error {exc.winerror})",
            endpoint=endpoint,
            hint="check the endpoint's name",
        )

    def listen_error(exc: OSError, endpoint: str) -> EndpointError:
        """Return the error for what making a pipe that nobody serves failed with."""
        if exc.winerror == win32.ERROR_ACCESS_DENIED:
            return EndpointError(
                "access denied, though nobody listens there",
                endpoint=endpoint,
                hint="stop the clients of the server that had this pipe, "
                "or use a name that this user may create",
            )
        return EndpointError(
            f"cannot listen: {exc.strerror} (error {exc.winerror})",
            endpoint=endpoint,
            hint="check the endpoint's name",
        )

    def no_further_instance(endpoint: str) -> EndpointError:
        """Return the error for a server whose descriptor keeps out the server itself."""
        return EndpointError(
            "this process may not create a further instance of its own pipe",
            endpoint=endpoint,
            hint="let the security descriptor give its user all rights (GA)",
        )

else:
    from trio_ipc.transports.monitor import is_mounted_alone

    _MOUNT_THE_DIRECTORY: Final = (
        "mount its directory instead: a server makes a new file at each start, and the mount goes on showing "
        "the old one"
    )

    def mounted_alone(endpoint: str) -> EndpointError:
        """Return the error for a dead server's socket that can't be removed, since it is a mount."""
        return EndpointError(
            "the socket file is mounted by itself, and so can be neither removed nor made again",
            endpoint=endpoint,
            hint=_MOUNT_THE_DIRECTORY,
        )

    def connect_error(exc: OSError, endpoint: str) -> ConnectError:
        """Return the error for what connect(2) failed with. It looks at what stands at the path."""
        if exc.errno == errno.ENOENT:
            return ServerNotFoundError(
                "no server: the socket does not exist",
                endpoint=endpoint,
                hint="start the server, or check the endpoint's path on both sides; a container sees only "
                "what is mounted into it",
            )
        if exc.errno == errno.ECONNREFUSED and not _may_be_socket(endpoint):
            return ConnectError(
                "cannot connect: there is something else than a socket",
                endpoint=endpoint,
                hint="check the path",
            )
        if exc.errno == errno.ECONNREFUSED and is_mounted_alone(endpoint):
            return ServerRefusedError(
                "connection refused: nobody listens at this socket file, which is mounted by itself",
                endpoint=endpoint,
                hint=_MOUNT_THE_DIRECTORY,
            )
        if exc.errno == errno.ECONNREFUSED:
            return ServerRefusedError(
                "connection refused: nobody listens at this socket",
                endpoint=endpoint,
                hint="its server has ended or is stopping, or it uses another file by now: start it again",
            )
        if exc.errno == errno.EPROTOTYPE:
            return ConnectError(
                "cannot connect: the socket is of another kind, such as for datagrams",
                endpoint=endpoint,
                hint="check the path, or use another one",
            )
        if exc.errno in {errno.EACCES, errno.EPERM}:
            return EndpointPermissionError(
                f"permission denied to uid {os.geteuid()}",
                endpoint=endpoint,
                hint="run as the server's user, or as a member of its socket_group where it has one",
            )
        if exc.errno in {errno.EMFILE, errno.ENFILE}:
            return OutOfResourcesError(
                f"cannot connect: {exc.strerror}",
                endpoint=endpoint,
                hint="close what is not needed, or raise the limit of descriptors (ulimit -n)",
            )
        if exc.errno in {errno.ENOMEM, errno.ENOBUFS}:
            return OutOfResourcesError(
                f"cannot connect: {exc.strerror}",
                endpoint=endpoint,
                hint="free some memory, or raise the limit of this process (ulimit -a, or its control group)",
            )
        return ConnectError(
            f"cannot connect: {exc.strerror}", endpoint=endpoint, hint="check the endpoint's path"
        )

    def _may_be_socket(path: str) -> bool:
        try:
            return stat.S_ISSOCK(os.stat(path).st_mode)
        except OSError:
            return True  # gone by now: then it refused as a socket does

    def no_socket(endpoint: str, mode: int) -> EndpointUnsafeError:
        """Return the error for a path where a file of this mode stands, which is no socket's."""
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a socket"
        return EndpointUnsafeError(
            f"the path exists and is {kind}; it was not touched",
            endpoint=endpoint,
            hint="choose another endpoint_path, or remove it yourself",
        )

    def another_kind(endpoint: str, reason: str | None) -> EndpointUnsafeError:
        """Return the error for a socket that no client of a stream can try."""
        return EndpointUnsafeError(
            f"the path is a socket of another kind ({reason}); it was not touched",
            endpoint=endpoint,
            hint="choose another endpoint_path, or remove it yourself",
        )

    def too_long(aside: str, endpoint: str, limit: int, instead: str) -> EndpointError:
        """Return the error for a directory in which the socket can't be made aside, for its long name.

        Args:
            aside: where it would be.
            endpoint: where it belongs.
            limit: bytes that a path may have.
            instead: what else can be done than to use a shorter directory; may be empty.
        """
        return EndpointError(
            f"{aside}, where the socket is made, is longer than {limit} bytes",
            endpoint=endpoint,
            hint=f"{instead}use a shorter directory",
        )
