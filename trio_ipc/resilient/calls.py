"""One call: what it asks, by when, whom it has tried and what came of each.

A server that this call has tried is in one of three states, :class:`TryState`; all that may happen to it is
a method of :class:`PendingCall`. What breakers are told comes from here and nowhere else: one verdict for
each call and server, however many tries it took. This module must never wait for anything.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic

import attrs
from google.protobuf.message import Message

from trio_ipc.contract import ResponseT
from trio_ipc.errors import (
    CircuitOpenError,
    ConnectTimeoutError,
    IpcError,
    PeerClosedError,
    ServerNotFoundError,
    ServerRefusedError,
    plural,
)
from trio_ipc.functions import dismiss

from .breaker import Permit
from .endpoints import Upstream
from .settings import ResilientConfig

if TYPE_CHECKING:
    from .connection import Connection

#: What may be over in a moment, if it happens while connecting: the server is not there (yet, or just
#: now), is overloaded, or closes because too many are connected. Everything else stays as it is until
#: somebody changes something: permissions, the peer's user, its protocol.
PASSING: Final = (ServerNotFoundError, ServerRefusedError, ConnectTimeoutError, PeerClosedError)

#: Doublings of the first wait after which every setting has come to the longest. A float has no room for a
#: thousand more.
_DOUBLINGS: Final = 31

_LEAVE_TIME: Final = (
    "raise the timeout, or lower accept_timeout_ms and read_timeout_ms so that there is time to ask another"
)


def backoff(rounds: int, settings: ResilientConfig, chance: float) -> float:
    """Return how long to wait before the next round, in seconds.

    Args:
        rounds: how many there were, from 1.
        settings: the first and the longest wait.
        chance: from 0 up to 1. It takes off up to a half, so that those who failed together do not come
            back together.
    """
    doubled: float = settings.backoff_first_ms * 2.0 ** min(rounds - 1, _DOUBLINGS)
    return min(doubled, settings.backoff_longest_ms) / 1000 * (1 - chance / 2)


class Step(enum.Enum):
    """What a call may be at, as people are told, and what they can do where it takes too long."""

    CHOOSING = "choosing an endpoint", "see what else this process does"
    QUEUING = "waiting for a connection to {}", "make fewer calls at a time, or allow more connections"
    CONNECTING = "connecting to {}", f"see whether the server is stuck; {_LEAVE_TIME}"
    ASKING = "waiting for the response of {}", f"see what the server does; {_LEAVE_TIME}"
    PAUSING = "waiting to connect again", "see whether the servers run, and what they log"

    def __init__(self, doing: str, hint: str) -> None:
        self.doing = doing
        self.hint = hint

    def told(self, upstream: Upstream | None) -> str:
        """Return what the call is at."""
        return self.doing if upstream is None else self.doing.format(upstream.path)


@attrs.frozen
class Answer(Generic[ResponseT]):
    """A response, and how it was come by.

    Attributes:
        response: the server's.
        endpoint_id: whose it is.
        attempts: what earlier tries ended by, in order. Empty if the first one was answered.
        duration: seconds from the call to the response.
    """

    response: ResponseT
    endpoint_id: str
    attempts: tuple[IpcError, ...]
    duration: float


class TryState(enum.Enum):
    """What may still become of a call and a server that it has tried."""

    OPEN = enum.auto()
    """It is being tried; or it was left without having been asked, and may be chosen again."""
    NEXT_ROUND = enum.auto()
    """It could not be reached, or closed instead of a response. It may be tried again in the next round."""
    OVER = enum.auto()
    """This call asks it no more."""


class Try:
    """How a call and one server get on.

    Attributes:
        permit: the breaker's leave, and what its verdict goes to. None while there is none.
        state: what may still become of it.
        owes_failure: whether its breaker is told of its latest failure at the end of the call, unless it
            answers after all.
        has_closed: whether it has closed the connection instead of a response.
    """

    __slots__ = ("has_closed", "owes_failure", "permit", "state")

    def __init__(self) -> None:
        self.permit: Permit | None = None
        self.state = TryState.OPEN
        self.owes_failure = False
        self.has_closed = False

    def verdict(self, *, failed: bool) -> None:
        """Tell the breaker that it failed, or that nothing was learnt. The first verdict counts."""
        self.owes_failure = False
        if self.permit is not None:
            if failed:
                self.permit.fail()
            else:
                self.permit.withdraw()


class PendingCall:
    """A call in flight.

    Args:
        request: what is asked; None where ``is_done`` is always True, and only a connection is wanted.
        needs: says whether a server's capabilities will do, None if any will.
        began: when, on Trio's clock.
        seconds: how long all of it may take.
        repeatable: whether the request may be made again when it may have reached a server.
        only: the one server to ask, None for any.
        is_task: whether a user of the client makes it. Else it is upkeep: it makes one round, does not
            count as use of a connection for ``idle_timeout_ms``, and is in no metrics of tasks.
        may_connect: whether a connection may be opened for it.
        counts: whether its success or failure counts for a breaker that is closed.
        is_done: says of the connection that was got for it whether nothing need be asked any more; then its
            response is None.

    Attributes:
        began, deadline: on Trio's clock.
        round: how often it goes through the servers, from 1.
        errors: what each try ended by.
        tries: how it gets on with each server, but for those that it has not tried.
        asked: the connection that it was given last.
        place: its place in the queue for connections, the smaller, the sooner; None while it has none. It is
            kept until the call is served, also where it goes from one server's queue to another's.
        queues_until: when waiting there has taken too long.
        connection: on which it takes a place now.
        has_left: whether it ended while it took one, as others share the connection.
        is_late: whether its deadline passed.
    """

    asked: Connection | None = None
    connection: Connection | None = None
    has_left = False
    is_late = False
    place: int | None = None
    queues_until: float | None = None
    round = 1

    def __init__(
        self,
        request: Message | None,
        needs: Callable[[Any], bool] | None = None,
        *,
        began: float,
        seconds: float,
        repeatable: bool,
        only: Upstream | None = None,
        is_task: bool = True,
        may_connect: bool = True,
        counts: bool = True,
        is_done: Callable[[Connection], bool] | None = None,
    ) -> None:
        self.request: Any = request
        self.needs = needs
        self.repeatable = repeatable
        self.only = only
        self.is_task = is_task
        self.may_connect = may_connect
        self.counts = counts
        self.is_done = is_done
        self.began = began
        self.deadline = self.began + seconds
        self.errors: list[IpcError] = []
        self.tries: dict[Upstream, Try] = {}
        #: What it was at, with whom, and since when.
        self.steps: list[tuple[float, Step, Upstream | None]] = [(self.began, Step.CHOOSING, None)]

    def at(self, step: Step, upstream: Upstream | None, now: float) -> None:
        """Note what the call is at, with whom, and since when."""
        self.steps.append((now, step, upstream))

    def asks_on(self, connection: Connection, now: float) -> None:
        """Note that it takes a place on a connection."""
        self.connection = connection
        self.asked = connection
        self.steps.append((now, Step.ASKING, connection.upstream))

    def may_try(self, upstream: Upstream) -> bool:
        """Return whether a server may be chosen in this round."""
        known = self.tries.get(upstream)
        return known is None or known.state is TryState.OPEN

    def suits(self, capabilities: Any) -> bool:
        """Return whether these capabilities will do for what the caller needs.

        Raises:
            TypeError: the caller's function returned no bool.
        """
        if self.needs is None:
            return True
        said: object = self.needs(capabilities)
        if isinstance(said, bool):
            return said
        dismiss(said)
        raise TypeError(f"needs returned {type(said).__name__}, must be a bool")

    # --- What becomes of a try --------------------------------------------------------------------------

    def admit(self, upstream: Upstream) -> bool:
        """Get the breaker's leave to try; where it gives none, that is never waited for."""
        known = self.tries.get(upstream)
        if known is None:
            known = self.tries[upstream] = Try()
        elif known.permit is not None and upstream.breaker.still_admits(known.permit):
            return True
        permit = upstream.breaker.admit(self.deadline)
        if permit is None:
            self.give_up(upstream, _breaker_open(upstream))
            return False
        # A breaker that is closed has nothing to wait for.
        known.permit = permit if self.counts or permit.probing else None
        return True

    def answered(self) -> None:
        """The server that was asked last has answered."""
        assert self.asked is not None  # noqa: S101 - for the type checker
        known = self.tries[self.asked.upstream]
        if known.permit is not None:
            known.permit.succeed()
        known.owes_failure = False
        if len(self.tries) > 1:  # else that was the only verdict
            self.end(abandoned=False)

    def not_asked(self, upstream: Upstream) -> None:
        """It was left before it was asked, through no fault of its own. It may be chosen again."""
        known = self.tries[upstream]
        if known.permit is not None and known.permit.probing:
            known.permit.withdraw()  # another call may try it meanwhile
            known.permit = None

    def not_reached(self, upstream: Upstream, error: IpcError, *, is_known: bool = False) -> None:
        """It could not be reached, or closed the connection; which may be otherwise in a moment.

        Args:
            upstream: which.
            error: how it showed.
            is_known: whether its breaker was told already, by another call on the same connection.
        """
        known = self.tries[upstream]
        if known.permit is not None and known.permit.probing:
            self.failed(upstream, error)
        else:
            self.errors.append(error)
            known.state = TryState.NEXT_ROUND
            known.owes_failure = not is_known

    def not_tried(self, upstream: Upstream, error: IpcError) -> None:
        """This side lacked what it takes to try it, and may have that in a moment. Nothing was learnt."""
        self.not_asked(upstream)
        self.errors.append(error)
        self.tries[upstream].state = TryState.NEXT_ROUND

    def not_answered(self, upstream: Upstream, error: IpcError, *, is_known: bool) -> None:
        """The connection ended instead of a response. A server that has closed it may begin again, once."""
        known = self.tries[upstream]
        if self.repeatable and isinstance(error, PeerClosedError) and not known.has_closed:
            known.has_closed = True
            self.not_reached(upstream, error, is_known=is_known)
        elif is_known:
            self.give_up(upstream, error)
        else:
            self.failed(upstream, error)

    def failed(self, upstream: Upstream, error: IpcError | None) -> None:
        """It failed, or (without an error) did not answer by the call's deadline."""
        self.tries[upstream].verdict(failed=True)
        self.give_up(upstream, error)

    def give_up(self, upstream: Upstream, error: IpcError | None) -> None:
        """Ask it no more, through no fault of its own now; if it could not be reached before, that was."""
        known = self.tries[upstream]
        if error is not None:
            self.errors.append(error)
        known.verdict(failed=known.owes_failure)
        known.state = TryState.OVER

    def overdue(self) -> None:
        """The deadline passed: that is the failure of a server that was waited for."""
        self.is_late = True
        _, step, upstream = self.steps[-1]
        if upstream is not None and step in {Step.CONNECTING, Step.ASKING}:
            upstream.failed()
            self.failed(upstream, None)

    # --- Between rounds, and at the end -------------------------------------------------------------------

    def next_round(self, at_most: int) -> bool:
        """Begin another round, if there is a server that could not be reached and this is not the last."""
        again = [one for one, known in self.tries.items() if known.state is TryState.NEXT_ROUND]
        if self.round >= at_most or all(upstream.removed for upstream in again):
            return False
        self.round += 1
        for upstream in again:
            self.tries[upstream].state = TryState.OPEN
        return True

    def end(self, *, abandoned: bool) -> None:
        """Give the verdicts that are left: who could not be reached until the end has failed.

        Args:
            abandoned: the call was cancelled or the client closed, which says nothing about anyone.
        """
        for known in self.tries.values():
            known.verdict(failed=known.owes_failure and not abandoned)


def _breaker_open(upstream: Upstream) -> CircuitOpenError:
    breaker = upstream.breaker.statistics()
    retry_after = upstream.breaker.retry_after
    error = CircuitOpenError(
        f"the circuit breaker is half open, and another call is trying the server; call again in "
        f"{retry_after:.1f} s"
        if breaker.probing
        else f"the circuit breaker is open after {breaker.failures} "
        f"{plural(breaker.failures, 'failure')} in a row; it lets a call through in {retry_after:.1f} s",
        endpoint=upstream.path,
        hint="see why it failed, or add another endpoint",
    )
    error.retry_after = retry_after
    return error
