"""Default channels, made of the connections that a listener gives, or of one.

This module must never know what a channel does with its connection, nor which platform carries it.
"""

from __future__ import annotations

import trio

from trio_ipc.config import IpcConfig
from trio_ipc.transports import LocalStream, local_listener, no_local_stream

from .base import Channel, close_at_once
from .framed import FramedChannel


class FramedChannelListener(trio.abc.Listener[Channel]):
    """Gives a :class:`FramedChannel` for each connection of a listener of local streams.

    Args:
        listener: where connections come from: a listener of local streams, or a :class:`trio.SocketListener`
            of a Unix socket with a path, whose socket is taken out of it. It is owned, and closed with this
            one.
        config: for every channel.

    Raises:
        TypeError: it gives other streams, such as those of a network, or is no listener.
    """

    def __init__(
        self, listener: trio.abc.Listener[LocalStream] | trio.SocketListener, config: IpcConfig
    ) -> None:
        self._listener = local_listener(listener)
        self._config = config

    async def accept(self) -> Channel:
        """Wait for the next connection; raises what the wrapped listener raises."""
        stream = await self._listener.accept()
        if not isinstance(stream, LocalStream):
            await close_at_once(stream)
            raise no_local_stream(self._listener, stream)
        return framed(stream, self._config)

    async def aclose(self) -> None:
        """Close the listener and remove its endpoint."""
        await self._listener.aclose()


def framed(stream: LocalStream, config: IpcConfig) -> FramedChannel:
    """Return a channel over a local stream, which it owns."""
    return FramedChannel(stream, config, endpoint=stream.endpoint, peer=stream.peer)
