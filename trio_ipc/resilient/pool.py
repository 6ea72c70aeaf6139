"""Connections that are kept for the next call, never more of them than the limits allow.

All there is of state is a list of connections, a count of those being opened, and a queue of waiters.
Whenever something changes, the queue is gone through from its head: who can be served is. A connection
counts from before it is opened until after it is closed. This module must never hand out a connection
that it knows to be closed, never lose one that was handed to a waiter who left, and never judge why a
connection could not be opened.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeAlias

import trio

from trio_ipc.channel import close_at_once
from trio_ipc.client import Client
from trio_ipc.contract import RequestT, ResponseT
from trio_ipc.errors import ChannelClosedError, PoolTimeoutError
from trio_ipc.pipeline import Pipeline, Settled

from .endpoints import Collector
from .settings import ResilientConfig


class TurnedAwayError(Exception):
    """It is better not to wait for this collector any longer. Never leaves the client."""


class Connection(trio.abc.AsyncResource, Generic[RequestT, ResponseT]):
    """A connection, and how much it is used.

    Args:
        collector: where it leads.
        line: what carries the calls; a :class:`Client` one at a time, a :class:`Pipeline` several.

    Attributes:
        collector: as given.
        load: how many calls use it.
        left: how many of those have nobody any longer who waits for the answer.
        idle_since, opened_at: on Trio's clock.
        closing: set when it is about to be closed: it is not handed out any longer.
        blamed: set when its breaking was told to the collector's breaker.
    """

    def __init__(
        self, collector: Collector, line: Client[RequestT, ResponseT] | Pipeline[RequestT, ResponseT]
    ) -> None:
        self.collector = collector
        self.load = 0
        self.left = 0
        self.opened_at = self.idle_since = trio.current_time()
        self.closing = False
        self.blamed = False
        self._line = line

    async def call(self, request: RequestT, settled: Settled) -> ResponseT:
        """Call; ``settled`` is told once how it ended: see :meth:`Pipeline.call`."""
        if isinstance(self._line, Pipeline):
            return await self._line.call(request, settled=settled)
        try:
            response = await self._line.call(request)
        except BaseException as exc:
            settled(exc)
            raise
        settled(None)
        return response

    def is_quiet(self) -> bool:
        """Return whether it is good for another call, as far as can be seen while it is idle."""
        return self._line.is_quiet()

    @property
    def accepts_calls(self) -> bool:
        """Whether it may be called, beside those that use it."""
        return self._line.accepts_calls if isinstance(self._line, Pipeline) else not self._line.is_broken

    @property
    def is_broken(self) -> bool:
        """Whether it is closed, or about to be, by what happened on it."""
        return self._line.is_broken

    async def aclose(self) -> None:
        """Close it at once."""
        await self._line.aclose()


class _Slot(Generic[RequestT, ResponseT]):
    """Leave to open a connection. ``victim`` has to be closed first, to make room."""

    def __init__(self, victim: Connection[RequestT, ResponseT] | None) -> None:
        self.victim = victim


class Ticket:
    """A call's place in the queue, and until when it waits there.

    It is good until the call is served. One that is turned away, or goes on to another collector as its
    time is up, keeps its place and gets no more time.

    Attributes:
        number: the smaller, the sooner served; None while it has no place.
        deadline: on Trio's clock; None while it has not had to wait.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.deadline: float | None = None


class _Waiter(Generic[RequestT, ResponseT]):
    def __init__(self, collector: Collector, number: int) -> None:
        self.collector = collector
        self.number = number
        self.ready = trio.Event()
        self.grant: Connection[RequestT, ResponseT] | _Slot[RequestT, ResponseT] | None = None
        self.refusal: Exception | None = None


Opener: TypeAlias = Callable[[], Awaitable[Connection[RequestT, ResponseT]]]

_NO_MORE_CALLS: Final = "this client was closed"


class Pool(Generic[RequestT, ResponseT]):
    """The connections of one client.

    Args:
        settings: the limits.
        nursery: where connections are closed that are found to be no good.
    """

    def __init__(self, settings: ResilientConfig, nursery: trio.Nursery) -> None:
        self._settings = settings
        self._nursery = nursery
        self._connections: list[Connection[RequestT, ResponseT]] = []
        self._opening: Counter[str] = Counter()  # how many are being opened, by path
        self._waiters: list[_Waiter[RequestT, ResponseT]] = []  # by their numbers
        self._tickets = 0
        self._reap_at = math.inf
        self._reap_sooner = trio.Event()
        self._closed = False

    async def acquire(
        self, collector: Collector, open_connection: Opener[RequestT, ResponseT], ticket: Ticket
    ) -> Connection[RequestT, ResponseT]:
        """Get a connection to a collector; the caller must :meth:`release` it.

        Those who wait are served in the order in which they came, except that nobody waits behind one
        whose own collector is what is short.

        Args:
            collector: where to.
            open_connection: opens one, where there is none to be used again.
            ticket: the call's own, the same one each time that it comes.

        Raises:
            PoolTimeoutError: none came free within ``pool_timeout_ms`` from when the ticket got its place.
            TurnedAwayError: :meth:`turn_away` was called.
            ChannelClosedError: the pool was closed.

        What ``open_connection`` raises comes out as it is. Cancellation gives back whatever was got.
        """
        if self._closed:
            raise ChannelClosedError(_NO_MORE_CALLS, hint="open a new one")
        await trio.lowlevel.checkpoint_if_cancelled()
        if ticket.number is None:
            self._tickets += 1
            ticket.number = self._tickets
            ticket.deadline = None
        waiter = _Waiter[RequestT, ResponseT](collector, ticket.number)
        bisect.insort(self._waiters, waiter, key=lambda one: one.number)
        self._serve()
        if not waiter.ready.is_set():
            if ticket.deadline is None:
                ticket.deadline = trio.current_time() + self._settings.pool_timeout_ms / 1000
            await self._wait(waiter, ticket.deadline)
        if waiter.refusal is not None:
            raise waiter.refusal
        ticket.number = None
        if isinstance(waiter.grant, Connection):
            return waiter.grant
        assert waiter.grant is not None  # noqa: S101 - for the type checker: refused or granted
        return await self._open(collector, waiter.grant, open_connection)

    def release(self, connection: Connection[RequestT, ResponseT], *, used: bool = True) -> None:
        """A call is done with a connection, which is kept if it is still good.

        Args:
            connection: as it was acquired.
            used: whether that was a use that keeps it from being idle.
        """
        connection.load -= 1
        if connection.is_broken:
            connection.closing = True
            if not connection.load:
                # It has closed itself, before anyone was told.
                self._forget(connection)
        elif not connection.load:
            self._keep(connection, used=used)
        elif connection.load == connection.left:
            self._retire(connection)
        self._serve()

    def leave(self, connection: Connection[RequestT, ResponseT]) -> None:
        """A caller left before its answer came. When nobody else is left to wait for one, it is closed.

        Who comes next does not stand behind answers that nobody wants, which may never come.
        """
        connection.left += 1
        if connection.load == connection.left:
            self._retire(connection)

    def _keep(self, connection: Connection[RequestT, ResponseT], *, used: bool) -> None:
        now = trio.current_time()
        if used:
            connection.idle_since = now
        expiry = self._expiry(connection)
        if connection.collector.removed or expiry <= now:
            self._retire(connection)
            return
        if used:
            # In the order of their last use, so that the last one is used first.
            self._forget(connection)
            self._connections.append(connection)
        if expiry < self._reap_at:
            self._reap_at = expiry
            self._reap_sooner.set()

    def turn_away(self, collector: Collector) -> None:
        """Let nobody wait for this collector any longer: there are better ones by now."""
        for waiter in [waiter for waiter in self._waiters if waiter.collector is collector]:
            self._refuse(waiter, TurnedAwayError())

    def retire_idle(self, collector: Collector) -> None:
        """Close this collector's connections that are not in use; the others are closed when they are."""
        for connection in self._connections:
            if connection.collector is collector and not connection.load:
                self._retire(connection)

    def has_connection(self, collector: Collector) -> bool:
        """Return whether there is a connection to a collector, in use or good to be used."""
        now = trio.current_time()
        return any(
            c.collector is collector
            and not (c.closing or c.is_broken)
            and (c.load > 0 or (self._expiry(c) > now and c.is_quiet()))
            for c in self._connections
        )

    def counts(self, collector: Collector | None = None) -> tuple[int, int]:
        """Return how many connections are in use and how many are kept, to one collector or to all.

        Those that have ended are neither, though nobody may have noticed before this asked.
        """
        ours = [c for c in self._connections if collector is None or c.collector is collector]
        active = sum(c.load > 0 and not c.closing and not c.is_broken for c in ours)
        return active, sum(not c.load and not c.closing and c.is_quiet() for c in ours)

    async def reap(self) -> None:
        """Close what has been idle, or open, for too long; runs until it is cancelled."""
        while True:
            self._reap_sooner = trio.Event()
            idle = [c for c in self._connections if not c.load and not c.closing]
            self._reap_at = min(map(self._expiry, idle), default=math.inf)
            if len(idle) < len(self._connections):
                # At the earliest this is when one that is in use now has been idle for too long. So a call
                # that ends need not wake this task, which would cost every call a switch of tasks.
                idle_timeout = self._settings.idle_timeout_ms / 1000
                self._reap_at = min(self._reap_at, trio.current_time() + idle_timeout)
            with trio.CancelScope(deadline=self._reap_at):
                await self._reap_sooner.wait()
            for connection in idle:
                unused = not connection.load and not connection.closing
                if unused and self._expiry(connection) <= trio.current_time():
                    self._retire(connection)

    async def aclose(self) -> None:
        """Close every connection at once, and refuse who waits."""
        self._closed = True
        for waiter in [*self._waiters]:
            self._refuse(waiter, ChannelClosedError(_NO_MORE_CALLS, hint="open a new one"))
        for connection in [*self._connections]:
            await self._close(connection)

    async def _wait(self, waiter: _Waiter[RequestT, ResponseT], deadline: float) -> None:
        try:
            with trio.move_on_at(deadline):
                await waiter.ready.wait()
        except BaseException:
            self._leave(waiter)
            raise
        if not waiter.ready.is_set():
            waiting = len(self._waiters) - 1
            self._waiters.remove(waiter)
            raise PoolTimeoutError(
                f"timed out waiting for a connection, the limit pool_timeout_ms is "
                f"{self._settings.pool_timeout_ms}; in use are {self._in_use(waiter.collector)} of "
                f"{self._settings.max_connections_per_endpoint} to this endpoint and {self._in_use()} of "
                f"{self._settings.max_connections} in all, others that wait: {waiting}",
                endpoint=waiter.collector.path,
                hint="make fewer calls at a time, or raise the limit that was reached or max_in_flight",
            )

    def _leave(self, waiter: _Waiter[RequestT, ResponseT]) -> None:
        """Take back what a waiter was given at the moment it was cancelled."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        elif isinstance(waiter.grant, Connection):
            self.release(waiter.grant)
        elif waiter.grant is not None:
            if waiter.grant.victim is not None:
                waiter.grant.victim.closing = False
                if waiter.grant.victim.collector.removed:
                    self._retire(waiter.grant.victim)
                self._reap_sooner.set()
            self._opening[waiter.collector.path] -= 1
            self._serve()

    async def _open(
        self,
        collector: Collector,
        slot: _Slot[RequestT, ResponseT],
        open_connection: Opener[RequestT, ResponseT],
    ) -> Connection[RequestT, ResponseT]:
        try:
            if slot.victim is not None:
                await self._close(slot.victim)
            connection = await open_connection()
        except BaseException:
            self._opening[collector.path] -= 1
            self._serve()
            raise
        self._opening[collector.path] -= 1
        connection.load = 1
        self._connections.append(connection)
        if self._closed:
            await self._close(connection)
            raise ChannelClosedError(_NO_MORE_CALLS, hint="open a new one")
        self._serve()  # others may share it
        return connection

    def _serve(self) -> None:
        """Go through the queue from its head, and give what there is to give."""
        short = set()
        may_share = True
        for waiter in [*self._waiters]:
            if waiter.collector in short:
                continue
            grant = self._grant(waiter.collector, may_share=may_share)
            if grant is None:
                short.add(waiter.collector)
                # It needs another's place. A connection that those behind it go on to share would never be
                # unused, and never make room.
                may_share = may_share and self._in_use(waiter.collector) > 0
            else:
                self._waiters.remove(waiter)
                waiter.grant = grant
                waiter.ready.set()

    def _grant(
        self, collector: Collector, *, may_share: bool
    ) -> Connection[RequestT, ResponseT] | _Slot[RequestT, ResponseT] | None:
        """Give a connection that nobody uses, leave to open one, or a share of one, in this order."""
        open_ones = [c for c in self._connections if c.collector is collector and not c.closing]
        for connection in reversed(open_ones):
            if not connection.load:
                if self._expiry(connection) > trio.current_time() and connection.is_quiet():
                    connection.load = 1
                    return connection
                self._retire(connection)
        slot = self._slot(collector)
        if slot is not None:
            self._opening[collector.path] += 1
            return slot
        shared = [
            c
            for c in open_ones
            if may_share and 0 < c.load < self._settings.max_in_flight and c.accepts_calls
            if self._end_of_life(c) > trio.current_time()  # else it would never be unused, and closed
        ]
        if not shared:
            return None
        connection = min(shared, key=lambda c: c.load)
        connection.load += 1
        return connection

    def _slot(self, collector: Collector) -> _Slot[RequestT, ResponseT] | None:
        if self._in_use(collector) >= self._settings.max_connections_per_endpoint:
            return None
        if self._in_use() < self._settings.max_connections:
            return _Slot(None)
        for connection in self._connections:  # the one that is unused for longest comes first
            if not connection.load and not connection.closing and connection.collector is not collector:
                connection.closing = True
                return _Slot(connection)
        return None

    def _in_use(self, collector: Collector | None = None) -> int:
        """Count what the limits are for: connections that are open, being opened or being closed."""
        if collector is None:
            return len(self._connections) + self._opening.total()
        # By the path: an endpoint that was removed and added again is still the same server.
        path = collector.path
        return sum(c.collector.path == path for c in self._connections) + self._opening[path]

    def _expiry(self, connection: Connection[RequestT, ResponseT]) -> float:
        unused = connection.idle_since + self._settings.idle_timeout_ms / 1000
        return min(unused, self._end_of_life(connection))

    def _end_of_life(self, connection: Connection[RequestT, ResponseT]) -> float:
        return connection.opened_at + self._settings.lifetime_ms / 1000

    def _refuse(self, waiter: _Waiter[RequestT, ResponseT], refusal: Exception) -> None:
        self._waiters.remove(waiter)
        waiter.refusal = refusal
        waiter.ready.set()

    def _retire(self, connection: Connection[RequestT, ResponseT]) -> None:
        if not connection.closing and not self._closed:  # aclose() closes all there are
            connection.closing = True
            self._nursery.start_soon(self._close, connection)

    async def _close(self, connection: Connection[RequestT, ResponseT]) -> None:
        connection.closing = True
        await close_at_once(connection)
        self._forget(connection)
        self._serve()

    def _forget(self, connection: Connection[RequestT, ResponseT]) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
