r"""Connecting to a named pipe.

A client lends the server nothing of its own rights, and asks for no more than reading and writing. This
module must never hold a thread, nor the event loop, while it waits for a server that is busy. Only for
Windows.
"""

from __future__ import annotations

import sys
from typing import Final

import trio

if sys.platform != "win32":  # mypy skips the rest elsewhere
    raise ImportError("for Windows only")

from trio_ipc.endpoint import pipe_path
from trio_ipc.transports import credentials, os_errors
from trio_ipc.transports.attempts import until_made
from trio_ipc.transports.windows import win32
from trio_ipc.transports.windows.end import PipeEnd
from trio_ipc.transports.windows.stream import NamedPipeStream

#: GENERIC_WRITE would ask for FILE_CREATE_PIPE_INSTANCE too, which is the server's right alone: a
#: descriptor that lets others connect should not let them take a server's place ("Named Pipe Security and
#: Access Rights").
_CLIENT_ACCESS: Final = win32.GENERIC_READ | win32.FILE_WRITE_DATA

#: The server may learn who the client is, and may not act in its name ("Impersonation Levels").
CLIENT_FLAGS: Final = win32.FILE_FLAG_OVERLAPPED | win32.SECURITY_SQOS_PRESENT | win32.SECURITY_IDENTIFICATION


async def open_named_pipe(endpoint: str) -> NamedPipeStream:
    r"""Connect to a server's pipe. The caller sets the deadline.

    While every instance is taken this waits for one to become free, as long as it may.

    Args:
        endpoint: a bare name, or one in ``\\.\pipe\``.

    Returns:
        The connected stream. Its ``peer`` is the process that serves; whether that one is to be trusted is
        the caller's decision.

    Raises:
        ConfigError: the name is no pipe's on this machine.
        ServerNotFoundError: there is no such pipe.
        EndpointPermissionError: the pipe's descriptor does not admit this user.
        OutOfResourcesError: this process or system lacks handles or memory for it.
        ConnectError: any other refusal by the system.

    Cancellation leaves nothing open.
    """
    return await until_made(lambda: connect_nowait(endpoint))


def connect_nowait(endpoint: str) -> NamedPipeStream | None:
    r"""Connect to a server's pipe, if that takes no wait.

    Args:
        endpoint: a bare name, or one in ``\\.\pipe\``.

    Returns:
        The connected stream, or None where every instance is taken.

    Raises what :func:`open_named_pipe` raises.
    """
    path = pipe_path(endpoint)
    try:
        return _connect(path)
    except OSError as exc:
        if exc.winerror == win32.ERROR_PIPE_BUSY:
            return None
        raise os_errors.connect_error(exc, path) from exc


@trio.lowlevel.enable_ki_protection
def _connect(path: str) -> NamedPipeStream:
    end = PipeEnd(win32.create_file(path, _CLIENT_ACCESS, CLIENT_FLAGS))
    with end.in_use() as handle:
        return NamedPipeStream(end, path, credentials.server_of(handle))
