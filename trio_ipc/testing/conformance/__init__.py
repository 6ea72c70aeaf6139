"""Whether a peer keeps the wire protocol: a client played against any server, a server against any client.

:func:`check_server` and :func:`check_client` are what ``trio-ipc check`` runs. The rules have the numbers of
docs/wire-protocol.md. Frames are read and written here by hand, so that a defect of :mod:`trio_ipc.wire` is
none of the checker's.
"""

from .clients import check_client
from .rules import CLIENT_RULES, SERVER_RULES, Conformance, Finding, Verdict, WireRule
from .servers import check_server

__all__ = [
    "CLIENT_RULES",
    "SERVER_RULES",
    "Conformance",
    "Finding",
    "Verdict",
    "WireRule",
    "check_client",
    "check_server",
]
