r"""Named pipes for any program of Trio's, in the shapes of :func:`trio.open_tcp_listeners` and its kin.

What is done is :mod:`.listener`'s and :mod:`.connecting`'s; this module must only speak to those who have no
:class:`~trio_ipc.IpcConfig`. Only for Windows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

if sys.platform != "win32":  # mypy skips the rest elsewhere
    raise ImportError("for Windows only")

from trio_ipc.errors import EndpointError
from trio_ipc.transports import os_errors
from trio_ipc.transports.windows import connecting
from trio_ipc.transports.windows.listener import NamedPipeListener, open_named_pipe_listener
from trio_ipc.transports.windows.stream import NamedPipeStream


async def open_named_pipe(name: str) -> NamedPipeStream:
    r"""Connect to a server's named pipe. The caller sets the deadline.

    While every instance is taken this waits for one to become free, as long as it may.

    Args:
        name: a bare name, or one in ``\\.\pipe\``.

    Returns:
        The connected stream. Its ``peer`` is the process that serves; whether that one is to be trusted is
        the caller's decision, for which :meth:`PeerPolicy.allows` is there.

    Raises:
        TypeError: the name is no string.
        ConfigError: the name is no pipe's on this machine.
        ServerNotFoundError: there is no such pipe.
        EndpointPermissionError: the pipe's descriptor does not admit this user.
        OutOfResourcesError: this process or system lacks handles or memory for it.
        ConnectError: any other refusal by the system.

    Cancellation leaves nothing open.
    """
    return await connecting.open_named_pipe(_checked(name))


async def open_named_pipe_listeners(name: str, *, sddl: str | None = None) -> list[NamedPipeListener]:
    r"""Create a named pipe, and listen.

    It is its owner's and SYSTEM's alone unless told otherwise, and no other machine's. There is no backlog:
    one client at a time can connect ahead of :meth:`NamedPipeListener.accept`, others wait in
    :func:`open_named_pipe`.

    Args:
        name: a bare name, or one in ``\\.\pipe\``.
        sddl: who may connect, in Microsoft's security descriptor definition language. It must let this
            process's user create instances (``GA``). Other machines are refused whatever it says.

    Returns:
        A list of one listener, for :func:`trio.serve_listeners`.

    Raises:
        TypeError: an argument is no string.
        ConfigError: the name is no pipe's on this machine, or the descriptor can't be read.
        EndpointInUseError: another server has the pipe.
        EndpointError: the system refuses, or clients hold on to the pipe of a server that is gone for 1 s.

    Cancellation leaves nothing behind.
    """
    endpoint = _checked(name)
    if sddl is not None and not isinstance(sddl, str):
        raise TypeError(f"sddl must be a str or None, not {sddl!r}")
    try:
        return [await open_named_pipe_listener(endpoint, sddl=sddl)]
    except EndpointError as exc:
        os_errors.speak_of("name", exc)
        raise


async def serve_named_pipe(
    handler: Callable[[NamedPipeStream], Awaitable[object]],
    name: str,
    *,
    sddl: str | None = None,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[list[NamedPipeListener]] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Listen on a named pipe, and start ``handler(stream)`` for each client, as :func:`trio.serve_tcp` does.

    ``stream.peer`` says who the client is; :class:`PeerPolicy` judges it. What a handler raises ends the
    server.

    Args:
        handler: an async function of one stream, which is closed after it.
        name: of the pipe, as for :func:`open_named_pipe_listeners`.
        sddl: who may connect, likewise.
        handler_nursery: where handlers run; None for a nursery of this function's own.
        task_status: ``nursery.start`` returns the list of listeners, once clients can connect.

    Raises:
        TypeError, ConfigError, EndpointError: see :func:`open_named_pipe_listeners`.

    Cancellation is how it ends: the listener is closed. The name is free once the last stream is closed too.
    """
    listeners = await open_named_pipe_listeners(name, sddl=sddl)
    await trio.serve_listeners(handler, listeners, handler_nursery=handler_nursery, task_status=task_status)


async def open_local_stream(name: str | os.PathLike[str]) -> NamedPipeStream:
    r"""Connect to a server of this machine: by a named pipe, elsewhere than on Windows by a Unix socket.

    The caller sets the deadline.

    Args:
        name: the name of a pipe, bare or in ``\\.\pipe\``; elsewhere the absolute path of a socket.

    Returns:
        The connected stream; on every system a :class:`LocalStream`.

    Raises:
        TypeError, ConfigError, ConnectError: see :func:`open_named_pipe` and :func:`open_unix_stream`.

    Cancellation leaves nothing open.
    """
    return await open_named_pipe(os.fspath(name))


def _checked(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the name of a pipe must be a str, not {name!r}")
    return name
