"""Opens connections: connects, looks who is at the other end, and asks what the server can do.

This module must never send a call's request, and never decide who gets a connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import attrs
import trio

from trio_ipc.channel import Channel, close_at_once
from trio_ipc.client.connecting import open_trusted_channel
from trio_ipc.client.variants import both_failed, notices_refusal
from trio_ipc.config import IpcConfig
from trio_ipc.contract import Contract
from trio_ipc.errors import ChannelClosedError, ContractError, MessageError, PeerClosedError
from trio_ipc.telemetry import Traffic
from trio_ipc.transports import PeerPolicy

from .capabilities import is_health_check
from .connection import Connection
from .failures import is_failure
from .lanes import Lane, Opening
from .metrics import ClientMetrics

#: Seconds for which a new connection waits for what another one asks, where a probe can show instead that it
#: has a place: a server that keeps the one that asks in its queue must not hold up the others for long. One
#: that takes longer to answer is used meanwhile, and its response when it comes.
_PATIENCE: Final = 1.0

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
        believed: seconds for which what a server said that it can do holds for new connections.
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
        believed: float,
    ) -> None:
        self._believed = believed
        self._contract = contract
        self._checks_health = is_health_check(contract)
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
            if opening.connection is not None and opening.scope.cancel_called:
                # Given up, or the client was closed, just when it had succeeded: nobody else knows of it.
                connection, opening.connection = opening.connection, None
                await close_at_once(connection)
        except BaseException as exc:  # a call's, which the pool will tell it
            if not is_failure(exc):
                opening.error = ChannelClosedError("this client was closed", hint="open a new one")
                raise
            opening.error = exc
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
        """Connect; and once more in the other checksum variant, where that may be the server's."""
        upstream, variants = lane.upstream, lane.upstream.variants
        while True:
            connection = await self._connect_once(lane)
            try:
                await self._negotiate(connection)
                return connection
            except BaseException as exc:
                await close_at_once(connection)
                was_known = variants.is_known
                if connection.has_answered or not variants.tries_other(connection.variant, exc):
                    if isinstance(exc, PeerClosedError) and not was_known:
                        exc.hint = both_failed(exc.hint)
                    raise
            upstream.connection_failures += 1
            self._metrics.connection_failures_total += 1
            self._metrics.connection_attempts_total += 1

    async def _connect_once(self, lane: Lane) -> Connection:
        config, variants, contract = lane.upstream.endpoint.config, lane.upstream.variants, self._contract
        variant = variants.current
        if config.crc32_variant != variant:
            config = config.replace(crc32_variant=variant)
        if not variants.is_known:
            contract = attrs.evolve(contract, mismatch=notices_refusal(contract))
        channel = await open_trusted_channel(config, self._peers, self._connector)
        connection = Connection(
            lane, channel, contract, max_in_flight=self._max_in_flight, nursery=self._nursery
        )
        connection.variant = variant
        connection.process = None if channel.peer is None else channel.peer.pid
        channel.traffic = self._traffic
        if self._max_in_flight > 1:
            self._nursery.start_soon(connection.run)
        return connection

    def _has_to_learn(self, connection: Connection) -> bool:
        """Return whether what is known of the server at the other end is not enough.

        What is only old is asked for by the client's refresher where there is a connection already.
        """
        upstream = connection.upstream
        return (
            upstream.capabilities_at is None
            or upstream.asks_anew
            or not upstream.variants.is_known
            or connection.process != upstream.told_by
            or (
                trio.current_time() >= upstream.capabilities_at + self._believed
                and not connection.lane.live()
            )
        )

    async def _negotiate(self, connection: Connection) -> None:
        """Ask first of all what the server can do, unless that is known."""
        if self._contract.negotiation is None:
            return
        upstream, capabilities_pending = connection.upstream, False
        if self._has_to_learn(connection):
            # One asks for all connections that are opened at the same time. If it hangs, or its server keeps
            # it waiting for a place, the others go on.
            patience = upstream.endpoint.config.accept_timeout_ms / 1000
            if self._contract.has_probe:
                patience = min(patience, _PATIENCE)
            has_turn = False
            with trio.move_on_after(patience):
                await upstream.asking.acquire()
                has_turn = True
            try:
                if self._has_to_learn(connection):  # else another one has asked
                    if has_turn or not self._contract.has_probe:
                        await self._ask(connection)
                        return
                    capabilities_pending = True
            finally:
                if has_turn:
                    upstream.asking.release()
        await self._find_place(connection, capabilities_pending=capabilities_pending)
        if self._has_to_learn(connection):
            # The response is still to come; or what was known grew old meanwhile, while the client's
            # refresher had no connection.
            upstream.wants_answer()

    async def _find_place(self, connection: Connection, *, capabilities_pending: bool) -> None:
        """See whether the server has a place for one more connection, before a call has to wait for it.

        A server may keep one in a queue, where nothing but a response shows that its turn has come. Where as
        many were answered at a time since it was last lost, nothing is asked: if others have taken the
        places meanwhile, the call is kept waiting, and is made again. It must be one that may be.

        Args:
            connection: which has no call yet.
            capabilities_pending: whether another connection still waits to be told what the server can do.
        """
        upstream = connection.upstream
        if not capabilities_pending and connection.variant is not upstream.variants.current:
            raise PeerClosedError(
                "this connection is of another checksum variant than the server's",
                endpoint=upstream.path,
                hint="connect again",
            )
        lane = connection.lane
        is_proven = len(lane.connections) + len(lane.openings) <= upstream.places_proven
        if is_proven and not capabilities_pending and self._contract.repeatable is True:
            return
        if self._contract.has_probe:
            await self._answer_on(connection, self._contract.probe_request())
            self._check_end(connection)
        else:
            await self._ask(connection)

    async def _ask(self, connection: Connection) -> None:
        question = connection.upstream.next_question()
        answer = await self._answer_on(connection, self._contract.capabilities_request())
        if answer is not None:
            capabilities = self._contract.capabilities_in(answer)
            connection.upstream.learned(capabilities, question=question, process=connection.process)
            connection.said_well = self._checks_health and self._says_well(answer)
            self._check_end(connection)

    def _says_well(self, answer: Any) -> bool:
        try:
            return self._contract.says_well(answer)
        except ContractError:
            return False  # a check asks once more, and tells it

    @staticmethod
    async def _answer_on(connection: Connection, request: Any) -> Any:
        """Return the response to the first request on a connection, None if that is too large to send."""
        try:
            answer = await connection.call(request, float("inf"), lambda _: None)
        except MessageError:
            return None  # it is taken to be able to do everything, and may refuse
        connection.answered()
        return answer

    @staticmethod
    def _check_end(connection: Connection) -> None:
        """Make sure that nothing came after the response: it would be taken for the next one."""
        if not connection.is_reusable():
            raise PeerClosedError(
                "the server closed the connection, or sent more than it was asked for, right after its first "
                "response",
                endpoint=connection.upstream.path,
                hint="it is stopping, or speaks another protocol",
            )
