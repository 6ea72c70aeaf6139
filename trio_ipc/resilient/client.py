"""The resilient client: one call, answered by whichever of several servers can.

What its users see. A call's way is loop.py's, and runs in the caller's own task; the client's nursery holds
what belongs to no single call: connections being opened and closed, shared ones, the refreshing of
capabilities. This module must never start a task outside of that nursery.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Generic

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from trio_ipc.contract import Contract, RequestT, ResponseT
from trio_ipc.errors import ChannelClosedError, ConfigError, IpcError
from trio_ipc.telemetry import ResilientSnapshot, Traffic
from trio_ipc.transports import PeerPolicy

from .arguments import check_needs, endpoint_of, seconds_or, upstream_of
from .calls import Answer, PendingCall
from .capabilities import Asker, Refresher
from .endpoints import Endpoint, EndpointStatistics, Upstream
from .health import EndpointHealth, HealthChecker
from .loop import CLOSED, CallLoop
from .metrics import ClientMetrics
from .opening import Connector, Opener
from .pool import Pool
from .settings import ResilientConfig
from .snapshots import Snapshots


class ResilientClient(Generic[RequestT, ResponseT]):
    """Calls several servers as if they were one. Made by :func:`open_resilient_client`."""

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
        self._asker = Asker(contract, self._loop.make)
        self._refresher = Refresher(self._asker, settings, has_connection=self._pool.has_good_connection)
        self._checker = HealthChecker(contract, settings, call=self._loop.make, closed=self._loop.closed)
        self._snapshots = Snapshots(
            contract.name,
            settings.strategy,
            upstreams=self._upstreams,
            pool=self._pool,
            metrics=self._metrics,
            traffic=self._traffic,
        )
        nursery.start_soon(self._pool.reap)

    # --- Its endpoints ----------------------------------------------------------------------------------

    @enable_ki_protection
    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Use a further server from now on. The client connects when a call needs it.

        Raises:
            ConfigError: there is one of this id.
            ChannelClosedError: the client was closed.
            TypeError: it is no endpoint.
        """
        endpoint_of(endpoint)
        self._check_open()
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
            self._nursery.start_soon(self._refresher.run, upstream)

    @enable_ki_protection
    def remove_endpoint(self, endpoint_id: str) -> None:
        """Stop using a server. Calls that it is answering continue; unused connections are closed.

        Raises:
            NoEndpointError: there is none of this id.
            TypeError: the id is no str.
        """
        upstream = upstream_of(endpoint_id, self._upstreams)
        del self._upstreams[endpoint_id]
        upstream.removed = True
        upstream.keeper.cancel()
        self._loop.rotation.replace(self._upstreams.values())
        self._pool.remove(upstream)

    @enable_ki_protection
    def set_priority(self, endpoint_id: str, priority: int) -> None:
        """Give an endpoint another priority, which holds from the next call on.

        Args:
            endpoint_id: whose.
            priority: as :attr:`Endpoint.priority`: 1 or more; a smaller number is asked first.

        Raises:
            NoEndpointError: there is none of this id.
            ConfigError: the priority is not valid.
            TypeError: the id is no str.
        """
        upstream = upstream_of(endpoint_id, self._upstreams)
        upstream.endpoint = attrs.evolve(upstream.endpoint, priority=priority)
        upstream.priority = priority
        self._loop.rotation.replace(self._upstreams.values())

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the endpoints as they are now, in the order in which they were added."""
        return tuple(upstream.endpoint for upstream in self._upstreams.values())

    def statistics(self) -> tuple[EndpointStatistics, ...]:
        """Return how each endpoint does now, in the order in which they were added."""
        found = []
        for upstream in self._upstreams.values():
            active, pooled = self._pool.counts(upstream)
            stale = self._loop.is_doubtful(upstream, trio.current_time())
            found.append(
                upstream.statistics(
                    active=active, pooled=pooled, stale=stale, strategy=self._settings.strategy
                )
            )
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

    def snapshot(self) -> ResilientSnapshot:
        """Return what exporters report of it and its endpoints; in any thread, and also when it is closed."""
        return self._snapshots.take()

    # --- Calling ----------------------------------------------------------------------------------------

    async def call(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it is one deadline around all that happens inside
        needs: Callable[[Any], bool] | None = None,
        endpoint: str | None = None,
    ) -> ResponseT:
        """Send a request to a server that can answer it, and return the response.

        Like :meth:`ask`, but without the details of the :class:`Answer`.
        """
        response: ResponseT = await self._loop.make(self._pending(request, timeout, needs, endpoint))
        return response

    async def ask(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it is one deadline around all that happens inside
        needs: Callable[[Any], bool] | None = None,
        endpoint: str | None = None,
    ) -> Answer[ResponseT]:
        """Send a request to a server that can answer it.

        Args:
            request: a message of the contract's request type.
            timeout: seconds for all of it; ``call_timeout_ms`` if None.
            needs: says of a server's capabilities whether they will do, beyond what the request itself
                says. One that lacks them is not asked.
            endpoint: the id of the one endpoint to ask, None for any.

        Returns:
            The response, and whose it is. A response that reports a failure is returned, not raised.

        Raises:
            MessageError: the request is empty or too large. Nothing was sent.
            CallTimeoutError: the time was up.
            AttemptsFailedError: several attempts were made, and all failed.
            NoEndpointError: there is no endpoint to ask, or none has what the call needs; or there is none of
                the id that was given (any more).
            IpcError: the only try failed: with a :exc:`ConnectError`, :exc:`CircuitOpenError` or
                :exc:`PoolTimeoutError` nothing was sent; with a :exc:`ChannelError` or
                :exc:`ProtocolError` the server may have done the work.
            ChannelClosedError: the client was closed.
            TypeError: an argument is of the wrong type.
            ValueError: the timeout is not valid.

        Cancellation closes the connection that waits for the response, unless others share it.
        """
        call = self._pending(request, timeout, needs, endpoint)
        response = await self._loop.make(call)
        assert call.asked is not None  # noqa: S101 - for the type checker: there is a response
        duration = trio.current_time() - call.began
        return Answer(response, call.asked.upstream.endpoint.id, tuple(call.errors), duration)

    def _pending(
        self,
        request: RequestT,
        timeout: float | None,
        needs: Callable[[Any], bool] | None,
        endpoint: str | None,
    ) -> PendingCall:
        self._contract.check_request(request)
        if needs is not None:
            check_needs(needs, self._contract)
        seconds = seconds_or(timeout, self._settings.call_timeout_ms)
        self._check_open()
        only = None if endpoint is None else upstream_of(endpoint, self._upstreams)
        repeatable, began = self._contract.may_repeat(request), self._loop.now()
        return PendingCall(request, needs, began=began, seconds=seconds, repeatable=repeatable, only=only)

    # --- Looking after servers --------------------------------------------------------------------------

    async def negotiate(
        self,
        endpoint_id: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it is one deadline around all that happens inside
    ) -> Any:
        """Ask a server for its capabilities now, and use its response from now on.

        Connects if necessary. An open breaker lets no request through.

        Args:
            endpoint_id: whose server.
            timeout: seconds for all of it; ``call_timeout_ms`` if None.

        Returns:
            The capabilities that the contract's negotiation reads from the response.

        Raises:
            NoEndpointError: there is none of this id (any more).
            IpcError: it could not be asked, as :meth:`ask` raises it.
            ContractError: the contract's functions returned what they must not.
            ChannelClosedError: the client was closed.
            TypeError: the contract has no negotiation, or an argument is of the wrong type.
            ValueError: the timeout is not valid.

        Cancellation closes the connection that waits for the response, unless others share it.
        """
        seconds = self._seconds_to_negotiate(timeout)
        upstream = upstream_of(endpoint_id, self._upstreams)
        return await self._asker.ask(upstream, seconds, may_connect=True)

    async def refresh_capabilities(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it is one deadline around all that happens inside
    ) -> dict[str, IpcError]:
        """Ask all servers for their capabilities at the same time, as :meth:`negotiate` does.

        The client does so itself every ``capabilities_refresh_ms``, over an existing connection.

        Args:
            timeout: seconds for all of it; ``call_timeout_ms`` if None.

        Returns:
            Why some could not be asked, by the ids of their endpoints; empty if all have answered.

        Raises:
            ContractError: the contract's functions returned what they must not.
            ChannelClosedError: the client was closed.
            TypeError: the contract has no negotiation, or the timeout is no number.
            ValueError: the timeout is not valid.

        Cancellation closes the connections that wait for a response, unless others share them.
        """
        seconds = self._seconds_to_negotiate(timeout)
        failures = await self._asker.ask_all([*self._upstreams.values()], seconds)
        self._check_open()
        return failures

    async def check_health(
        self,
        endpoint_id: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it is one deadline around all that happens inside
    ) -> EndpointHealth:
        """Send a server the contract's health check; without one, see by the cheapest request if it answers.

        Connects if necessary. The result counts for the endpoint's health. A failed check opens no breaker;
        an open breaker lets no check through, and a half-open one counts it.

        Args:
            endpoint_id: whose server.
            timeout: seconds for all of it; ``call_timeout_ms`` if None.

        Returns:
            Whether it is well, and why not. That it is not well is no exception.

        Raises:
            NoEndpointError: there is none of this id (any more).
            ContractError: the contract's functions returned what they must not.
            ChannelClosedError: the client was closed.
            TypeError: an argument is of the wrong type.
            ValueError: the timeout is not valid.

        Cancellation closes the connection that waits for the response, unless others share it.
        """
        seconds = seconds_or(timeout, self._settings.call_timeout_ms)
        self._check_open()
        return await self._checker.check(upstream_of(endpoint_id, self._upstreams), seconds)

    async def wait_until_healthy(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - it is one deadline around all that happens inside
    ) -> str:
        """Check all servers, again and again, until one is well.

        Args:
            timeout: seconds to wait; ``call_timeout_ms`` if None, :data:`math.inf` for ever.

        Returns:
            The id of the endpoint whose server was well first.

        Raises:
            CallTimeoutError: none was well in time; its ``attempts`` say why.
            NoEndpointError: there is no endpoint.
            ContractError: the contract's functions returned what they must not.
            ChannelClosedError: the client was closed.
            TypeError: the timeout is no number.
            ValueError: the timeout is not valid.

        Cancellation ends all checks.
        """
        seconds = seconds_or(timeout, self._settings.call_timeout_ms)
        self._check_open()
        return await self._checker.wait_until_healthy(self._upstreams.values, seconds)

    def _seconds_to_negotiate(self, timeout: float | None) -> float:
        if self._contract.negotiation is None:
            raise TypeError(f"the contract {self._contract.name} has no negotiation: there is nothing to ask")
        seconds = seconds_or(timeout, self._settings.call_timeout_ms)
        self._check_open()
        return seconds

    def _check_open(self) -> None:
        if self._loop.closed.is_set():
            raise ChannelClosedError(CLOSED, hint="open a new one")

    # --- In the background ------------------------------------------------------------------------------

    def _breaker_opened(self) -> None:
        self._metrics.circuit_breaker_activations_total += 1

    def _upstream_failed(self, upstream: Upstream) -> None:
        """Let those who wait for it look elsewhere, if there is anybody better."""
        now, others = trio.current_time(), self._upstreams.values()
        if any(other.is_healthy(now) for other in others if other is not upstream):
            self._pool.send_elsewhere(upstream)

    @enable_ki_protection
    async def _aclose(self) -> None:
        self._loop.closed.set()
        self._snapshots.end()
        await self._pool.aclose()
