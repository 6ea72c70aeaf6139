"""Opens channels by the configured transport: the one place where ``ipc.transport`` chooses.

This module must never know what happens on a channel once it is open.
"""

from __future__ import annotations

import trio

from . import transports
from .channel import Channel, FramedChannelListener, framed
from .config import IpcConfig
from .errors import ConnectTimeoutError
from .transports import PeerPolicy


async def open_channel(config: IpcConfig) -> Channel:
    """Connect to the configured endpoint.

    Returns:
        A channel that the caller owns. Whether its peer may be trusted is not judged here.

    Raises:
        ConnectError: in the precise form that fits, :exc:`~trio_ipc.ConnectTimeoutError` when
            ``accept_timeout_ms`` went by.

    Cancellation leaves nothing open.
    """
    with trio.move_on_after(config.accept_timeout_ms / 1000):
        return framed(await transports.connect(config.endpoint_path), config)
    raise ConnectTimeoutError(
        f"the server did not take the connection in time, the limit accept_timeout_ms is "
        f"{config.accept_timeout_ms}",
        endpoint=config.endpoint_path,
        hint="it is overloaded or stopped; see whether it runs",
    )


async def open_channel_listener(config: IpcConfig, peers: PeerPolicy) -> trio.abc.Listener[Channel]:
    """Listen at the configured endpoint.

    Args:
        config: where, and the limits of the channels.
        peers: whom the system should let in, where a listener can tell it. To judge each peer by the
            policy remains the caller's.

    Returns:
        A listener of channels that the caller owns; closing it removes the endpoint.

    Raises:
        ConfigError: the policy has a user that this system cannot name.
        EndpointError: in the precise form that fits.
    """
    return FramedChannelListener(await transports.listen(config.endpoint_path, peers), config)
