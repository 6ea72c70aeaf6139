"""Connections that nobody uses, and for how long they are kept.

This module must never give one that it knows to be closed, and never close one that is in use.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable

import trio

from .connection import Connection
from .lanes import Lane
from .settings import ResilientConfig


class KeptConnections:
    """The unused connections of all lanes.

    Args:
        settings: for how long they are kept.
        retire: called with one that is to be closed; it is kept no longer then.
    """

    def __init__(self, settings: ResilientConfig, retire: Callable[[Connection], None]) -> None:
        self._idle_timeout = settings.idle_timeout_ms / 1000
        self._lifetime = settings.lifetime_ms / 1000
        self._retire = retire
        self._all: dict[Connection, None] = {}
        self._reap_at = math.inf
        self._reap_sooner = trio.Event()

    def is_too_old(self, connection: Connection, now: float) -> bool:
        """Return whether it has reached the age at which no call may begin on it."""
        return connection.opened_at + self._lifetime <= now

    def expiry(self, connection: Connection) -> float:
        """Return when it is to be closed if nobody uses it."""
        return min(connection.idle_since + self._idle_timeout, connection.opened_at + self._lifetime)

    def take(self, lane: Lane, now: float) -> Connection | None:
        """Return the one of a lane that was used last and is still good, None if there is none."""
        while lane.idle:
            connection = lane.idle.pop()
            del self._all[connection]
            is_fresh = self.expiry(connection) > now
            if is_fresh and connection.is_reusable():
                return connection
            self._retire(connection)
            if is_fresh and not lane.live():
                lane.upstream.lost()  # it has closed the last one
        return None

    def take_longest_unused(self) -> Connection | None:
        """Return the one of all that was not used for longest, None if there is none; it is to be closed."""
        connection = min(self._all, key=lambda one: one.idle_since, default=None)
        if connection is not None:
            self._take_out(connection)
            connection.closing = True
        return connection

    def keep(self, connection: Connection, now: float, *, used: bool) -> None:
        """Keep one for the next call, or let it be closed where it is too old or its endpoint was removed.

        Args:
            connection: which nobody uses.
            now: on Trio's clock.
            used: whether a call used it. If only upkeep did, its idle time continues.
        """
        if used:
            connection.idle_since = now
        expiry = self.expiry(connection)
        if connection.upstream.removed or expiry <= now:
            self._retire(connection)
            return
        idle = connection.lane.idle
        if used:
            idle.append(connection)
        else:
            bisect.insort(idle, connection, key=lambda one: one.idle_since)
        self._all[connection] = None
        if expiry < self._reap_at:
            self._reap_at = expiry
            self._reap_sooner.set()

    def close_all(self, lane: Lane) -> None:
        """Close those of a lane."""
        for connection in [*lane.idle]:
            self._take_out(connection)
            self._retire(connection)

    async def reap(self, in_use: Callable[[], bool]) -> None:
        """Close what has been idle, or open, for too long; runs until it is cancelled.

        Args:
            in_use: says whether there are connections that may come to be idle.
        """
        while True:
            self._reap_sooner = trio.Event()
            self._reap_at = min(map(self.expiry, self._all), default=math.inf)
            if in_use():
                # At the earliest this is when one that is in use now has been idle for too long. So a call
                # that ends need not wake this task, which would cost every call a switch of tasks.
                self._reap_at = min(self._reap_at, trio.current_time() + self._idle_timeout)
            with trio.CancelScope(deadline=self._reap_at):
                await self._reap_sooner.wait()
            for connection in [*self._all]:
                if self.expiry(connection) <= trio.current_time():
                    self._take_out(connection)
                    self._retire(connection)

    def _take_out(self, connection: Connection) -> None:
        del self._all[connection]
        connection.lane.idle.remove(connection)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._all)
