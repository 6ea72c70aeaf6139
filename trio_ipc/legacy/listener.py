"""What the legacy listeners of all platforms do alike: they count what they leave open, and change hands.

A platform adds how it accepts, detaches and closes. This module must never touch what is handed over.
"""

from __future__ import annotations

import attrs
import trio

from trio_ipc.channel import Channel
from trio_ipc.config import IpcConfig
from trio_ipc.logs import Log
from trio_ipc.transports import DetachableListener

_log = Log(__name__)


@attrs.define
class ConnectionCount:
    """How many connections of a listener are open."""

    open: int = 0


class LegacyListener(DetachableListener[Channel]):
    """A listener until it is released: from then on it accepts nothing.

    Args:
        endpoint: what it is called.
        config: for every channel.

    Attributes:
        endpoint: as given.
        connections: how many of its channels are open.
    """

    def __init__(self, endpoint: str, config: IpcConfig) -> None:
        self.endpoint = endpoint
        self.connections = ConnectionCount()
        self._config = config
        self._owns = True

    def release(self) -> None:
        """Be closed, and leave all to the new owner; see :meth:`DetachableListener.release`."""
        self._owns = False
        _log.info(
            "%s: the legacy transport accepts no more, and leaves %d of its connections open",
            self.endpoint,
            self.connections.open,
            extra={"endpoint": self.endpoint, "connections": self.connections.open},
        )

    def _check_open(self) -> None:
        if not self._owns:
            raise trio.ClosedResourceError("this listener was closed")
