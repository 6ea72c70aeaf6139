"""Places for connections, a queue for them, and refusals.

``max_connections`` connections are served at a time; as many again may wait for a place, for
``accept_timeout_ms``. This module must never start a task outside the server's nursery, and never read what a
client has sent before it has a place.
"""

from __future__ import annotations

import enum
import itertools
import logging
from typing import Any, Final, Generic

import trio

from trio_ipc.channel import STOPPED, Channel, close_at_once
from trio_ipc.contract import RequestT, ResponseT
from trio_ipc.logs import LimitedLog, Log
from trio_ipc.telemetry import CloseReason, Refusal, ServerCounters, ServerTelemetry, TimeoutKind
from trio_ipc.transports import PeerPolicy, PeerState

from .connection import Connection
from .shared import Shared

_log = Log(__name__)

#: Seconds between two looks whether a client that waits for a place is still there.
_LOOK_EVERY: Final = 0.1


class Outcome(enum.Enum):
    """What came of a connection's wait for a place."""

    PLACED = "placed"
    FULL = "full"
    TIMED_OUT = "timed out"
    PEER_GONE = "peer gone"
    STOPPED = "stopped"


class _Waiter:
    """A connection in the queue, and why it waits no longer."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.scope = trio.CancelScope()
        self.outcome = Outcome.PLACED

    def give_up(self, outcome: Outcome) -> None:
        if not self.scope.cancel_called:
            self.outcome = outcome
            self.scope.cancel()


class Places(Generic[RequestT, ResponseT]):
    """Gives each accepted connection a place or refuses it, and serves those that have one.

    Args:
        shared: what all connections have in common.
        peers: who may come.
        telemetry: where it is counted.
        endpoint: of the server, for logs.

    Attributes:
        refusals: the log of refused connections.
    """

    def __init__(
        self,
        shared: Shared[RequestT, ResponseT],
        peers: PeerPolicy,
        telemetry: ServerTelemetry,
        endpoint: str,
    ) -> None:
        config = shared.config
        self._shared = shared
        self._peers = peers
        self._telemetry = telemetry
        self._endpoint = endpoint
        self._numbers = itertools.count(1)
        self._limiter = trio.CapacityLimiter(config.max_connections)
        self._queue: set[_Waiter] = set()
        self._connections: set[Connection[RequestT, ResponseT]] = set()
        self._stopping = False
        waits = shared.watchdog.waits
        self._in_time = waits(config.accept_timeout_ms / 1000, self._timed_out)
        self._looks = waits(_LOOK_EVERY, self._look)
        self.refusals = LimitedLog(
            _log,
            logging.WARNING,
            "more connections were refused: %d",
            counted_as="refused",
            fields={"endpoint": endpoint},
        )

    def stop(self) -> None:
        """Let nobody wait any longer, and have every connection take no further request."""
        self._stopping = True
        for waiter in [*self._queue]:
            waiter.give_up(Outcome.STOPPED)
        for connection in [*self._connections]:
            connection.finish()

    async def serve(self, channel: Channel) -> None:
        """See one connection through to its end, whatever it is, and close it."""
        if not isinstance(channel, Channel):
            # The program's own mistake: of a listener of its own kind it cannot be told before.
            await close_at_once(channel)
            raise TypeError(f"the listener gave a {type(channel).__name__}, must give channels")
        # By the channel, not by what is active now: it may have been accepted just before a switch.
        counters = self._telemetry.counters_of(channel.transport)
        counters.connections_accepted += 1
        fields: dict[str, Any] = {
            "endpoint": self._endpoint,
            "connection": next(self._numbers),
            "peer": str(channel.peer),
            "transport": counters.transport,
        }
        try:
            verdict = self._peers.judge(channel.peer)
            if not verdict.allowed:
                why = f"{verdict.peer} is not allowed, allowed is {self._peers}"
                self._refuse(Refusal.CREDENTIALS, why, counters, fields)
                return
            outcome = await self._take_place(channel, counters)
            if outcome is Outcome.PLACED:
                try:
                    await self._serve_placed(channel, counters, fields, self._peers.said_of(verdict))
                finally:
                    self._limiter.release()
            elif outcome in {Outcome.PEER_GONE, Outcome.STOPPED}:
                counters.connections_left += 1
                _log.info("connection %d left before it had a place", fields["connection"], extra=fields)
            else:
                counters.timeouts[TimeoutKind.ACCEPT] += outcome is Outcome.TIMED_OUT
                why = f"the limit max_connections is {self._shared.config.max_connections}"
                self._refuse(Refusal.LIMIT, why, counters, fields)
        except Exception as exc:  # noqa: BLE001 - logged
            _log_defect(exc, fields)
        except BaseExceptionGroup as group:
            # It came together with a cancellation or the like, which goes on.
            defects, rest = group.split(Exception)
            if defects is not None:
                _log_defect(defects, fields)
            assert rest is not None  # noqa: S101 - else it were an Exception
            raise rest from None
        finally:
            await close_at_once(channel)
            _let_go_of_nurseries()

    def _refuse(self, kind: Refusal, why: str, counters: ServerCounters, fields: dict[str, Any]) -> None:
        counters.connections_refused[kind] += 1
        fields["reason"] = kind.value
        self.refusals.write("connection %d refused: %s", fields["connection"], why, extra=fields)

    async def _take_place(self, channel: Channel, counters: ServerCounters) -> Outcome:
        """Get one of the ``max_connections`` places, and wait for one if need be."""
        try:
            self._limiter.acquire_nowait()
            return Outcome.PLACED
        except trio.WouldBlock:
            pass
        if len(self._queue) >= self._shared.config.max_connections:
            return Outcome.FULL
        waiter = _Waiter(channel)
        counters.connections_waiting += 1
        left = True
        try:
            outcome = await self._wait(waiter)
            left = False
            return outcome
        finally:
            counters.connections_waiting -= 1
            counters.connections_left += left  # cut off while it waited

    async def _wait(self, waiter: _Waiter) -> Outcome:
        self._queue.add(waiter)
        now = trio.current_time()
        self._in_time.begin(waiter, now)
        self._looks.begin(waiter, now)
        if self._stopping:
            waiter.give_up(Outcome.STOPPED)  # accepted just before the stop, started just after
        try:
            with waiter.scope:
                await self._limiter.acquire()
                return Outcome.PLACED
        finally:
            self._queue.discard(waiter)
            self._in_time.end(waiter)
            self._looks.end(waiter)
        return waiter.outcome

    def _timed_out(self, waiter: _Waiter, late: float) -> None:
        if late < STOPPED:
            waiter.give_up(Outcome.TIMED_OUT)
        else:  # it was this process that was stopped, and not those who have the places that took too long
            self._in_time.begin(waiter, trio.current_time())

    def _look(self, waiter: _Waiter, _late: float) -> None:
        """See whether a client that waits is still there, so that one that has left keeps nobody else out."""
        if waiter.channel.peer_state() is PeerState.GONE:
            waiter.give_up(Outcome.PEER_GONE)
        else:
            self._looks.begin(waiter, trio.current_time())

    async def _serve_placed(
        self, channel: Channel, counters: ServerCounters, fields: dict[str, Any], who: str
    ) -> None:
        channel.traffic = counters
        number = fields["connection"]
        connection = Connection(channel, number, self._shared, counters, fields)
        counters.connections_served += 1
        counters.connections_active += 1
        self._connections.add(connection)
        _log.info("connection %d opened by %s", number, who, extra=fields)
        if self._stopping:
            connection.finish()  # accepted just before the stop, started just after
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            reason, said = connection.ending
            counters.connections_active -= 1
            counters.connections_closed[reason] += 1
            if reason is not CloseReason.INTERNAL_ERROR:  # which gets its line with a traceback
                ended = {**fields, "reason": reason.value}
                _log.info("connection %d closed: %s", number, said, extra=ended)


def _let_go_of_nurseries() -> None:
    """Cancel the nurseries that handlers have left open in this task, in a generator that nobody has closed.

    The connection has ended by Trio's error about that. Where its task ends, too, Trio would end the server.
    """
    task = trio.lowlevel.current_task()
    for nursery in task.child_nurseries:
        nursery.cancel_scope.cancel()
    task._child_nurseries.clear()  # noqa: SLF001 - there is no other way to be rid of them


def _log_defect(exc: BaseException, fields: dict[str, Any]) -> None:
    # A defect of ours must cost one connection, not the server. The traceback is in the log.
    fields = {**fields, "reason": CloseReason.INTERNAL_ERROR.value}
    _log.error("connection %d closed by an internal error", fields["connection"], exc_info=exc, extra=fields)
