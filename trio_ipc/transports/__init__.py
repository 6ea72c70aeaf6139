"""Unix sockets and Windows named pipes on Trio: streams and listeners of this machine, and of no network.

For programs that want no more than that there are :func:`open_unix_listeners`, :func:`serve_unix`,
:func:`open_unix_stream`, :func:`open_named_pipe_listeners`, :func:`serve_named_pipe`, :func:`open_named_pipe`
and :func:`open_local_stream`, in the shapes of Trio's own; who is at the other end, each stream tells. No
protobuf is loaded for it. What is not in ``__all__`` is private.

Platform code lives in this package, and in the rollback's, and nowhere else. The modules with the input and
output are not loaded before they are asked for: who has chosen the legacy transport never runs them.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from trio_ipc.transports.activation import ActivatedSocket, activated_sockets
from trio_ipc.transports.credentials import PeerCredentials
from trio_ipc.transports.detach import DetachableListener as DetachableListener
from trio_ipc.transports.detach import Detached as Detached
from trio_ipc.transports.duplex import Duplex as Duplex
from trio_ipc.transports.duplex import DuplexStream as DuplexStream
from trio_ipc.transports.duplex import LocalListener as LocalListener
from trio_ipc.transports.duplex import LocalStream, PeerState
from trio_ipc.transports.duplex import OneAtATime as OneAtATime
from trio_ipc.transports.duplex import StreamDuplex as StreamDuplex
from trio_ipc.transports.local_listener import gives_streams as gives_streams
from trio_ipc.transports.local_listener import local_listener as local_listener
from trio_ipc.transports.local_listener import no_local_stream as no_local_stream
from trio_ipc.transports.monitor import EndpointState
from trio_ipc.transports.peer_process import Executable
from trio_ipc.transports.policy import PeerPolicy

if TYPE_CHECKING:
    if sys.platform == "win32":
        from trio_ipc.transports.elsewhere import give_back as give_back
        from trio_ipc.transports.elsewhere import inherited as inherited
        from trio_ipc.transports.elsewhere import (
            inherited_unix_listener,
            open_unix_listeners,
            open_unix_stream,
            serve_unix,
        )
        from trio_ipc.transports.windows.opening import (
            open_local_stream,
            open_named_pipe,
            open_named_pipe_listeners,
            serve_named_pipe,
        )
        from trio_ipc.transports.windows.pipe import NamedPipeListener, NamedPipeStream
        from trio_ipc.transports.windows.pipe import adopt as adopt
        from trio_ipc.transports.windows.pipe import connect_nowait as connect_nowait
        from trio_ipc.transports.windows.pipe import listen as listen

        connect = open_named_pipe
    else:
        from trio_ipc.transports.elsewhere import open_named_pipe, open_named_pipe_listeners, serve_named_pipe
        from trio_ipc.transports.unix import UnixStream, connect_unix
        from trio_ipc.transports.unix import connect_nowait as connect_nowait
        from trio_ipc.transports.unix_inheriting import give_back as give_back
        from trio_ipc.transports.unix_inheriting import inherited as inherited
        from trio_ipc.transports.unix_listener import UnixListener
        from trio_ipc.transports.unix_listener import adopt as adopt
        from trio_ipc.transports.unix_listener import listen as listen
        from trio_ipc.transports.unix_opening import (
            inherited_unix_listener,
            open_local_stream,
            open_unix_listeners,
            open_unix_stream,
            serve_unix,
        )

        connect = connect_unix
else:
    _WHERE = (
        {
            "NamedPipeListener": ("windows.pipe", "NamedPipeListener"),
            "NamedPipeStream": ("windows.pipe", "NamedPipeStream"),
            "adopt": ("windows.pipe", "adopt"),
            "connect": ("windows.pipe", "open_named_pipe"),
            "connect_nowait": ("windows.pipe", "connect_nowait"),
            "give_back": ("elsewhere", "give_back"),
            "inherited": ("elsewhere", "inherited"),
            "inherited_unix_listener": ("elsewhere", "inherited_unix_listener"),
            "listen": ("windows.pipe", "listen"),
            "open_local_stream": ("windows.opening", "open_local_stream"),
            "open_named_pipe": ("windows.opening", "open_named_pipe"),
            "open_named_pipe_listeners": ("windows.opening", "open_named_pipe_listeners"),
            "open_unix_listeners": ("elsewhere", "open_unix_listeners"),
            "open_unix_stream": ("elsewhere", "open_unix_stream"),
            "serve_named_pipe": ("windows.opening", "serve_named_pipe"),
            "serve_unix": ("elsewhere", "serve_unix"),
        }
        if sys.platform == "win32"
        else {
            "UnixListener": ("unix_listener", "UnixListener"),
            "UnixStream": ("unix", "UnixStream"),
            "adopt": ("unix_listener", "adopt"),
            "connect": ("unix", "connect_unix"),
            "connect_nowait": ("unix", "connect_nowait"),
            "give_back": ("unix_inheriting", "give_back"),
            "inherited": ("unix_inheriting", "inherited"),
            "inherited_unix_listener": ("unix_opening", "inherited_unix_listener"),
            "listen": ("unix_listener", "listen"),
            "open_local_stream": ("unix_opening", "open_local_stream"),
            "open_named_pipe": ("elsewhere", "open_named_pipe"),
            "open_named_pipe_listeners": ("elsewhere", "open_named_pipe_listeners"),
            "open_unix_listeners": ("unix_opening", "open_unix_listeners"),
            "open_unix_stream": ("unix_opening", "open_unix_stream"),
            "serve_named_pipe": ("elsewhere", "serve_named_pipe"),
            "serve_unix": ("unix_opening", "serve_unix"),
        }
    )

    def __getattr__(name: str) -> object:
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, its_name = _WHERE[name]
        found = globals()[name] = getattr(importlib.import_module(f".{module}", __name__), its_name)
        return found


__all__ = [
    "ActivatedSocket",
    "EndpointState",
    "Executable",
    "LocalStream",
    "PeerCredentials",
    "PeerPolicy",
    "PeerState",
    "activated_sockets",
    "inherited_unix_listener",
    "open_local_stream",
    "open_named_pipe",
    "open_named_pipe_listeners",
    "open_unix_listeners",
    "open_unix_stream",
    "serve_named_pipe",
    "serve_unix",
]

if sys.platform == "win32":
    __all__ += ["NamedPipeListener", "NamedPipeStream"]
else:
    __all__ += ["UnixListener", "UnixStream"]
