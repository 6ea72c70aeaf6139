"""A line: one connection that calls go over, in whichever way there is.

It carries one call at a time (single.py) or several (pipeline.py), gives no response to another request's
caller, and repeats nothing. Its owner limits how many calls there are; this module must never know how.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeAlias

import trio

from trio_ipc.channel import Channel, close_at_once, closed_here
from trio_ipc.contract import Contract, RequestT, ResponseT
from trio_ipc.errors import ChannelClosedError, ProtocolError

from .failures import call_timed_out, for_another, told

if TYPE_CHECKING:
    from .batch import Batch
    from .turns import Turns

# What calls it is protected from a KeyboardInterrupt, so that each step is whole. The contract's own
# functions are users' code, which one may interrupt.
trio.lowlevel.disable_ki_protection(Contract.decode_answer)

#: Told how a call ended: None for a response.
Done: TypeAlias = Callable[[BaseException | None], None]


def nobody_cares(_outcome: BaseException | None) -> None:
    """Do nothing."""


class Line(abc.ABC, Generic[RequestT, ResponseT]):
    """A connection that calls go over.

    Args:
        channel: the connection, which the line owns.
        contract: the message types.

    Attributes:
        endpoint: where it leads.
    """

    def __init__(self, channel: Channel, contract: Contract[RequestT, ResponseT]) -> None:
        self.endpoint: str = channel.endpoint
        self._channel = channel
        self._contract = contract
        self._broken_by: BaseException | None = None
        #: The same, until it is told, where it was met while there was no call.
        self._untold: BaseException | None = None
        self._answered = False

    @abc.abstractmethod
    async def call(
        self,
        request: RequestT,
        *,
        turns: Turns | None = None,
        deadline: float = math.inf,
        done: Done = nobody_cares,
        looked: bool = False,
    ) -> ResponseT:
        """Send a request and wait for its response.

        Args:
            request: a message of the contract's request type.
            turns: leave to use the connection, which this takes and ``done`` gives back; None for who has it.
            deadline: when the caller's time is up, on :func:`trio.current_time`'s clock. A response that has
                come by then is returned all the same.
            done: called exactly once, when the call takes no place on the connection any longer: with None
                when its response was read, else with the exception. That may be after the end of this method,
                where that is a cancellation or the deadline. Not called where it has got no turn.
            looked: whether in this very step :meth:`is_reusable` has said yes, the deadline was not over, and
                the caller was not cancelled. A line that sends in the same step does not ask again.

        Raises:
            MessageError: the request is empty or too large. Nothing was sent, and the connection is good.
            CallTimeoutError: the deadline passed.
            ProtocolError: the server broke the protocol, or this request's response cannot be trusted. The
                connection is closed; so it is by whatever the contract's own functions raise.
            ChannelError: the connection broke or was closed.
            TurnTimeoutError: the calls ahead took too long. Nothing was sent, and the connection is good.
        """

    @abc.abstractmethod
    async def call_many(
        self,
        batch: Batch[RequestT, ResponseT],
        *,
        turns: Turns,
        deadline: float = math.inf,
        answered: Callable[[int], None],
    ) -> None:
        """Send requests ahead of their responses, and put those into the batch.

        Args:
            batch: the requests.
            turns: leave to use the connection, which this takes and gives back.
            deadline: as for :meth:`call`.
            answered: told how many responses have come since it was last told. Not after the end.

        Raises what :meth:`call` raises, and what ``turns`` raises before anything was sent. The batch then
        holds the responses that came before.
        """

    @property
    def accepts_calls(self) -> bool:
        """Whether it may be called."""
        return self._broken_by is None

    @property
    def has_answered(self) -> bool:
        """Whether the server has answered anything on this connection."""
        return self._answered

    @property
    def is_broken(self) -> bool:
        """Whether the connection was closed, by :meth:`aclose` or by what a call met."""
        return self._broken_by is not None

    def is_reusable(self) -> bool:
        """Return whether the connection, idle so far, is good for another call, as far as can be seen.

        Does not block. True is no promise: the server may close right after.
        """
        return self.accepts_calls and self._channel.is_reusable()

    async def run(self) -> None:
        """Do what calls need done in the background, until the connection ends. Raises nothing.

        Returns at once where nothing is needed. Cancellation closes the connection.
        """
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close the connection at once. Calls in flight end by :exc:`~trio_ipc.ChannelClosedError`."""
        self._break(closed_here(self.endpoint))
        await self._channel.aclose()

    async def end(self) -> None:
        """Close the connection at once, as :meth:`aclose` does, and raise nothing."""
        self._break(closed_here(self.endpoint))
        await close_at_once(self._channel)

    def _break(self, exc: BaseException) -> None:
        """Take no further calls. The first reason is the one that is told."""
        if self._broken_by is None:
            self._broken_by = exc

    def _ended_by(self) -> BaseException | None:
        return self._broken_by

    def check_good(self, deadline: float = math.inf) -> None:
        """Raise why it may not be called, if so; or :exc:`CallTimeoutError` where the deadline has passed."""
        ended_by = self._ended_by()
        if ended_by is not None:
            untold, self._untold = self._untold, None
            if untold is not None and not isinstance(untold, ChannelClosedError):
                raise for_another(untold, self.endpoint, unsent=True)
            said, hint = told(ended_by), "open a new client"
            if not isinstance(ended_by, ChannelClosedError):
                said = f"this connection was broken by an earlier call: {said}"
            if isinstance(ended_by, ProtocolError) and ended_by.hint:
                hint = f"{ended_by.hint}; {hint}"
            # Not by a name: the error and this frame would keep each other.
            raise ChannelClosedError(said, endpoint=self.endpoint, hint=hint) from ended_by
        if deadline < math.inf and trio.current_time() >= deadline:
            raise call_timed_out("before anything was sent", self.endpoint)
