"""The default transport: frames over the local streams of :mod:`trio_ipc.transports`.

:mod:`trio_ipc.selection` loads it when it is chosen. This module must never do more than put those parts
together.
"""

from __future__ import annotations

from . import transports
from .channel import Channel, FramedChannelListener, framed
from .config import IpcConfig
from .transports import EndpointState, Handover, LocalStream, PeerPolicy, TransferableListener
from .wire import checksum_for


class _Listener(FramedChannelListener, TransferableListener[Channel]):
    def __init__(self, listener: TransferableListener[LocalStream], config: IpcConfig) -> None:
        super().__init__(listener, config)
        self._transferable = listener

    def hand_over(self) -> Handover:
        return self._transferable.hand_over()

    def let_go(self) -> None:
        self._transferable.let_go()

    def look(self) -> EndpointState | None:
        return self._transferable.look()


async def connect(config: IpcConfig) -> Channel:
    """Connect to the configured endpoint; raises what the transport raises. No deadline is set."""
    return framed(await transports.connect(config.endpoint_path), config)


async def listen(config: IpcConfig, peers: PeerPolicy) -> TransferableListener[Channel]:
    """Listen at the configured endpoint; raises what the transport raises."""
    return _Listener(await transports.listen(config.endpoint_path, peers), config)


def adopt(handover: Handover, config: IpcConfig) -> TransferableListener[Channel]:
    """Return a listener on what another one hands over.

    Raises:
        ImportError: a library that the channels need is missing. Better now than at each connection.
        OSError: the system refuses.
    """
    checksum_for(config.crc32_variant)
    return _Listener(transports.adopt(handover), config)
