"""What is said where a system lacks what was asked for: named pipes, or on Windows Unix sockets.

This module must do nothing else, and import no platform.
"""

from __future__ import annotations

import sys
from typing import Any

from trio_ipc.errors import ConnectError, EndpointError

if sys.platform == "win32":
    # Python for Windows has no AF_UNIX.
    _WHY, _CLIENT, _SERVER = (
        "Unix sockets are not for Windows",
        "open_named_pipe",
        "open_named_pipe_listeners",
    )

    async def open_unix_listeners(path: Any, **_: Any) -> Any:
        """Listen on a Unix socket. Not on Windows: raises :exc:`EndpointError`, and says what to use."""
        raise _no_server(path)

    def inherited(fd: Any, **_: Any) -> Any:
        """Take a Unix socket over. Not on Windows: raises :exc:`EndpointError`, and says what to use."""
        raise _no_server(f"descriptor {fd}")

    def give_back(detached: Any) -> None:
        """Leave a socket to the one who gave it. Not on Windows: there is none."""

    def inherited_unix_listener(fd: Any, **_: Any) -> Any:
        """Take a Unix socket over. Not on Windows: raises :exc:`EndpointError`, and says what to use."""
        raise _no_server(f"descriptor {fd}")

    async def serve_unix(handler: Any, path: Any, **_: Any) -> Any:
        """Serve on a Unix socket. Not on Windows: raises :exc:`EndpointError`, and says what to use."""
        raise _no_server(path)

    async def open_unix_stream(path: Any) -> Any:
        """Connect to a Unix socket. Not on Windows: raises :exc:`ConnectError`, and says what to use."""
        raise _no_client(path)

else:
    _WHY, _CLIENT, _SERVER = "named pipes are for Windows only", "open_unix_stream", "open_unix_listeners"

    async def open_named_pipe_listeners(name: Any, **_: Any) -> Any:
        """Listen on a named pipe. On Windows only: raises :exc:`EndpointError`, and says what to use."""
        raise _no_server(name)

    async def serve_named_pipe(handler: Any, name: Any, **_: Any) -> Any:
        """Serve on a named pipe. On Windows only: raises :exc:`EndpointError`, and says what to use."""
        raise _no_server(name)

    async def open_named_pipe(name: Any) -> Any:
        """Connect to a named pipe. On Windows only: raises :exc:`ConnectError`, and says what to use."""
        raise _no_client(name)


def _no_server(endpoint: object) -> EndpointError:
    serve = _SERVER.replace("open", "serve").replace("_listeners", "")
    return EndpointError(_WHY, endpoint=str(endpoint), hint=f"use {_SERVER}() or {serve}() here")


def _no_client(endpoint: object) -> ConnectError:
    return ConnectError(
        _WHY, endpoint=str(endpoint), hint=f"use {_CLIENT}() here, or open_local_stream() on every system"
    )
