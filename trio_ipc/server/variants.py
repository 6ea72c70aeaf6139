"""Clients of the other checksum variant: what they are told, and what the log is.

A client that is set to the wrong variant often tries again and again; one line says all there is to know.
This module must never decide whether a frame is taken.
"""

from __future__ import annotations

from typing import Final

from trio_ipc.contract import OTHER_VARIANT
from trio_ipc.errors import ProtocolError
from trio_ipc.logs import Log

_log: Final = Log("trio_ipc.server")

#: Peers that are remembered as told of. Each new process is one, and a server may run for years.
_MOST_PEERS: Final = 256


class VariantLog:
    """Says once for each peer that it uses the other variant."""

    def __init__(self) -> None:
        self._told: dict[str, None] = {}

    def tell(self, theirs: str, ours: str, fields: dict[str, object]) -> None:
        """Log it, unless this peer had its line.

        Args:
            theirs: the variant of its frames.
            ours: this server's setting.
            fields: of the log entry; its ``peer`` says who it is.
        """
        peer = str(fields["peer"])
        if peer in self._told:
            return
        if len(self._told) >= _MOST_PEERS:
            del self._told[next(iter(self._told))]
        self._told[peer] = None
        _log.warning(
            "%s sends frames of the %s variant, this server is set to %s: set crc32_variant to the same on "
            "both sides, or to auto here",
            peer,
            theirs,
            ours,
            extra=fields,
        )


def refusal(exc: ProtocolError, theirs: str | None, ours: str) -> str:
    """Return what a client is told that broke the protocol.

    Args:
        exc: how.
        theirs: the variant of its first frame, where that is why; else None.
        ours: this server's setting.
    """
    said = f"protocol violation: {exc.message}"
    return said if theirs is None else f"{said}; {OTHER_VARIANT} {theirs}, this server is set to {ours}"
