r"""Windows named pipes as a :class:`trio.abc.Listener` and a :class:`trio.abc.Stream`.

What :mod:`trio_ipc.transports.unix` is on other systems. This module must only say where what is public is.
Only for Windows.
"""

import sys

if sys.platform != "win32":  # mypy skips the rest elsewhere
    raise ImportError("for Windows only")

from trio_ipc.transports.windows.connecting import connect_nowait, open_named_pipe
from trio_ipc.transports.windows.listener import (
    NamedPipeListener,
    adopt,
    listen,
    open_named_pipe_listener,
)
from trio_ipc.transports.windows.stream import NamedPipeStream

__all__ = [
    "NamedPipeListener",
    "NamedPipeStream",
    "adopt",
    "connect_nowait",
    "listen",
    "open_named_pipe",
    "open_named_pipe_listener",
]
