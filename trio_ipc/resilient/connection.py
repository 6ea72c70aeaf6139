"""One connection of the pool, and how much it is used.

The only place of this package that touches a client's line: what carries the calls. This module must never
judge what a call ended by.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import trio

from trio_ipc.channel import Channel
from trio_ipc.client.connecting import open_line
from trio_ipc.contract import Contract

from .lanes import Lane


class Connection(trio.abc.AsyncResource):
    """A connection, and how much it is used.

    Args:
        lane: where it leads.
        channel: what it is made of, and owns.
        contract: the message types.
        max_in_flight: how many calls may use it at a time. Above 1 :meth:`run` has to run meanwhile.
        nursery: for a task of its own, which ends when it is closed; None for none.

    Attributes:
        lane: as given.
        upstream: the lane's.
        load: how many calls use it.
        left: how many of those have nobody any longer who waits for the response.
        idle_since, opened_at: on Trio's clock.
        closing: set when it is about to be closed: it is not handed out any longer.
        failure_told: set when its breaking was told to the breaker.
        number: how many were made to the endpoint until then.
        has_answered: whether the server has answered anything on it.
        said_well: whether its first response on it also said that it is well.
        was_refused: whether it was closed as the server has no place for one more, or speaks the other
            checksum variant.
        variant: its checksum variant.
        process: the server's, None where the system does not tell.
    """

    def __init__(
        self,
        lane: Lane,
        channel: Channel,
        contract: Contract[Any, Any],
        *,
        max_in_flight: int,
        nursery: trio.Nursery | None = None,
    ) -> None:
        self.lane = lane
        self.upstream = lane.upstream
        self.variant = lane.upstream.variants.current
        self.process: int | None = None
        self.load = 0
        self.left = 0
        self.opened_at = self.idle_since = trio.current_time()
        self.closing = False
        self.failure_told = False
        self.has_answered = False
        self.said_well = False
        self.was_refused = False
        self.upstream.connections_made += 1
        self.number = self.upstream.connections_made
        self._line = open_line(channel, contract, max_in_flight, nursery)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Carry calls until it ends, where several use it; else return at once."""
        await self._line.run()

    def call(
        self,
        request: Any,
        deadline: float,
        done: Callable[[BaseException | None], None],
        *,
        looked: bool = False,
    ) -> Coroutine[Any, Any, Any]:
        """Call; to be awaited.

        Args:
            request: a message of the contract's request type.
            deadline: by when there must be a response, on Trio's clock.
            done: called exactly once, when the call takes no place on the connection any longer: with None
                when its response was read, else with what it ended by. Where others share the connection,
                that may be after the end of this method, if that is a cancellation or the deadline.
            looked: as for :meth:`~trio_ipc.client.line.Line.call`.

        Raises:
            CallTimeoutError: the deadline passed.
            IpcError: as the line's ``call`` raises it.
        """
        return self._line.call(request, deadline=deadline, done=done, looked=looked)

    def answered(self) -> None:
        """Note that the server has answered on it, for the first time."""
        self.has_answered = True
        self.upstream.variants.answered(self.variant)
        served = sum(one.has_answered for one in self.lane.connections if one is not self) + 1
        self.upstream.places_proven = max(self.upstream.places_proven, served)

    def is_reusable(self) -> bool:
        """Return whether it is good for another call, as far as can be seen while it is idle."""
        return self._line.is_reusable()

    @property
    def accepts_calls(self) -> bool:
        """Whether it may be called, beside those that use it."""
        return self._line.accepts_calls

    @property
    def is_broken(self) -> bool:
        """Whether it is closed, or about to be, by what happened on it."""
        return self._line.is_broken

    async def aclose(self) -> None:
        """Close it at once."""
        await self._line.aclose()
