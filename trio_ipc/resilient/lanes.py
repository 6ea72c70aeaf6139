"""What the pool is made of: for each endpoint a lane, with its connections and the calls that wait for one.

Data, and what can be read from it; what becomes of it is decided in the pool. This module must never wait,
open or close anything.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio

from trio_ipc.channel import STOPPED
from trio_ipc.errors import ConnectTimeoutError, OutOfResourcesError, PeerClosedError

from .calls import PASSING, PendingCall, Step
from .endpoints import Upstream
from .settings import ResilientConfig

if TYPE_CHECKING:
    from .connection import Connection

#: Connections in all, at the least, where the settings do not say how many.
_LEAST_LIMIT: Final = 16


class Waiter:
    """A call that waits, until it has a connection or an error.

    Attributes:
        call, upstream: as given.
        ready: set when it has either.
        scope: around the wait; its deadline is the call's, or that of waiting in the queue.
        opening: what is being opened for it, None if nothing is.
    """

    def __init__(self, call: PendingCall, upstream: Upstream) -> None:
        self.call = call
        self.upstream = upstream
        self.ready = trio.Event()
        self.scope = trio.CancelScope(deadline=call.deadline)
        self.opening: Opening | None = None
        self.connection: Connection | None = None
        self.error: BaseException | None = None

    def attend(self, opening: Opening | None, pool_timeout: float) -> None:
        """Note what is being opened for it. Where nothing is, it waits for no longer than in a queue."""
        call, now = self.call, trio.current_time()
        self.opening = opening
        if opening is not None:
            opening.waiter = self
            call.at(Step.CONNECTING, self.upstream, now)
            self.scope.deadline = call.deadline
            return
        call.at(Step.QUEUING, self.upstream, now)
        if call.queues_until is None:
            call.queues_until = now + pool_timeout
        self.scope.deadline = min(call.deadline, call.queues_until)

    def begins_anew(self, pool_timeout: float) -> bool:
        """Begin its time in the queue anew, if this process was stopped meanwhile; return whether it did."""
        now = trio.current_time()
        if now >= self.call.deadline or now < self.scope.deadline + STOPPED:
            return False
        self.scope = trio.CancelScope()
        self.call.queues_until = None
        self.attend(None, pool_timeout)  # else its deadline were the call's, which has not passed
        return True


class Opening:
    """A connection that is being opened.

    Attributes:
        lane: where to.
        victim: an unused connection that is closed first, to make room.
        waiter: for whom, who is told if it fails. None once that one has another connection.
        scope: around the opening.
        given_up: set when nobody is left who waits for it.
        connection, error: what came of it; neither, if it was given up.
    """

    def __init__(self, lane: Lane, victim: Connection | None) -> None:
        self.lane = lane
        self.victim = victim
        self.waiter: Waiter | None = None
        self.scope = trio.CancelScope()
        self.given_up = False
        self.connection: Connection | None = None
        self.error: BaseException | None = None


class Server:
    """A path, and how many connections lead there: an endpoint added again is still the same server.

    Attributes:
        lanes: the endpoints of this path, almost always one.
        taken: connections being opened, open or being closed.
    """

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self.taken = 0
        self._places = 0
        self._believed_until = -math.inf

    def places(self, at_most: int) -> int:
        """Return how many connections it takes, as far as is known."""
        if self._believed_until > trio.current_time():
            return min(self._places, at_most)
        return at_most

    def is_full_after(self, error: BaseException | None, seconds: float) -> bool:
        """Return whether a new connection ended by this error as the server has no place for one more.

        That is so where others live that it has answered on, or are being opened while somebody listens
        there. Then it is believed for so many seconds that it has no more places than those. Where this side
        has no descriptor for one more, those that there are must do likewise.
        """
        if not isinstance(error, (*PASSING, OutOfResourcesError)):
            return False
        live = sum(one.has_answered for lane in self.lanes for one in lane.live())
        coming = sum(len(lane.openings) for lane in self.lanes)
        if not live and not (coming and isinstance(error, (PeerClosedError, ConnectTimeoutError))):
            return False
        self._places = live + coming
        for lane in self.lanes:
            lane.upstream.places_proven = min(lane.upstream.places_proven, live)
        self._believed_until = trio.current_time() + seconds
        return True

    def forget_places(self) -> None:
        """Believe no longer that it has only so many places."""
        self._believed_until = -math.inf


class Lane:
    """What leads to one endpoint.

    Attributes:
        upstream, server: as given.
        connections: all that are open.
        idle: those that nobody uses, the one that was used last at the end.
        openings: those being opened.
        waiting: calls, by their places.
    """

    def __init__(self, upstream: Upstream, server: Server) -> None:
        self.upstream = upstream
        self.server = server
        self.connections: list[Connection] = []
        self.idle: list[Connection] = []
        self.openings: list[Opening] = []
        self.waiting: list[Waiter] = []
        server.lanes.append(self)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it."""
        return not (self.connections or self.openings or self.waiting)

    def first_place(self) -> float:
        """Return the place of the call that waits for longest."""
        return place_of(self.waiting[0]) if self.waiting else math.inf

    def next_waiter(self, *, to_open: bool) -> Waiter | None:
        """Return the first call for which nothing is being opened; ``to_open``: and for which that may be."""
        candidates = (one for one in self.waiting if one.opening is None)
        return next((one for one in candidates if one.call.may_connect or not to_open), None)

    def unbroken(self) -> list[Connection]:
        """Return the connections that nobody has closed, as far as is known: none is looked at."""
        return [one for one in [*self.connections] if not (one.closing or one.is_broken)]

    def live(self) -> list[Connection]:
        """Return the connections that are in use, or good to be used as far as can be seen."""
        return [one for one in self.unbroken() if one.load or one.is_reusable()]


class Lanes:
    """All lanes of a client, and how many connections there may be.

    Args:
        settings: the limits.

    Attributes:
        taken: connections being opened, open or being closed.
        limit: how many of them there may be.
    """

    def __init__(self, settings: ResilientConfig) -> None:
        self.taken = 0
        self.limit = 0
        self._endpoints = 0  # those that were not removed
        self._at_most = settings.max_connections
        self._at_each = settings.max_connections_per_endpoint
        self._lanes: dict[Upstream, Lane] = {}
        self._servers: dict[str, Server] = {}

    def all(self) -> list[Lane]:
        """Return every lane."""
        return [*self._lanes.values()]

    def get(self, upstream: Upstream) -> Lane | None:
        """Return an endpoint's lane, None if it has none (any longer)."""
        return self._lanes.get(upstream)

    def add(self, upstream: Upstream) -> Lane:
        """Return a new lane for an endpoint that has none."""
        server = self._servers.setdefault(upstream.path, Server())
        lane = self._lanes[upstream] = Lane(upstream, server)
        self._set_limit(self._endpoints + (not upstream.removed))
        return lane

    def drop_if_empty(self, lane: Lane) -> None:
        """Forget the lane of an endpoint that was removed, once nothing is left in it."""
        if not lane.upstream.removed:
            return
        if lane.is_empty and self._lanes.pop(lane.upstream, None) is not None:
            lane.server.lanes.remove(lane)
            if not lane.server.lanes:
                del self._servers[lane.upstream.path]
        self._set_limit(sum(not upstream.removed for upstream in self._lanes))

    def _set_limit(self, endpoints: int) -> None:
        self._endpoints = endpoints
        self.limit = self._at_most or max(_LEAST_LIMIT, self._at_each * endpoints)

    @property
    def is_full(self) -> bool:
        """Whether another connection can be opened only in the place of one that there is."""
        return self.taken >= self.limit

    def has_room(self, lane: Lane) -> bool:
        """Return whether a lane's server may have another connection, the limit in all aside."""
        return lane.server.taken < lane.server.places(self._at_each)

    def take_place(self, lane: Lane) -> None:
        """Count a connection that is about to be opened."""
        lane.server.taken += 1
        self.taken += 1

    def free_place(self, lane: Lane) -> None:
        """Count one less."""
        lane.server.taken -= 1
        self.taken -= 1

    def told(self, lane: Lane) -> str:
        """Return what is in use of what there may be, in words."""
        waiting = sum(len(one.waiting) for one in self._lanes.values()) - 1
        return (
            f"in use are {lane.server.taken} of {lane.server.places(self._at_each)} to this endpoint and "
            f"{self.taken} of {self.limit} in all, others that wait: {waiting}"
        )


def place_of(waiter: Waiter) -> int:
    """Return a waiting call's place."""
    assert waiter.call.place is not None  # noqa: S101 - for the type checker: who waits has one
    return waiter.call.place
