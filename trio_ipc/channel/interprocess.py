"""The default transport: frames over the local streams of :mod:`trio_ipc.transports`.

:mod:`trio_ipc.opening` loads it when it is chosen. This module must never do more than put those parts
together.
"""

from __future__ import annotations

from trio_ipc import transports
from trio_ipc.channel import Channel, FramedChannelListener, framed
from trio_ipc.config import IpcConfig
from trio_ipc.transports import DetachableListener, Detached, EndpointState, LocalStream, PeerPolicy
from trio_ipc.wire import load_libraries


class _Listener(FramedChannelListener, DetachableListener[Channel]):
    def __init__(self, listener: DetachableListener[LocalStream], config: IpcConfig) -> None:
        super().__init__(listener, config)
        self._transferable = listener

    def detach(self) -> Detached:
        return self._transferable.detach()

    def release(self) -> None:
        self._transferable.release()

    def look(self) -> EndpointState | None:
        return self._transferable.look()


async def connect(config: IpcConfig) -> Channel:
    """Connect to the configured endpoint; raises what the transport raises. No deadline is set."""
    return framed(await transports.connect(config.endpoint_path), config)


def connect_nowait(config: IpcConfig) -> Channel | None:
    """Connect, if that takes no wait, else return None; raises what the transport raises."""
    stream = transports.connect_nowait(config.endpoint_path)
    return None if stream is None else framed(stream, config)


async def listen(config: IpcConfig, peers: PeerPolicy) -> DetachableListener[Channel]:
    """Listen at the configured endpoint; raises what the transport raises."""
    listener = await transports.listen(config.endpoint_path, peers, group=config.socket_group)
    return _Listener(listener, config)


def adopt(detached: Detached, config: IpcConfig) -> DetachableListener[Channel]:
    """Return a listener on what another one hands over.

    Raises:
        OSError: the system refuses.
    """
    load_libraries(config.crc32_variant)
    return _Listener(transports.adopt(detached), config)
