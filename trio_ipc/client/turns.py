"""Turns: who may use a connection, and for how long the others wait.

No turn is lost, neither by a cancellation nor by a KeyboardInterrupt. This module must never know what a turn
is used for.
"""

from __future__ import annotations

import math

import trio

from trio_ipc.channel import STOPPED
from trio_ipc.errors import TurnTimeoutError

from .failures import call_timed_out


class Turns:
    """Leave to use a connection, first come, first served.

    Args:
        at_a_time: how many callers may have it at the same time.
        endpoint: where the connection leads, for the error.
        read_timeout_ms: how long a caller waits.
    """

    def __init__(self, at_a_time: int, *, endpoint: str, read_timeout_ms: int) -> None:
        self._at_a_time = at_a_time
        self._endpoint = endpoint
        self._read_timeout_ms = read_timeout_ms
        self._free = at_a_time
        self._waiting = trio.lowlevel.ParkingLot()

    @trio.lowlevel.enable_ki_protection
    def take_nowait(self) -> bool:
        """Take a turn, if one is free, and return whether it was. :meth:`give_back` must end it."""
        if not self._free:
            return False
        self._free -= 1
        return True

    @trio.lowlevel.enable_ki_protection
    async def wait(self, *, deadline: float = math.inf, limited: bool = True) -> None:
        """Wait for a turn, for who could not take one at once.

        The turn may come together with a cancellation, or with the deadline: look before it is used.

        Args:
            deadline: when the caller's time is up, on :func:`trio.current_time`'s clock.
            limited: whether ``read_timeout_ms`` holds.

        Raises:
            TurnTimeoutError: the callers ahead took too long.
            CallTimeoutError: the deadline went by.

        Cancellation leaves the turn to the next one.
        """
        ahead = self._at_a_time + len(self._waiting)
        limit = self._read_timeout_ms / 1000 if limited else math.inf
        until = trio.current_time() + limit
        while True:
            with trio.CancelScope(deadline=min(until, deadline)):
                await self._waiting.park()
                return
            now = trio.current_time()
            if now >= deadline:
                raise call_timed_out(
                    f"waiting for a turn behind {ahead} calls; nothing was sent",
                    self._endpoint,
                    hint="open more clients, or make fewer calls at a time",
                )
            if now < until + STOPPED:
                raise TurnTimeoutError(
                    f"timed out waiting for a turn behind {ahead} calls, the limit read_timeout_ms is "
                    f"{self._read_timeout_ms}",
                    endpoint=self._endpoint,
                    hint="open more clients, or make fewer calls at a time",
                )
            # It was this process that was stopped, not the calls ahead.
            if self.take_nowait():
                return
            until = now + limit

    @trio.lowlevel.enable_ki_protection
    def give_back(self, _outcome: BaseException | None = None) -> None:
        """End a turn. It goes to whoever waits longest."""
        if self._waiting:
            self._waiting.unpark()
        else:
            self._free += 1
