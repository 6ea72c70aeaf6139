"""The resilient client: one call, answered by whichever of several servers can.

What its users see. A call's way is loop.py's, and runs in the caller's own task; the client's nursery holds
what belongs to no single call: connections being opened and closed, shared ones, the refreshing of
capabilities. This module must never start a task outside of that nursery.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Generic

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from trio_ipc.client.nursery import nursery_of_our_own
from trio_ipc.contract import Contract, RequestT, ResponseT, contract_of, is_async
from trio_ipc.errors import (
    ChannelClosedError,
    ConfigError,
    NoEndpointError,
    shown,
)
from trio_ipc.opening import open_channel
from trio_ipc.telemetry import Traffic
from trio_ipc.transports import PeerPolicy

from .calls import Answer, PendingCall
from .capabilities import Refresher
from .endpoints import Endpoint, EndpointStatistics, Upstream
from .loop import CLOSED, CallLoop
from .metrics import ClientMetrics
from .opening import Connector, Opener
from .pool import Pool
from .settings import ResilientConfig


class ResilientClient(Generic[RequestT, ResponseT]):
    """Calls whichever server can answer. Made by :func:`open_resilient_client`."""

    def __init__(
        self,
        settings: ResilientConfig,
        nursery: trio.Nursery,
        *,
        contract: Contract[RequestT, ResponseT],
        peers: PeerPolicy,
        connect: Connector,
        chance: random.Random,
    ) -> None:
        self._settings = settings
        self._nursery = nursery
        self._contract = contract
        self._metrics = ClientMetrics()
        self._traffic = Traffic()
        self._pool: Pool = Pool(
            settings,
            nursery,
            Opener(
                contract,
                nursery,
                peers=peers,
                connect=connect,
                traffic=self._traffic,
                metrics=self._metrics,
                max_in_flight=settings.max_in_flight,
                believed=settings.capabilities_refresh_ms / 1000,
            ),
        )
        self._loop = CallLoop(contract, settings, self._pool, self._metrics, chance)
        self._upstreams = self._loop.upstreams
        nursery.start_soon(self._pool.reap)

    # --- What it knows ----------------------------------------------------------------------------------

    @enable_ki_protection
    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Ask this server, too, from now on. Nothing is connected before a call needs it.

        Raises:
            ConfigError: there is one of this id.
            ChannelClosedError: the client was closed.
        """
        if self._loop.closed.is_set():
            raise ChannelClosedError(CLOSED, hint="open a new one")
        if endpoint.id in self._upstreams:
            raise ConfigError(
                f"there is an endpoint of the id {endpoint.id!r} already",
                endpoint=endpoint.config.endpoint_path,
                hint="give each an id of its own, or remove the other one first",
            )
        upstream = Upstream(
            endpoint, self._settings, on_open=self._breaker_opened, on_failure=self._upstream_failed
        )
        self._upstreams[endpoint.id] = upstream
        self._loop.rotation.replace(self._upstreams.values())
        self._pool.add(upstream)
        if self._contract.negotiation is not None:
            refresher = Refresher(
                self._contract,
                self._settings,
                call=self._loop.make,
                has_connection=self._pool.has_good_connection,
            )
            self._nursery.start_soon(refresher.run, upstream)

    @enable_ki_protection
    def remove_endpoint(self, endpoint_id: str) -> None:
        """Ask this server no more. Calls that it is answering go on; unused connections are closed.

        Raises:
            NoEndpointError: there is none of this id.
        """
        upstream = self._upstreams.pop(endpoint_id, None)
        if upstream is None:
            known = ", ".join(self._upstreams) or "none"
            raise NoEndpointError(f"there is no endpoint {endpoint_id!r}", hint=f"there are: {known}")
        upstream.removed = True
        upstream.keeper.cancel()
        self._loop.rotation.replace(self._upstreams.values())
        self._pool.remove(upstream)

    def statistics(self) -> tuple[EndpointStatistics, ...]:
        """Return how each endpoint does now, in the order in which they were added."""
        found = []
        for upstream in self._upstreams.values():
            active, pooled = self._pool.counts(upstream)
            stale = self._loop.is_doubtful(upstream, trio.current_time())
            found.append(upstream.statistics(active=active, pooled=pooled, stale=stale))
        return tuple(found)

    def metrics(self) -> ClientMetrics:
        """Return a copy of the metrics as they are now."""
        active, pooled = self._pool.counts()
        transports = {str(one.endpoint.config.transport) for one in self._upstreams.values()}
        return attrs.evolve(
            self._metrics,
            transport=", ".join(sorted(transports)),
            bytes_sent_total=self._traffic.bytes_sent,
            bytes_received_total=self._traffic.bytes_received,
            active_connections_current=active,
            pooled_connections_current=pooled,
        )

    # --- Calling ----------------------------------------------------------------------------------------

    async def call(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it is one deadline around all that happens inside
        needs: Callable[[Any], bool] | None = None,
    ) -> ResponseT:
        """Have a request answered by a server that can, and return its response.

        Like :meth:`ask`, for those who don't care which server it was.
        """
        response: ResponseT = await self._loop.make(self._pending(request, timeout, needs))
        return response

    async def ask(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it is one deadline around all that happens inside
        needs: Callable[[Any], bool] | None = None,
    ) -> Answer[ResponseT]:
        """Have a request answered by a server that can.

        Args:
            request: a message of the contract's request type.
            timeout: seconds for all of it; ``call_timeout_ms`` if None.
            needs: says of a server's capabilities whether they will do, beyond what the request itself
                says. One that lacks them is not asked.

        Returns:
            The response, and whose it is. A response that reports a failure is returned, not raised.

        Raises:
            MessageError: the request is empty or too large. Nothing was sent.
            CallTimeoutError: the time was up.
            AttemptsFailedError: all tries failed, and there were several.
            NoEndpointError: there is no endpoint to ask, or none has what the call needs.
            IpcError: the only try failed: with a :exc:`ConnectError`, :exc:`CircuitOpenError` or
                :exc:`PoolTimeoutError` nothing was sent; with a :exc:`ChannelError` or
                :exc:`ProtocolError` the server may have done the work.
            ChannelClosedError: the client was closed.

        Cancellation closes the connection that waits for the answer, unless others share it.
        """
        call = self._pending(request, timeout, needs)
        response = await self._loop.make(call)
        assert call.asked is not None  # noqa: S101 - for the type checker: there is an answer
        duration = trio.current_time() - call.began
        return Answer(response, call.asked.endpoint.id, tuple(call.errors), duration)

    def _pending(
        self,
        request: RequestT,
        timeout: float | None,
        needs: Callable[[Any], bool] | None,
    ) -> PendingCall:
        self._contract.check_request(request)
        if needs is not None and self._contract.negotiation is None:
            raise TypeError(f"needs was given, but the contract {self._contract.name} has no negotiation")
        given: object = needs
        if given is not None and (not callable(given) or is_async(given)):
            raise TypeError(f"needs is {shown(needs)}, must be a function that is not async, or None")
        if timeout is None:
            timeout = self._settings.call_timeout_ms / 1000
        elif not timeout >= 0:  # which is true of nan, too
            raise ValueError(f"timeout is {shown(timeout)}, must be a number of seconds from 0")
        try:
            timeout = float(timeout)
        except OverflowError:  # an int beyond all floats
            raise ValueError(
                f"timeout is {shown(timeout)}, must be seconds, or None for the setting"
            ) from None
        if self._loop.closed.is_set():
            raise ChannelClosedError(CLOSED, hint="open a new one")
        return PendingCall(request, needs, seconds=timeout, repeatable=self._contract.may_repeat(request))

    # --- In the background ------------------------------------------------------------------------------

    def _breaker_opened(self) -> None:
        self._metrics.circuit_breaker_activations_total += 1

    def _upstream_failed(self, upstream: Upstream) -> None:
        """Let those who wait for it look elsewhere, if there is anybody better."""
        now, others = trio.current_time(), self._upstreams.values()
        if any(other.is_healthy(now) for other in others if other is not upstream):
            self._pool.turn_away(upstream)

    @enable_ki_protection
    async def _aclose(self) -> None:
        self._loop.closed.set()
        await self._pool.aclose()


@contextlib.asynccontextmanager
async def open_resilient_client(
    contract: Contract[RequestT, ResponseT],
    endpoints: Iterable[Endpoint],
    settings: ResilientConfig | None = None,
    *,
    peers: PeerPolicy | None = None,
    connect: Connector = open_channel,
    chance: random.Random | None = None,
) -> AsyncIterator[ResilientClient[RequestT, ResponseT]]:
    """Call several servers as if they were one, for the length of an ``async with`` block.

    Nothing is connected before the first call needs it, so that this succeeds with no server running.

    Args:
        contract: the message types.
        endpoints: the servers; more may be added and removed later.
        settings: limits, deadlines and how calls are spread; None for the defaults.
        peers: which users the servers may run as; by default this process's own and root.
        connect: opens channels, for transports of your own and for tests. It has to end by itself within
            ``accept_timeout_ms`` of the endpoint, as the one by default does.
        chance: where jitter and the weighted strategy take their chances from; for tests.

    Returns:
        A context manager that gives a :class:`ResilientClient`. When the block ends, calls that are under
        way in other tasks end by :exc:`ChannelClosedError`, and every connection is closed.

    Raises:
        ConfigError: two endpoints have the same id.

    Cancellation closes everything at once. What the block raises comes out as it is.
    """
    contract_of(contract)
    policy = PeerPolicy.of(peers)
    async with nursery_of_our_own() as nursery:
        client: ResilientClient[RequestT, ResponseT] = ResilientClient(
            settings or ResilientConfig(),
            nursery,
            contract=contract,
            peers=policy,
            connect=connect,
            chance=chance or random.Random(),  # noqa: S311 - to spread calls, not to keep a secret
        )
        try:
            for endpoint in endpoints:
                client.add_endpoint(endpoint)
            yield client
        finally:
            await client._aclose()  # noqa: SLF001 - the class is public to be used, not to be closed
