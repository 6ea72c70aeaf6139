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

from .credentials import PeerCredentials, PeerPolicy
from .handover import Handover, TransferableListener
from .lookout import EndpointState
from .stream import LocalStream

if TYPE_CHECKING:
    if sys.platform == "win32":
        from .named_pipe import adopt, listen
        from .named_pipe import open_named_pipe as connect
    else:
        from .unix import adopt, listen
        from .unix import connect_unix as connect
else:
    _MODULE, _CONNECT = (
        ("named_pipe", "open_named_pipe") if sys.platform == "win32" else ("unix", "connect_unix")
    )

    def __getattr__(name: str) -> object:
        if name not in {"adopt", "connect", "listen"}:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = importlib.import_module(f".{_MODULE}", __name__)
        return getattr(module, _CONNECT if name == "connect" else name)


__all__ = [
    "EndpointState",
    "Handover",
    "LocalStream",
    "PeerCredentials",
    "PeerPolicy",
    "TransferableListener",
    "adopt",
    "connect",
    "listen",
]
