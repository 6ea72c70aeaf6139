"""Where bytes travel: local streams and listeners, and nothing that reaches a network.

:func:`connect` and :func:`listen` open whatever the endpoint's form asks for. Platform code lives in
this package and nowhere else.
"""

from .credentials import PeerCredentials, PeerPolicy
from .unix import UnixListener, UnixStream, connect_unix, listen_unix

__all__ = [
    "PeerCredentials",
    "PeerPolicy",
    "UnixListener",
    "UnixStream",
    "connect",
    "listen",
]


async def connect(endpoint: str) -> UnixStream:
    """Connect to a local server; see :func:`~trio_ipc.transports.unix.connect_unix`."""
    return await connect_unix(endpoint)


async def listen(endpoint: str) -> UnixListener:
    """Listen for local clients; see :func:`~trio_ipc.transports.unix.listen_unix`."""
    return await listen_unix(endpoint)
