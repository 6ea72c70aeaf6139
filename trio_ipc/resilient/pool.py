"""Connections that are kept for the next call, and the calls that wait for one.

A connection is opened because a call waits, but it belongs to the pool: the call takes whichever comes
first, and a server that keeps one connection too many waiting holds up nobody. Whenever something changes,
:meth:`Pool._assign` gives what there is, to the oldest call first. A connection counts from before it is
opened until after it is closed.

This module must never hand out a connection that it knows to be closed, never lose one that was handed to a
call which has left, and never open more than the limits allow.
"""

from __future__ import annotations

import bisect
from typing import Final

import trio
from trio.lowlevel import enable_ki_protection

from trio_ipc.channel import close_at_once
from trio_ipc.errors import CallTimeoutError, ChannelClosedError, ContractError, IpcError, PoolTimeoutError
from trio_ipc.logs import Log

from .calls import PendingCall
from .connection import Connection
from .endpoints import Upstream, is_its_fault
from .failures import timed_out
from .kept import KeptConnections
from .lanes import Lane, Lanes, Opening, Server, Waiter, place_of
from .opening import Opener
from .settings import ResilientConfig

_log = Log(__name__)

_CLOSED: Final = "this client was closed"


class SentElsewhereError(Exception):
    """It is better not to wait for this server any longer. Never leaves the client."""


class Pool:
    """The connections of one client.

    Args:
        settings: the limits.
        nursery: where connections are opened, and those closed that are found to be no good.
        opener: opens them.
    """

    def __init__(self, settings: ResilientConfig, nursery: trio.Nursery, opener: Opener) -> None:
        self._settings = settings
        self._nursery = nursery
        self._opener = opener
        self._pool_timeout = settings.pool_timeout_ms / 1000
        self._belief = settings.breaker_reset_ms / 1000
        self._lanes: Lanes = Lanes(settings)
        self._kept: KeptConnections = KeptConnections(settings, self._retire)
        #: Lanes in which a call waits for a place that another endpoint's connection has.
        self._starved: dict[Lane, None] = {}
        self._places_given = 0
        self._closed = False

    # --- For calls --------------------------------------------------------------------------------------

    def take(self, upstream: Upstream, now: float) -> Connection | None:
        """Return a connection that nobody uses and is good, which the caller must :meth:`release`; or None.

        None, too, where others wait for one: nobody is overtaken.
        """
        lane = self._lanes.get(upstream)
        if lane is None or lane.waiting:
            return None
        connection = self._kept.take(lane, now)
        if connection is not None:
            connection.load = 1
        return connection

    async def wait(self, upstream: Upstream, call: PendingCall) -> Connection:
        """Wait for a connection, which the caller must :meth:`release`.

        Those who wait are served in the order in which they came, except that nobody waits behind one
        whose own server is what is short. One that is refused, or goes on to another server as its
        time is up, keeps its place and gets no more time.

        Raises:
            PoolTimeoutError: none came free within ``pool_timeout_ms`` from when the call got its place.
            CallTimeoutError: the call's deadline passed.
            SentElsewhereError: :meth:`send_elsewhere` was called.
            ChannelClosedError: the client was closed.
            Exception: what came of the connection that was opened for the call.

        Cancellation gives back whatever was got.
        """
        if self._closed:
            raise ChannelClosedError(_CLOSED, hint="open a new one")
        lane = self._lanes.get(upstream) or self._lanes.add(upstream)
        if call.place is None:
            self._places_given += 1
            call.place = self._places_given
            call.queues_until = None
        waiter = Waiter(call, upstream)
        bisect.insort(lane.waiting, waiter, key=place_of)
        self._assign(lane.server)
        if not waiter.ready.is_set():
            if waiter.opening is None:
                waiter.attend(None, self._pool_timeout)
            try:
                while not waiter.ready.is_set():
                    with waiter.scope:
                        await waiter.ready.wait()
                    if not (waiter.ready.is_set() or waiter.begins_anew(self._pool_timeout)):
                        raise self._too_late(lane, waiter)
            except BaseException:
                self._leave(lane, waiter)
                raise
        if isinstance(waiter.error, SentElsewhereError):
            raise waiter.error
        call.place = None
        if waiter.error is not None:
            raise waiter.error
        assert waiter.connection is not None  # noqa: S101 - for the type checker: it has that or an error
        return waiter.connection

    @enable_ki_protection
    def release(self, connection: Connection, now: float, *, used: bool = True) -> None:
        """A call is done with a connection, which is kept if it is still good.

        Args:
            connection: as it was taken.
            now: on Trio's clock.
            used: whether that was a use that keeps it from being idle.
        """
        lane = connection.lane
        connection.load -= 1
        if connection.is_broken:
            connection.closing = True
            if not connection.was_refused:
                lane.server.forget_places()  # it may have one more now
            if not connection.load:
                self._forget(connection)  # it has closed itself, before anyone was told
        elif not connection.closing:
            if not connection.load:
                self._kept.keep(connection, now, used=used)
            elif connection.load == connection.left:
                self._retire(connection)
        if lane.waiting or self._starved:
            self._assign(lane.server)

    @enable_ki_protection
    def leave(self, call: PendingCall) -> None:
        """A call ends before its response came, and keeps its place on a connection that others share.

        When nobody is left who waits for a response, the connection is closed: who came next would stand
        behind answers that nobody wants, which may never come.
        """
        connection = call.connection
        if connection is not None:
            call.has_left = True
            connection.left += 1
            if connection.load == connection.left:
                self._retire(connection)

    def is_full_after(self, connection: Connection, error: BaseException) -> bool:
        """Return whether a connection that has answered nothing was one too many for its server."""
        return connection.lane.server.is_full_after(error, self._belief)

    # --- For the client ---------------------------------------------------------------------------------

    def add(self, upstream: Upstream) -> None:
        """Give an endpoint its lane."""
        self._lanes.add(upstream)

    def remove(self, upstream: Upstream) -> None:
        """Close an endpoint's unused connections, the others when they are; nobody waits for it any more."""
        self.send_elsewhere(upstream)
        lane = self._lanes.get(upstream)
        if lane is not None:
            self._kept.close_all(lane)
            self._lanes.drop_if_empty(lane)

    def send_elsewhere(self, upstream: Upstream) -> None:
        """Let nobody wait for this server any longer, unless a connection is being opened for the call."""
        lane = self._lanes.get(upstream)
        if lane is not None and lane.waiting:
            for waiter in [one for one in lane.waiting if one.opening is None]:
                self._let_go(lane, waiter, error=SentElsewhereError())

    @property
    def is_full(self) -> bool:
        """Whether another connection can be opened only in the place of one that there is."""
        return self._lanes.is_full

    def is_connected(self, upstream: Upstream) -> bool:
        """Return whether there is a connection to an endpoint, whatever it is worth."""
        lane = self._lanes.get(upstream)
        return lane is not None and bool(lane.connections)

    def has_good_connection(self, upstream: Upstream) -> bool:
        """Return whether there is a connection to an endpoint, in use or good to be used."""
        lane, now = self._lanes.get(upstream), trio.current_time()
        return lane is not None and any(one.load or self._kept.expiry(one) > now for one in lane.live())

    def counts(self, upstream: Upstream | None = None, *, looks: bool = True) -> tuple[int, int]:
        """Return how many connections are in use and how many are kept, to one endpoint or to all.

        Those that have ended are neither, though nobody may have noticed before this asked. Without ``looks``
        that is not seen, and nothing is touched: for who is in another thread.
        """
        lanes = self._lanes.all() if upstream is None else filter(None, [self._lanes.get(upstream)])
        found = [one for lane in lanes for one in (lane.live() if looks else lane.unbroken())]
        active = sum(connection.load > 0 for connection in found)
        return active, len(found) - active

    @enable_ki_protection
    async def reap(self) -> None:
        """Close what has been idle, or open, for too long; runs until it is cancelled."""
        await self._kept.reap(lambda: len(self._kept) < self._lanes.taken)

    @enable_ki_protection
    async def aclose(self) -> None:
        """Close every connection at once, and refuse who waits."""
        self._closed = True
        for lane in self._lanes.all():
            for waiter in [*lane.waiting]:
                self._let_go(lane, waiter, error=ChannelClosedError(_CLOSED, hint="open a new one"))
            for opening in lane.openings:
                opening.scope.cancel()
            for connection in [*lane.connections]:
                await self._close(connection)

    # --- Who gets what ----------------------------------------------------------------------------------

    def _assign(self, server: Server) -> None:
        """Give what there is at a server, and places to those who need one of another's."""
        if self._closed:
            return
        lanes = server.lanes
        if self._starved:
            lanes = sorted({*lanes, *self._starved}, key=Lane.first_place)
        for lane in lanes:
            if lane.waiting:
                self._serve(lane)

    def _serve(self, lane: Lane) -> None:
        """Give unused connections; then open new ones; then share, where no more can be opened."""
        while lane.waiting and (unused := self._kept.take(lane, trio.current_time())) is not None:
            self._let_go(lane, lane.waiting[0], unused)
        self._open_more(lane)
        while (waiter := lane.next_waiter(to_open=False)) is not None:
            shared = self._to_share(lane, place_of(waiter))
            if shared is None:
                break
            self._let_go(lane, waiter, shared)

    def _open_more(self, lane: Lane) -> None:
        self._starved.pop(lane, None)
        while (waiter := lane.next_waiter(to_open=True)) is not None:
            opening = next((one for one in lane.openings if not (one.waiter or one.given_up)), None)
            if opening is None:
                if not self._lanes.has_room(lane):
                    return
                victim = self._kept.take_longest_unused() if self._lanes.is_full else None
                if victim is None and self._lanes.is_full:
                    self._starved[lane] = None
                    return
                opening = self._opener.begin(lane, victim)
                lane.openings.append(opening)
                self._lanes.take_place(lane)
                self._nursery.start_soon(self._open, opening)
            waiter.attend(opening, self._pool_timeout)

    def _to_share(self, lane: Lane, place: int) -> Connection | None:
        # A connection that is always shared is never unused, and never makes room for another endpoint's.
        if any(not one.server.taken and one.first_place() < place for one in self._starved):
            return None
        at_most, now = self._settings.max_in_flight, trio.current_time()
        shares = [
            one
            for one in lane.connections
            if 0 < one.load < at_most and not one.closing and one.accepts_calls
            if not self._kept.is_too_old(one, now)  # else it would never be unused, and closed
        ]
        return min(shares, key=lambda one: one.load, default=None)

    def _let_go(
        self,
        lane: Lane,
        waiter: Waiter,
        connection: Connection | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Let a call that waits go on."""
        lane.waiting.remove(waiter)
        if connection is not None:
            connection.load += 1
        waiter.connection = connection
        waiter.error = error
        waiter.ready.set()
        self._pass_on(lane, waiter)

    def _pass_on(self, lane: Lane, waiter: Waiter) -> None:
        """Let another call wait for what is being opened for this one; else it is for the next call."""
        opening, waiter.opening = waiter.opening, None
        if opening is not None:
            opening.waiter = None
            heir = lane.next_waiter(to_open=True)
            if heir is not None:
                heir.attend(opening, self._pool_timeout)

    def _leave(self, lane: Lane, waiter: Waiter) -> None:
        """Take back what a call was given at the moment it was cancelled."""
        if waiter.connection is not None:
            self.release(waiter.connection, trio.current_time())
        elif waiter in lane.waiting:
            lane.waiting.remove(waiter)
            opening = waiter.opening
            self._pass_on(lane, waiter)
            if opening is not None and opening.waiter is None:
                self._opener.give_up(opening)
            if not lane.waiting:
                self._starved.pop(lane, None)
                self._lanes.drop_if_empty(lane)

    def _too_late(self, lane: Lane, waiter: Waiter) -> CallTimeoutError | PoolTimeoutError:
        if trio.current_time() >= waiter.call.deadline:
            waiter.call.overdue()  # before what is opened for it goes to another call
            return timed_out(waiter.call)
        return PoolTimeoutError(
            f"timed out waiting for a connection, the limit pool_timeout_ms is "
            f"{self._settings.pool_timeout_ms}; {self._lanes.told(lane)}",
            endpoint=lane.upstream.path,
            hint="make fewer calls at a time, or raise the limit that was reached or max_in_flight",
        )

    # --- What is opened and closed ----------------------------------------------------------------------

    @enable_ki_protection
    async def _open(self, opening: Opening) -> None:
        try:
            if opening.victim is not None:
                await self._close(opening.victim)
            await self._opener.open(opening)
        finally:
            lane, waiter = opening.lane, opening.waiter
            lane.openings.remove(opening)
            if opening.connection is None:
                self._lanes.free_place(lane)
                self._not_opened(lane, waiter, opening.error)
            else:
                lane.connections.append(opening.connection)
                if waiter is not None:
                    waiter.attend(None, self._pool_timeout)
                if lane.waiting:
                    self._let_go(lane, lane.waiting[0], opening.connection)
                else:
                    self._kept.keep(opening.connection, trio.current_time(), used=True)
            self._assign(lane.server)
            self._lanes.drop_if_empty(lane)

    def _not_opened(
        self,
        lane: Lane,
        waiter: Waiter | None,
        error: BaseException | None,
    ) -> None:
        if lane.server.is_full_after(error, self._belief):
            if waiter is not None:
                waiter.attend(None, self._pool_timeout)
            return
        if error is not None and is_its_fault(error):
            lane.upstream.failed()  # now: its place is about to be given to who waits for it
        if waiter is not None and error is not None:
            waiter.opening = None
            self._let_go(lane, waiter, error=error)
        elif error is not None and (isinstance(error, ContractError) or not isinstance(error, IpcError)):
            # It came out of the contract's functions, which are users' code, and no call is there to tell.
            fields = {"endpoint": lane.upstream.path}
            _log.error("the contract's negotiation failed", exc_info=error, extra=fields)

    def _retire(self, connection: Connection) -> None:
        if not connection.closing and not self._closed:  # aclose() closes all there are
            connection.closing = True
            self._nursery.start_soon(self._close, connection)

    @enable_ki_protection
    async def _close(self, connection: Connection) -> None:
        connection.closing = True
        await close_at_once(connection)
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        """It is closed: its place is free."""
        lane = connection.lane
        if connection in lane.connections:
            lane.connections.remove(connection)
            self._lanes.free_place(lane)
            self._assign(lane.server)
            self._lanes.drop_if_empty(lane)
