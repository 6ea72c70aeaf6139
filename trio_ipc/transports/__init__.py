"""Where bytes travel: local streams and listeners, and nothing that reaches a network.

:func:`connect` and :func:`listen` open what this system has for the processes of one machine: a Unix
socket or a Windows named pipe. Platform code lives in this package, and in the rollback's, and nowhere
else. The modules with the input and output are not loaded before they are asked for: who has chosen the
legacy transport never runs them.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from trio_ipc.transports.credentials import PeerCredentials
from trio_ipc.transports.detach import DetachableListener, Detached
from trio_ipc.transports.duplex import Duplex, DuplexStream, LocalStream, PeerState, StreamDuplex
from trio_ipc.transports.monitor import EndpointState
from trio_ipc.transports.peer_process import Executable
from trio_ipc.transports.policy import PeerPolicy

if TYPE_CHECKING:
    if sys.platform == "win32":
        from trio_ipc.transports.windows.pipe import adopt, listen
        from trio_ipc.transports.windows.pipe import open_named_pipe as connect
    else:
        from trio_ipc.transports.unix import connect_unix as connect
        from trio_ipc.transports.unix_listener import adopt, listen
else:
    _WHERE = (
        {
            "adopt": ("windows.pipe", "adopt"),
            "connect": ("windows.pipe", "open_named_pipe"),
            "listen": ("windows.pipe", "listen"),
        }
        if sys.platform == "win32"
        else {
            "adopt": ("unix_listener", "adopt"),
            "connect": ("unix", "connect_unix"),
            "listen": ("unix_listener", "listen"),
        }
    )

    def __getattr__(name: str) -> object:
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, its_name = _WHERE[name]
        found = globals()[name] = getattr(importlib.import_module(f".{module}", __name__), its_name)
        return found


__all__ = [
    "DetachableListener",
    "Detached",
    "Duplex",
    "DuplexStream",
    "EndpointState",
    "Executable",
    "LocalStream",
    "PeerCredentials",
    "PeerPolicy",
    "PeerState",
    "StreamDuplex",
    "adopt",
    "connect",
    "listen",
]
