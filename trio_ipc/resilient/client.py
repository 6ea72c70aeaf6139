"""The resilient client: one call, answered by whichever of several collectors can.

Everything it does for a call happens in the caller's own task and under one deadline; its nursery only
holds what belongs to no call: pipelines, the closing of old connections, the refreshing of capabilities.
It must never make a request again that may have reached a collector, unless the contract says that this
is harmless; and never let a call end in anything but one answer, one error, or its caller's cancellation.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

import attrs
import trio

from trio_ipc.calling import nursery_of_our_own, open_trusted_channel
from trio_ipc.channel import Channel, close_at_once
from trio_ipc.client import Client
from trio_ipc.config import IpcConfig
from trio_ipc.contract import Contract, RequestT, ResponseT
from trio_ipc.errors import (
    ChannelClosedError,
    ChannelError,
    ConfigError,
    ConnectError,
    IpcError,
    MessageError,
    NoEndpointError,
    PeerClosedError,
    PoolTimeoutError,
    ProtocolError,
)
from trio_ipc.pipeline import Pipeline
from trio_ipc.selection import open_channel
from trio_ipc.telemetry import Traffic
from trio_ipc.transports import PeerPolicy

from .attempts import Answer, Attempts, Step
from .balancing import choose
from .endpoints import Collector, Endpoint, EndpointStatistics
from .metrics import ClientMetrics
from .pool import Connection, Pool, TurnedAwayError
from .retry import PASSING, NobodyReachedError, with_backoff
from .settings import ResilientConfig

if TYPE_CHECKING:
    from trio_ipc.daemoneye import DetectionResult, DetectionTask

_logger = logging.getLogger(__name__)

_ResultT = TypeVar("_ResultT")

_CLOSED: Final = "this client was closed"

#: Opens a channel to an endpoint, as :func:`trio_ipc.selection.open_channel` does.
Connector = Callable[[IpcConfig], Awaitable[Channel]]


class ResilientClient(Generic[RequestT, ResponseT]):
    """Calls whichever collector can answer. Made by :func:`open_resilient_client`."""

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
        self._peers = peers
        self._connect_channel = connect
        self._draw = chance.random
        self._collectors: dict[str, Collector] = {}
        self._pool = Pool[RequestT, ResponseT](settings, nursery)
        self._metrics = ClientMetrics()
        self._traffic = Traffic()
        self._picks = 0
        self._calls: set[trio.CancelScope] = set()
        self._closed = False
        nursery.start_soon(self._pool.reap)

    # --- What it knows ----------------------------------------------------------------------------------

    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Ask this collector, too, from now on. Nothing is connected before a call needs it.

        Raises:
            ConfigError: there is one of this id.
            ChannelClosedError: the client was closed.
        """
        if self._closed:
            raise ChannelClosedError(_CLOSED, hint="open a new one")
        if endpoint.id in self._collectors:
            raise ConfigError(
                f"there is an endpoint of the id {endpoint.id!r} already",
                endpoint=endpoint.config.endpoint_path,
                hint="give each an id of its own, or remove the other one first",
            )
        collector = Collector(
            endpoint, self._settings, on_open=self._breaker_opened, on_failure=self._collector_failed
        )
        self._collectors[endpoint.id] = collector
        if self._contract.negotiation is not None:
            self._nursery.start_soon(self._keep_capabilities_fresh, collector)

    def remove_endpoint(self, endpoint_id: str) -> None:
        """Ask this collector no more. Calls that it is answering go on; unused connections are closed.

        Raises:
            NoEndpointError: there is none of this id.
        """
        collector = self._collectors.pop(endpoint_id, None)
        if collector is None:
            known = ", ".join(self._collectors) or "none"
            raise NoEndpointError(f"there is no endpoint {endpoint_id!r}", hint=f"there are: {known}")
        collector.removed = True
        collector.keeper.cancel()
        self._pool.turn_away(collector)
        self._pool.retire_idle(collector)

    def statistics(self) -> tuple[EndpointStatistics, ...]:
        """Return how each endpoint does now, in the order in which they were added."""
        found = []
        for collector in self._collectors.values():
            active, pooled = self._pool.counts(collector)
            stale = self._is_doubtful(collector, trio.current_time())
            found.append(collector.statistics(active=active, pooled=pooled, stale=stale))
        return tuple(found)

    def metrics(self) -> ClientMetrics:
        """Return a copy of the metrics as they are now."""
        active, pooled = self._pool.counts()
        transports = {str(one.endpoint.config.transport) for one in self._collectors.values()}
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
        """Have a request answered by a collector that can, and return its response.

        Like :meth:`ask`, for those who don't care which collector it was.
        """
        return (await self.ask(request, timeout=timeout, needs=needs)).response

    async def ask(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it is one deadline around all that happens inside
        needs: Callable[[Any], bool] | None = None,
    ) -> Answer[ResponseT]:
        """Have a request answered by a collector that can.

        Args:
            request: a message of the contract's request type.
            timeout: seconds for all of it; ``call_timeout_ms`` if None.
            needs: says of a collector's capabilities whether they will do, beyond what the request itself
                says. One that lacks them is not asked.

        Returns:
            The response, and whose it is. A response that reports a failure is returned, not raised.

        Raises:
            MessageError: the request is empty or too large. Nothing was sent.
            CallTimeoutError: the time was up.
            AttemptsFailedError: all tries failed, and there were several.
            NoEndpointError: there is no collector to ask, or none has what the call needs.
            IpcError: the only try failed: with a :exc:`ConnectError`, :exc:`CircuitOpenError` or
                :exc:`PoolTimeoutError` nothing was sent; with a :exc:`ChannelError` or
                :exc:`ProtocolError` the collector may have done the work.
            ChannelClosedError: the client was closed.

        Cancellation closes the connection that waits for the answer, unless others share it.
        """
        self._check(request, needs, timeout)
        if timeout is None:
            timeout = self._settings.call_timeout_ms / 1000
        repeatable = self._contract.may_repeat(request)
        attempts = Attempts(request, needs, seconds=timeout, repeatable=repeatable)
        self._metrics.tasks_sent_total += 1
        try:
            answer = await self._in_time(attempts, partial(self._answer, attempts))
        except BaseException:
            self._metrics.tasks_failed_total += 1
            raise
        self._metrics.tasks_completed_total += 1
        self._metrics.task_duration_ms_total += answer.duration * 1000
        return answer

    def _check(self, request: RequestT, needs: Callable[[Any], bool] | None, timeout: float | None) -> None:
        kind = self._contract.request_type
        if not isinstance(request, kind):
            raise TypeError(f"the request is a {type(request).__name__}, must be a {kind.__name__}")
        if needs is not None and self._contract.negotiation is None:
            raise TypeError(f"needs was given, but the contract {self._contract.name} has no negotiation")
        if timeout is not None and not timeout >= 0:  # which is true of nan, too
            raise ValueError(f"timeout is {timeout}, must be a number of seconds from 0")
        if self._closed:
            raise ChannelClosedError(_CLOSED, hint="open a new one")

    async def _in_time(
        self,
        attempts: Attempts[RequestT],
        doing: Callable[[], Awaitable[_ResultT]],
    ) -> _ResultT:
        """Do it under its one deadline, and see to it that every collector has its verdict in the end."""
        abandoned = False
        scope = trio.CancelScope(deadline=attempts.deadline)
        self._calls.add(scope)
        try:
            with scope:
                return await doing()
            if self._closed:
                abandoned = True
                raise ChannelClosedError(_CLOSED, hint="open a new one")
            raise attempts.timed_out()
        except trio.Cancelled:
            abandoned = True
            if trio.current_time() >= attempts.deadline:
                attempts.overdue()  # the caller's own deadline was the same
            raise
        finally:
            self._calls.discard(scope)
            attempts.close(abandoned=abandoned)

    async def _answer(self, attempts: Attempts[RequestT]) -> Answer[ResponseT]:
        try:
            return await with_backoff(partial(self._ask_around, attempts), self._settings, self._draw)
        except NobodyReachedError:
            failure = attempts.failure()
            raise failure from failure.__cause__

    async def _ask_around(self, attempts: Attempts[RequestT]) -> Answer[ResponseT]:
        """Ask one collector after the other, each once, until there is an answer."""
        visited: set[Collector] = set()
        while (collector := self._choose(attempts, visited)) is not None:
            visited.add(collector)
            connection = await self._reach(attempts, collector, visited)
            answer = None if connection is None else await self._exchange(attempts, connection)
            if answer is not None:
                return answer
        attempts.now(Step.PAUSING)
        if any(not collector.removed for collector in attempts.unreached):
            raise NobodyReachedError
        if not attempts.errors and self._collectors:
            raise NoEndpointError(
                f"none of the {len(self._collectors)} collectors has what the call needs",
                hint="see statistics() for what each can do",
            )
        failure = attempts.failure()
        raise failure from failure.__cause__

    def _choose(self, attempts: Attempts[RequestT], visited: set[Collector]) -> Collector | None:
        now = trio.current_time()
        known = self._collectors.copy()  # what is called below is users' code, and may change it
        candidates = []
        for collector in known.values():
            if collector in visited or collector in attempts.given_up:
                continue
            doubtful = self._is_doubtful(collector, now)
            suits = _has_what_is_needed(collector, attempts)
            if suits or doubtful:
                capable = suits and self._is_capable(collector, attempts)
                candidates.append(collector.candidate(capable=capable, doubtful=doubtful))
        chosen = choose(candidates, self._settings.strategy, now=now, chance=self._draw())
        if chosen is None:
            return None
        self._picks += 1
        collector = known[chosen.id]
        collector.picked(self._picks)
        return collector

    def _is_capable(self, collector: Collector, attempts: Attempts[RequestT]) -> bool:
        negotiation = self._contract.negotiation
        if negotiation is None or collector.capabilities is None:
            return True
        return negotiation.can_do(collector.capabilities, attempts.request)

    def _is_doubtful(self, collector: Collector, now: float) -> bool:
        """Return whether what it can do was learnt too long ago. The next connection asks first of all."""
        if collector.capabilities_at is None:
            return False
        believed_until = collector.capabilities_at + self._settings.capabilities_refresh_ms / 1000
        return now >= believed_until and not self._pool.has_connection(collector)

    async def _reach(
        self, attempts: Attempts[RequestT], collector: Collector, visited: set[Collector]
    ) -> Connection[RequestT, ResponseT] | None:
        """Get a connection to a collector; None if the next one should be asked, for what was noted."""
        if attempts.permit(collector) is None:
            attempts.refused(collector)
            return None
        seemed_capable = self._is_capable(collector, attempts)
        attempts.now(Step.QUEUING, collector)
        try:
            connection = await self._pool.acquire(
                collector, partial(self._open, collector, attempts), attempts.ticket
            )
        except TurnedAwayError:
            visited.discard(collector)  # it has not been asked, and may still have to be
            attempts.withdraw(collector)
            return None
        except PoolTimeoutError as exc:
            attempts.give_up(collector, exc)
            attempts.withdraw(collector)
            return None
        except PASSING as exc:
            attempts.not_reached(collector, exc)
            return None
        except (ConnectError, ChannelError, ProtocolError) as exc:
            if self._closed:
                raise
            attempts.failed(collector, exc)
            return None
        try:
            will_do = _has_what_is_needed(collector, attempts) and (
                not seemed_capable or self._is_capable(collector, attempts)
            )
        except BaseException:
            self._pool.release(connection)  # the contract's functions and the call's are users' code
            raise
        if not will_do:
            # Only now it said so. There may be one that can; if not, this one's refusal is the answer.
            self._pool.release(connection)
            visited.discard(collector)
            attempts.withdraw(collector)
            return None
        return connection

    async def _exchange(
        self, attempts: Attempts[RequestT], connection: Connection[RequestT, ResponseT]
    ) -> Answer[ResponseT] | None:
        collector = connection.collector
        attempts.now(Step.ASKING, collector)
        attempts.settled = False
        try:
            response = await connection.call(attempts.request, partial(self._settle, attempts, connection))
        except trio.Cancelled as exc:
            if not attempts.settled:
                # Others may share the connection: it is not settled before the answer comes.
                if attempts.is_failure(exc):
                    attempts.judged = True
                    collector.failed()
                attempts.left = True
                self._pool.leave(connection)
            raise
        except (ChannelError, ProtocolError) as exc:
            if self._closed:
                raise
            self._no_answer(attempts, connection, exc)
            if attempts.repeatable:
                return None
            failure = attempts.failure()
            raise failure from failure.__cause__
        attempts.answered(collector)
        return Answer(
            response,
            collector.endpoint.id,
            tuple(attempts.errors),
            trio.current_time() - attempts.began,
        )

    def _settle(
        self,
        attempts: Attempts[RequestT],
        connection: Connection[RequestT, ResponseT],
        outcome: BaseException | None,
    ) -> None:
        """Note how a collector did before its connection, or its place, is given to who waits for it."""
        attempts.settled = True
        connection.left -= attempts.left
        if attempts.judged:
            pass  # what comes now is too late to say more
        elif outcome is None:
            connection.collector.answered()
        elif attempts.is_failure(outcome):
            connection.collector.failed()
        self._pool.release(connection, used=not attempts.upkeep)

    @staticmethod
    def _no_answer(
        attempts: Attempts[RequestT], connection: Connection[RequestT, ResponseT], exc: IpcError
    ) -> None:
        collector = connection.collector
        attempts.now(Step.CHOOSING)
        # One connection that breaks is one failure, however many calls were on it.
        blamed, connection.blamed = connection.blamed, True
        if attempts.repeatable and isinstance(exc, PeerClosedError):
            attempts.closed_under_it(collector, exc, blamed=blamed)
        elif blamed:
            attempts.give_up(collector, exc)
        else:
            attempts.failed(collector, exc)

    # --- Connecting -------------------------------------------------------------------------------------

    async def _open(
        self, collector: Collector, attempts: Attempts[RequestT]
    ) -> Connection[RequestT, ResponseT]:
        attempts.now(Step.CONNECTING, collector)
        metrics = self._metrics
        metrics.connection_attempts_total += 1
        began = trio.current_time()
        try:
            connection = await self._connect(collector)
        except BaseException as exc:
            metrics.connection_failures_total += 1
            collector.not_connected()
            if attempts.is_failure(exc):
                collector.failed()  # now: its place is about to be given to who waits for it
            raise
        metrics.connections_established_total += 1
        metrics.connection_duration_ms_total += (trio.current_time() - began) * 1000
        return connection

    async def _connect(self, collector: Collector) -> Connection[RequestT, ResponseT]:
        """Connect, and ask first of all what the collector can do: it may be another one by now."""
        config = collector.endpoint.config
        channel = await open_trusted_channel(config, self._peers, self._connect_channel)
        if self._closed:  # while it connected; the nursery takes no task any longer
            await close_at_once(channel)
            raise ChannelClosedError(_CLOSED, hint="open a new one")
        line: Client[RequestT, ResponseT] | Pipeline[RequestT, ResponseT]
        if self._settings.max_in_flight == 1:
            line = Client(channel, config, contract=self._contract)
        else:
            line = Pipeline(channel, contract=self._contract)
            self._nursery.start_soon(line.run)
        channel.traffic = self._traffic
        connection = Connection(collector, line)
        try:
            negotiation = self._contract.negotiation
            if negotiation is not None:
                answer = await connection.call(negotiation.ask(), lambda _: None)
                collector.learned(negotiation.learn(answer))
                if not connection.is_quiet():
                    # What came after the answer would be taken for the next one.
                    raise PeerClosedError(
                        "the collector closed the connection, or sent more than it was asked for, right "
                        "after it had said what it can do",
                        endpoint=collector.path,
                        hint="it is stopping, or speaks another protocol",
                    )
        except MessageError:
            pass  # frames too small to ask: it is taken to be able to do everything, and may refuse
        except BaseException:
            await close_at_once(connection)
            raise
        return connection

    # --- In the background ------------------------------------------------------------------------------

    async def _keep_capabilities_fresh(self, collector: Collector) -> None:
        """Ask again every so often, over a connection that is there.

        Nothing is connected for this alone: where there is no connection, the next one will ask.
        """
        believed = self._settings.capabilities_refresh_ms / 1000
        with collector.keeper:
            await collector.capabilities_learnt.wait()
            due = trio.current_time() + believed
            while True:
                await trio.sleep_until(due)
                due = (collector.capabilities_at or 0.0) + believed
                if due > trio.current_time():
                    continue  # a new connection has asked meanwhile
                if self._pool.has_connection(collector):
                    await self._refresh(collector)
                    due = trio.current_time() + believed
                else:
                    collector.capabilities_learnt = trio.Event()
                    await collector.capabilities_learnt.wait()

    async def _refresh(self, collector: Collector) -> None:
        negotiation = self._contract.negotiation
        assert negotiation is not None  # noqa: S101 - for the type checker: there is no keeper without one
        seconds = self._settings.call_timeout_ms / 1000
        attempts = Attempts(negotiation.ask(), seconds=seconds, repeatable=False, upkeep=True)
        try:
            await self._in_time(attempts, partial(self._negotiate_again, attempts, collector))
        except IpcError as exc:
            # What it says about the collector is noted; the next connection will ask again. Its text may
            # quote what the collector sent, and no payload is logged.
            kind = type(exc).__name__
            _logger.debug("capabilities were not refreshed: %s", kind, extra={"endpoint": collector.path})
        except Exception:
            # The contract's functions are users' code; what they raise must not end the client.
            _logger.exception("the contract's negotiation failed", extra={"endpoint": collector.path})

    async def _negotiate_again(self, attempts: Attempts[RequestT], collector: Collector) -> None:
        negotiation = self._contract.negotiation
        asked_at = collector.capabilities_at
        connection = await self._reach(attempts, collector, set())
        if connection is None or negotiation is None:
            return
        if collector.capabilities_at != asked_at:
            self._pool.release(connection, used=False)  # it is a new one, and has asked just now
            attempts.answered(collector)
            return
        answer = await self._exchange(attempts, connection)
        if answer is not None:
            collector.learned(negotiation.learn(answer.response))

    def _breaker_opened(self) -> None:
        self._metrics.circuit_breaker_activations_total += 1

    def _collector_failed(self, collector: Collector) -> None:
        """Let those who wait for it look elsewhere, if there is anybody better."""
        others = self._collectors.values()
        if any(other.healthy for other in others if other is not collector):
            self._pool.turn_away(collector)

    async def _aclose(self) -> None:
        self._closed = True
        for scope in self._calls:
            scope.cancel()
        await self._pool.aclose()


def _has_what_is_needed(collector: Collector, attempts: Attempts[RequestT]) -> bool:
    if attempts.needs is None or collector.capabilities is None:
        return True
    return attempts.needs(collector.capabilities)


@overload
def open_resilient_client(
    endpoints: Iterable[Endpoint],
    settings: ResilientConfig | None = None,
    *,
    peers: PeerPolicy | None = None,
    connect: Connector = open_channel,
    chance: random.Random | None = None,
) -> contextlib.AbstractAsyncContextManager[ResilientClient[DetectionTask, DetectionResult]]: ...


@overload
def open_resilient_client(
    endpoints: Iterable[Endpoint],
    settings: ResilientConfig | None = None,
    *,
    contract: Contract[RequestT, ResponseT],
    peers: PeerPolicy | None = None,
    connect: Connector = open_channel,
    chance: random.Random | None = None,
) -> contextlib.AbstractAsyncContextManager[ResilientClient[RequestT, ResponseT]]: ...


@contextlib.asynccontextmanager
async def open_resilient_client(
    endpoints: Iterable[Endpoint],
    settings: ResilientConfig | None = None,
    *,
    contract: Contract[Any, Any] | None = None,
    peers: PeerPolicy | None = None,
    connect: Connector = open_channel,
    chance: random.Random | None = None,
) -> AsyncIterator[ResilientClient[Any, Any]]:
    """Call several collectors as if they were one, for the length of an ``async with`` block.

    Nothing is connected before the first call needs it, so that this succeeds with no collector running.

    Args:
        endpoints: the collectors; more may be added and removed later.
        settings: limits, deadlines and how calls are spread; None for the defaults.
        contract: the message types; None for DaemonEye's.
        peers: which users the collectors may run as; by default this process's own and root.
        connect: opens channels, for transports of your own and for tests.
        chance: where jitter and the weighted strategy take their chances from; for tests.

    Returns:
        A context manager that gives a :class:`ResilientClient`. When the block ends, calls that are under
        way in other tasks end by :exc:`ChannelClosedError`, and every connection is closed.

    Raises:
        ConfigError: two endpoints have the same id.

    Cancellation closes everything at once. What the block raises comes out as it is.
    """
    if contract is None:
        from trio_ipc.daemoneye import DETECTION  # noqa: PLC0415 - only who speaks it loads its messages

        contract = DETECTION
    policy = PeerPolicy.of(peers)
    async with nursery_of_our_own() as nursery:
        client: ResilientClient[Any, Any] = ResilientClient(
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
