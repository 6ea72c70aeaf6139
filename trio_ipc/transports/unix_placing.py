"""How a socket comes to its path: for its owner alone from its first instant, and then for whom it is meant.

Whether it may is judged by :mod:`.unix_binding`. This module must never give a moment in which somebody
reaches a socket that is not for them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from typing import Final

import attrs

from trio_ipc.endpoint import MAX_PATH_BYTES
from trio_ipc.transports import os_errors, unix_paths

assert sys.platform != "win32", "for Unix only"  # noqa: S101  # mypy skips the rest elsewhere

#: Linux gives a socket file the mode of the unbound socket (unix_bind_bsd() in net/unix/af_unix.c), so
#: that fchmod() before bind() leaves no moment in which it is wider. Other systems ignore that fchmod().
_BIND_HONOURS_FCHMOD: Final = sys.platform == "linux"


@attrs.frozen
class Access:
    """The users who can reach a socket.

    Attributes:
        mode: its permissions.
        group: id of the group that it belongs to, where the mode lets that in.
    """

    mode: int = unix_paths.OWNER_ONLY_SOCKET
    group: int | None = None

    @property
    def others(self) -> bool:
        """Whether all users are let in."""
        return bool(self.mode & stat.S_IRWXO)

    def let_in(self, name: str, directory_fd: int | None = None) -> None:
        """Give a socket file its group and mode, in this order: nobody else can reach it meanwhile."""
        found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        if self.group is not None and found.st_gid != self.group:
            os.chown(name, -1, self.group, dir_fd=directory_fd, follow_symlinks=False)
        if stat.S_IMODE(found.st_mode) != self.mode:
            os.chmod(name, self.mode, dir_fd=directory_fd)


def bind(sock: socket.socket, directory_fd: int, endpoint: str) -> None:
    """Bind a socket to its path, for its owner alone from its first instant.

    Args:
        sock: it is not bound yet.
        directory_fd: the path's directory.
        endpoint: the path, where nothing is.

    Raises:
        EndpointError: there is no room to make it aside, where that is needed.
        OSError: the system refuses.
    """
    if _BIND_HONOURS_FCHMOD:
        os.fchmod(sock.fileno(), unix_paths.OWNER_ONLY_SOCKET)
        sock.bind(endpoint)
    elif not stat.S_IMODE(os.fstat(directory_fd).st_mode) & ~unix_paths.OWNER_ONLY_DIRECTORY:
        sock.bind(endpoint)  # nobody else can pass the directory while the mode is wider
    else:
        _bind_aside(sock, endpoint)


def _bind_aside(sock: socket.socket, endpoint: str) -> None:
    """Bind inside a private directory, narrow the mode there, then move the socket into place.

    Elsewhere than on Linux the mode can only be set after bind(); here nobody sees it before that.
    """
    with private_place(endpoint, instead=f"chmod 700 {os.path.dirname(endpoint)}, or ") as aside:
        sock.bind(aside)
        Access().let_in(aside)
        os.rename(aside, endpoint)


@contextlib.contextmanager
def private_place(endpoint: str, *, instead: str = "") -> Iterator[str]:
    """Give the path of a socket that nobody else can reach, in the endpoint's directory.

    Args:
        endpoint: absolute path of the socket that it becomes.
        instead: what else can be done than to use a shorter directory, for the error.

    Raises:
        EndpointError: it would be too long.
    """
    directory = os.path.dirname(endpoint)
    # What goes wrong in clearing up must not end a server that is in its place by then.
    with tempfile.TemporaryDirectory(prefix=".", dir=directory, ignore_cleanup_errors=True) as private:
        aside = os.path.join(private, "s")
        if len(os.fsencode(aside)) > MAX_PATH_BYTES:
            raise os_errors.too_long(aside, endpoint, MAX_PATH_BYTES, instead)
        yield aside
