"""What clients of every kind share: who may be at the other end, turns, and how a call's failure is told.

This module must never make a call.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from .channel import Channel, close_at_once
from .config import IpcConfig
from .errors import (
    ChannelClosedError,
    IpcError,
    MessageError,
    PeerClosedError,
    PeerNotAllowedError,
    ProtocolError,
    ReadTimeoutError,
    TurnTimeoutError,
    WriteTimeoutError,
)
from .selection import open_channel
from .telemetry import CallFailure
from .transports import PeerPolicy

_logger = logging.getLogger(__name__)

_CLOSED_FIRST: Final = (
    "it may be over its connection limit or stopping; or it does not understand: compare crc32_variant, "
    "max_frame_bytes and the contract of both sides"
)
_CLOSED_LATER: Final = (
    "it may be stopping or gone, or this client was idle for longer than its read_timeout_ms: "
    "open a new client"
)

_FAILURES: Final[tuple[tuple[type[BaseException], CallFailure], ...]] = (
    (MessageError, CallFailure.REQUEST_UNSENDABLE),
    (TurnTimeoutError, CallFailure.TURN_TIMEOUT),
    (WriteTimeoutError, CallFailure.WRITE_TIMEOUT),
    (ReadTimeoutError, CallFailure.READ_TIMEOUT),
    (PeerClosedError, CallFailure.PEER_CLOSED),
    (ProtocolError, CallFailure.PROTOCOL_ERROR),
    (ChannelClosedError, CallFailure.CLOSED),
    (trio.Cancelled, CallFailure.CANCELLED),
)


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
    if peers.allows(channel.peer):
        _logger.debug("connected to %s, %s", channel.endpoint, channel.peer, extra=fields)
        return channel
    await close_at_once(channel)
    _logger.warning("refused to talk to the server at %s: %s", channel.endpoint, channel.peer, extra=fields)
    raise PeerNotAllowedError(
        f"the server is not trusted ({channel.peer}), allowed is {peers}",
        endpoint=config.endpoint_path,
        hint="somebody else took the path, or the peer policy is too narrow",
    )


class Turns:
    """Leave to use a connection, first come, first served.

    Args:
        at_a_time: how many callers may have it at the same time.
        endpoint: where the connection leads, for the error.
        read_timeout_ms: how long a caller waits.
    """

    def __init__(self, at_a_time: int, *, endpoint: str, read_timeout_ms: int) -> None:
        self._at_a_time = at_a_time
        self._endpoint = endpoint
        self._read_timeout_ms = read_timeout_ms
        self._free = trio.Semaphore(at_a_time, max_value=at_a_time)

    async def take(self) -> None:
        """Wait for a turn, which :meth:`give_back` must end. Does not wait where one is free.

        Raises:
            TurnTimeoutError: the callers ahead took too long.

        Cancellation leaves the turn to the next one.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            ahead = self._at_a_time + self._free.statistics().tasks_waiting
            with trio.move_on_after(self._read_timeout_ms / 1000):
                await self._free.acquire()
                await self._let_cancellation_come_first()
                return
            raise TurnTimeoutError(
                f"timed out waiting for a turn behind {ahead} calls, the limit read_timeout_ms is "
                f"{self._read_timeout_ms}",
                endpoint=self._endpoint,
                hint="open more clients, or make fewer calls at a time",
            ) from None

    def give_back(self) -> None:
        """End a turn."""
        self._free.release()

    async def _let_cancellation_come_first(self) -> None:
        # The turn may be handed over in the moment of a cancellation; nothing has been sent yet.
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            self._free.release()
            raise


@asynccontextmanager
async def nursery_of_our_own() -> AsyncIterator[trio.Nursery]:
    """A nursery for tasks of a client's own, of which the block in it notices nothing.

    Its tasks are cancelled when the block ends. What the block raises comes out as it is, and not in a
    group; so does a KeyboardInterrupt of one of the tasks.
    """
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as exc:  # noqa: BLE001 - raised again below, outside of the nursery
                raised = exc
            nursery.cancel_scope.cancel()
    except trio.Cancelled:
        # The scope around the block is cancelled; what the block raised all the same goes first.
        if raised is not None:
            raise raised from None
        raise
    except BaseExceptionGroup as group:
        # One of the tasks has ended it. What the block raised then is mostly the Cancelled of this
        # nursery, which must not leave it.
        if isinstance(raised, (KeyboardInterrupt, SystemExit)):
            raise raised from group
        if group.split(KeyboardInterrupt)[1] is None:
            raise KeyboardInterrupt from None
        raise
    if raised is not None:
        raise raised


def kind_of(exc: BaseException) -> CallFailure:
    """Return what a call that ended by this exception counts as."""
    return next((kind for family, kind in _FAILURES if isinstance(exc, family)), CallFailure.OTHER)


def why_closed(*, answered: bool) -> str:
    """Return a hint at why a server closed without a word, as those of other makes do.

    Args:
        answered: whether it had answered anything on this connection. What it means depends on that.
    """
    return _CLOSED_LATER if answered else _CLOSED_FIRST


def told(exc: BaseException) -> str:
    """Return the words of an exception for another one's message."""
    if isinstance(exc, trio.Cancelled):
        return "it was cancelled"
    return exc.message if isinstance(exc, IpcError) else repr(exc)
