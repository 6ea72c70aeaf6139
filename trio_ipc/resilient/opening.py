"""Opens connections: connects, looks who is at the other end, and asks what the server can do.

This module must never send a call's request, and never decide who gets a connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import trio

from trio_ipc.channel import Channel, close_at_once
from trio_ipc.client.connecting import open_trusted_channel
from trio_ipc.config import IpcConfig
from trio_ipc.contract import Contract
from trio_ipc.errors import ChannelClosedError, MessageError, PeerClosedError
from trio_ipc.telemetry import Traffic
from trio_ipc.transports import PeerPolicy

from .connection import Connection
from .lanes import Lane, Opening
from .metrics import ClientMetrics

#: Opens a channel to an endpoint, as :func:`trio_ipc.opening.open_channel` does.
Connector: TypeAlias = Callable[[IpcConfig], Awaitable[Channel]]


class Opener:
    """Opens the connections of one client.

    Args:
        contract: the message types, and how a server is asked what it can do.
        nursery: where connections that are shared carry their calls.
        peers: which users servers may run as.
        connect: opens channels.
        traffic, metrics: where it is counted.
        max_in_flight: how many calls may use a connection at a time.
    """

    def __init__(
        self,
        contract: Contract[Any, Any],
        nursery: trio.Nursery,
        *,
        peers: PeerPolicy,
        connect: Connector,
        traffic: Traffic,
        metrics: ClientMetrics,
        max_in_flight: int,
    ) -> None:
        self._contract = contract
        self._nursery = nursery
        self._peers = peers
        self._connector = connect
        self._traffic = traffic
        self._metrics = metrics
        self._max_in_flight = max_in_flight

    def begin(self, lane: Lane, victim: Connection | None) -> Opening:
        """Return an opening, and count it; :meth:`open` or :meth:`give_up` must follow.

        Args:
            lane: where to.
            victim: a connection that has to be closed first.
        """
        self._metrics.connection_attempts_total += 1
        return Opening(lane, victim)

    async def open(self, opening: Opening) -> None:
        """Open a connection, or find out why that cannot be: see the opening's attributes.

        Cancellation leaves nothing open.
        """
        began = trio.current_time()
        try:
            with opening.scope:
                opening.connection = await self._connect(opening.lane)
            if opening.connection is not None and opening.given_up:
                # Given up, and so counted, just when it had succeeded.
                connection, opening.connection = opening.connection, None
                await close_at_once(connection)
        except Exception as exc:  # noqa: BLE001 - a call's, which the pool will tell it
            opening.error = exc
        except BaseException:
            opening.error = ChannelClosedError("this client was closed", hint="open a new one")
            raise
        finally:
            if opening.connection is None:
                self.give_up(opening)
            else:
                self._metrics.connections_established_total += 1
                self._metrics.connection_duration_ms_total += (trio.current_time() - began) * 1000

    def give_up(self, opening: Opening) -> None:
        """Let it end, and count it as a failure, once."""
        if not opening.given_up:
            opening.given_up = True
            opening.scope.cancel()
            opening.lane.upstream.connection_failures += 1
            self._metrics.connection_failures_total += 1

    async def _connect(self, lane: Lane) -> Connection:
        channel = await open_trusted_channel(lane.upstream.endpoint.config, self._peers, self._connector)
        connection = Connection(
            lane, channel, self._contract, max_in_flight=self._max_in_flight, nursery=self._nursery
        )
        channel.traffic = self._traffic
        try:
            if self._max_in_flight > 1:
                self._nursery.start_soon(connection.run)
            await self._negotiate(connection)
        except BaseException:
            await close_at_once(connection)
            raise
        return connection

    async def _negotiate(self, connection: Connection) -> None:
        """Ask first of all what the server can do: it may be another one by now."""
        if self._contract.negotiation is None:
            return
        try:
            answer = await connection.call(
                self._contract.capabilities_request(), float("inf"), lambda _: None
            )
        except MessageError:
            return  # frames too small to ask: it is taken to be able to do everything, and may refuse
        connection.has_answered = True
        connection.upstream.learned(self._contract.capabilities_in(answer))
        if not connection.is_reusable():
            # What came after the answer would be taken for the next one.
            raise PeerClosedError(
                "the server closed the connection, or sent more than it was asked for, right after it had "
                "said what it can do",
                endpoint=connection.upstream.path,
                hint="it is stopping, or speaks another protocol",
            )
