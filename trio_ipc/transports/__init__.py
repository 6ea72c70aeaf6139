"""Where bytes travel: local streams and listeners, and nothing that reaches a network.

:func:`connect` and :func:`listen` open what this system has for the processes of one machine: a Unix
socket or a Windows named pipe. Platform code lives in this package and nowhere else.
"""

import sys

from .credentials import PeerCredentials, PeerPolicy
from .stream import LocalStream

if sys.platform == "win32":
    from .named_pipe import listen
    from .named_pipe import open_named_pipe as connect
else:
    from .unix import connect_unix as connect
    from .unix import listen

__all__ = [
    "LocalStream",
    "PeerCredentials",
    "PeerPolicy",
    "connect",
    "listen",
]
