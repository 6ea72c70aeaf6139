"""Unix sockets for any program of Trio's, in the shapes of :func:`trio.open_tcp_listeners` and its kin.

What is done is :mod:`.unix_binding`'s; this module must only judge what it was given, and speak to those who
have no :class:`~trio_ipc.IpcConfig`.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

from trio_ipc.endpoint import socket_path_problem
from trio_ipc.errors import ConfigError, EndpointError, shown
from trio_ipc.transports import (
    os_errors,
    unix,
    unix_binding,
    unix_inheriting,
    unix_listener,
    unix_placing,
)

assert sys.platform != "win32", "for Unix only"  # noqa: S101  # mypy skips the rest elsewhere

_OWNER: int = stat.S_IRUSR | stat.S_IWUSR


async def open_unix_listeners(
    path: str | os.PathLike[str], *, mode: int = 0o600, backlog: int | None = None, replace: bool = False
) -> list[unix_listener.UnixListener]:
    """Create a Unix stream socket, and listen.

    It is its owner's alone from its first instant, whatever the umask, and is opened to those whom ``mode``
    lets in before it listens. Missing directories are created for those who must pass them: with mode 0700,
    0750 or 0755. A directory that somebody else could write or replace is refused. A dead server's socket is
    removed; a live server is left alone, and so is all that is no socket.

    Args:
        path: an absolute path, of 107 bytes at most on Linux and 103 elsewhere (unix(7), unix(4)).
        mode: permissions of the socket. Users who may write it may connect. With a bit for the group, 0o660,
            that is the group that the system gives new files there: this process's effective one, or the
            directory's where that has the set-group-id bit (inode(7)) and on BSD.
        backlog: how many clients may wait to be accepted; None for as many as the system allows.
        replace: whether to take the place of the server that listens there, if one does. The new socket
            listens before it is renamed over the old one, so that no client is ever refused. The old server
            keeps those who have reached it, and should accept until nobody comes any more.

    Returns:
        A list of one listener, for :func:`trio.serve_listeners`. Closing it removes the socket file, if that
        is still its own.

    Raises:
        TypeError: an argument is of a wrong type.
        ConfigError: the path, mode or backlog has a wrong value.
        EndpointInUseError: a server listens there, and ``replace`` is false.
        EndpointUnsafeError: the path is no socket or a symbolic link, or the directory is one or can be
            written or replaced by others.
        EndpointError: the system refuses, who is let in cannot pass the directory, or another starter does
            not let go of it for 5 s.

    Cancellation leaves nothing behind but directories.
    """
    endpoint = _checked(path)
    access = _access(endpoint, mode)
    if backlog is None:
        backlog = unix_binding.LARGEST_BACKLOG
    elif not isinstance(backlog, int):
        raise TypeError(f"backlog must be an int or None, not {backlog!r}")
    elif backlog < 0:
        raise ConfigError(f"backlog is {backlog}, must be at least 0", hint="leave it out for the most")
    try:
        detached = await unix_binding.listening_for(
            access, endpoint, backlog=min(backlog, unix_binding.LARGEST_BACKLOG), replace=replace
        )
    except EndpointError as exc:
        os_errors.speak_of("path", exc, instead="take its place with replace=True")
        raise
    return [unix_listener.UnixListener(detached)]


def inherited_unix_listener(fd: int, *, mode: int = 0o600) -> unix_listener.UnixListener:
    """Take over a listening Unix socket that another process has opened, by the number of its descriptor.

    It is checked: a stream socket at a path, which listens; its mode and owner, and the directories on the
    way to it, by the rules of :func:`open_unix_listeners`. Where the path cannot be seen from here, as in a
    container that was given the socket alone, only the first can be told, and the log says so. Whether the
    file at the path is still this socket's no call tells.

    The socket becomes non-blocking, for everybody who has it, and is kept from programs and children that
    this process starts. Its file stays when the listener is closed, and clients who were not accepted wait
    for the next process with the socket.

    Args:
        fd: the descriptor, which the listener owns from now on. After an error it is the caller's still.
        mode: permissions that the socket may have at most. Users who may write it may connect. With a bit for
            everybody, 0o666, its owner does not matter either.

    Raises:
        TypeError: an argument is of a wrong type.
        ConfigError: it is no number of a descriptor, or no mode.
        EndpointUnsafeError: others may reach or replace it, or it has no path.
        EndpointError: the descriptor is not open, or is no listening Unix stream socket.
    """
    if not isinstance(mode, int):
        raise TypeError(f"mode must be an int, not {shown(mode)}")
    if mode & ~0o777:
        raise ConfigError(f"mode is {mode:#o}, must be from 0 to 0o777", hint="0o600 for its owner alone")
    return unix_listener.UnixListener(unix_inheriting.inherited(fd, most=mode))


async def serve_unix(
    handler: Callable[[unix.UnixStream], Awaitable[object]],
    path: str | os.PathLike[str],
    *,
    mode: int = 0o600,
    backlog: int | None = None,
    replace: bool = False,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[list[unix_listener.UnixListener]] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Listen on a Unix socket, and start ``handler(stream)`` for each client, as :func:`trio.serve_tcp` does.

    ``stream.peer`` says who the client is; :class:`PeerPolicy` judges it. What a handler raises ends the
    server.

    Args:
        handler: an async function of one stream, which is closed after it.
        path: absolute path of the socket, as for :func:`open_unix_listeners`.
        mode: permissions of the socket, likewise.
        backlog: how many clients may wait to be accepted, likewise.
        replace: whether to take the place of the server that listens there, likewise.
        handler_nursery: where handlers run; None for a nursery of this function's own.
        task_status: ``nursery.start`` returns the list of listeners, once clients can connect.

    Raises:
        TypeError, ConfigError, EndpointError: see :func:`open_unix_listeners`.
        OSError: the system does not let this process accept (accept(2)), and it is no shortage. Of a shortage
            it waits 0.1 s, and goes on.

    Cancellation is how it ends: the listener is closed and the socket file removed, if it is still its own.
    """
    listeners = await open_unix_listeners(path, mode=mode, backlog=backlog, replace=replace)
    await trio.serve_listeners(handler, listeners, handler_nursery=handler_nursery, task_status=task_status)


async def open_unix_stream(path: str | os.PathLike[str]) -> unix.UnixStream:
    """Connect to a Unix stream socket. The caller sets the deadline.

    While the server's backlog is full this waits, as long as it may.

    Args:
        path: an absolute path.

    Returns:
        The connected stream. Its ``peer`` is the process that listens; whether that one is to be trusted is
        the caller's decision, for which :meth:`PeerPolicy.allows` is there.

    Raises:
        TypeError: the path is no string.
        ConfigError: no socket can have this path.
        ServerNotFoundError: there is no such file.
        ServerRefusedError: nobody listens.
        EndpointPermissionError: the modes of the socket or its directories forbid it.
        OutOfResourcesError: this process or system lacks descriptors or memory for it.
        ConnectError: any other refusal by the system.

    Cancellation closes the half-made connection.
    """
    return await unix.connect_unix(_checked(path))


async def open_local_stream(name: str | os.PathLike[str]) -> unix.UnixStream:
    r"""Connect to a server of this machine: by a Unix socket, on Windows by a named pipe.

    The caller sets the deadline.

    Args:
        name: an absolute path; on Windows the name of a pipe, bare or in ``\\.\pipe\``.

    Returns:
        The connected stream; on every system a :class:`LocalStream`.

    Raises:
        TypeError, ConfigError, ConnectError: see :func:`open_unix_stream` and :func:`open_named_pipe`.

    Cancellation leaves nothing open.
    """
    return await open_unix_stream(name)


def _checked(path: str | os.PathLike[str]) -> str:
    endpoint = os.fspath(path)
    if not isinstance(endpoint, str):
        raise TypeError(f"the path of a socket must be a str, not {endpoint!r}")
    problem = socket_path_problem(endpoint)
    if problem is not None:
        raise ConfigError(f"the path is {endpoint!r}, must be {problem}")
    return endpoint


def _access(endpoint: str, mode: int) -> unix_placing.Access:
    if not isinstance(mode, int):
        raise TypeError(f"mode must be an int, not {mode!r}")
    if mode & ~0o777 or mode & _OWNER != _OWNER:
        raise ConfigError(
            f"mode is {mode:#o}, must be from 0o600 to 0o777, with both of its owner's bits",
            hint="0o600 for its owner alone, 0o660 for a group too, 0o666 for everybody",
        )
    return unix_placing.Access(mode, _group_of_new_files(endpoint) if mode & stat.S_IRWXG else None)


def _group_of_new_files(endpoint: str) -> int:
    """Return the group that the system gives a file there (inode(7); open(2) on BSD)."""
    try:
        directory = os.stat(os.path.dirname(endpoint))
    except OSError:
        return os.getegid()  # it is made for that group, or refused
    if sys.platform != "linux" or directory.st_mode & stat.S_ISGID:
        return directory.st_gid
    return os.getegid()
