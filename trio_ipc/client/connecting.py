"""How a client gets its connection: who may be at the other end, and which line carries the calls.

What only some need is not loaded before that. This module must never make a call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from trio_ipc.channel import Channel, close_at_once
from trio_ipc.config import IpcConfig
from trio_ipc.contract import Contract, RequestT, ResponseT
from trio_ipc.errors import ConfigError, PeerNotAllowedError, shown
from trio_ipc.logs import Log
from trio_ipc.opening import open_channel
from trio_ipc.transports import PeerPolicy

from .line import Line
from .single import Single

_log = Log(__name__)


async def open_trusted_channel(
    config: IpcConfig, peers: PeerPolicy, connect: Callable[[IpcConfig], Awaitable[Channel]] = open_channel
) -> Channel:
    """Connect, and make sure of who is at the other end.

    Args:
        config: where to, and how.
        peers: which users the server may run as.
        connect: opens the channel.

    Returns:
        A channel that the caller owns.

    Raises:
        PeerNotAllowedError: the server is not trusted.
        ConnectError: as ``connect`` raises it.

    Cancellation leaves nothing open.
    """
    channel = await connect(config)
    fields = {"endpoint": channel.endpoint, "peer": str(channel.peer), "transport": channel.transport}
    verdict = peers.judge(channel.peer)
    if verdict.allowed:
        _log.debug("connected to %s, %s", channel.endpoint, channel.peer, extra=fields)
        return channel
    await close_at_once(channel)
    _log.warning("refused to talk to the server at %s: %s", channel.endpoint, verdict.peer, extra=fields)
    unmapped = channel.peer is not None and channel.peer.shown_uid is not None
    raise PeerNotAllowedError(
        f"the server is not trusted ({verdict.peer}), allowed is {peers}",
        endpoint=config.endpoint_path,
        hint="run both sides in one user namespace, or map the server's user into this one"
        if unmapped
        else "somebody else took the path, or the peer policy is too narrow: peers= (trio-ipc: --trust) "
        "names the users whose servers this client trusts",
    )


def open_line(
    channel: Channel,
    contract: Contract[RequestT, ResponseT],
    max_in_flight: int,
    nursery: trio.Nursery | None = None,
) -> Line[RequestT, ResponseT]:
    """Return what carries calls over a connection.

    Args:
        channel: the connection, which the line owns.
        contract: the message types.
        max_in_flight: how many calls there may be at a time, which the caller sees to. Above 1 it must also
            run the line's ``run()``.
        nursery: for tasks of the line's own, which end when the connection is closed; None for none.

    Raises:
        TypeError: ``max_in_flight`` is no whole number.
        ConfigError: it is below 1.
    """
    check_max_in_flight(max_in_flight)
    if max_in_flight == 1:
        return Single(channel, contract, nursery)
    from .pipeline import Pipeline  # noqa: PLC0415 - not everybody has several callers

    return Pipeline(channel, contract)


def check_max_in_flight(number: object) -> None:
    """Raise TypeError if this is no whole number, :exc:`~trio_ipc.ConfigError` if it is one below 1."""
    said = f"max_in_flight is {shown(number)}, must be a whole number of calls from 1"
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(said)
    if number < 1:
        raise ConfigError(said)
