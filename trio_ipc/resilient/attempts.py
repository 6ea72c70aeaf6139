"""One call's way through the collectors: whom it has tried, what came of it, and what may still be tried.

Data, and the wording of what is said in the end. This module must never wait for anything.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Generic

import attrs
import trio

from trio_ipc.contract import RequestT, ResponseT
from trio_ipc.errors import (
    AttemptsFailedError,
    CallTimeoutError,
    ChannelClosedError,
    CircuitOpenError,
    IpcError,
    MessageError,
    NoEndpointError,
    PoolTimeoutError,
)

from .breaker import Permit
from .endpoints import Collector
from .pool import Ticket

_LEAVE_TIME: Final = (
    "raise the timeout, or lower accept_timeout_ms and read_timeout_ms so that there is time to ask another"
)


class Step(enum.Enum):
    """What a call may be at, as people are told, and what they can do where it takes too long."""

    CHOOSING = "choosing a collector", "see what else this process does"
    QUEUING = "waiting for a connection to {}", "make fewer calls at a time, or allow more connections"
    CONNECTING = "connecting to {}", f"see whether the collector is stuck; {_LEAVE_TIME}"
    ASKING = "waiting for the answer of {}", f"see what the collector does; {_LEAVE_TIME}"
    PAUSING = "waiting to connect again", "see whether the collectors run"

    def __init__(self, doing: str, hint: str) -> None:
        self.doing = doing
        self.hint = hint

    def told(self, collector: Collector | None) -> str:
        """Return what the call is at."""
        return self.doing if collector is None else self.doing.format(collector.path)


#: During these it is the collector's fault if the deadline goes by.
_ITS_FAULT: Final = (Step.CONNECTING, Step.ASKING)

#: Steps that took less than this of a call's time, in seconds, are not worth to be told of.
_WORTH_TELLING: Final = 0.001


@attrs.frozen
class Answer(Generic[ResponseT]):
    """A response, and how it was come by.

    Attributes:
        response: the collector's.
        endpoint_id: whose it is.
        attempts: what earlier tries ended by, in order. Empty if the first one was answered.
        duration: seconds from the call to the answer.
    """

    response: ResponseT
    endpoint_id: str
    attempts: tuple[IpcError, ...]
    duration: float


class Attempts(Generic[RequestT]):
    """What has become of a call so far.

    Attributes:
        request: what is asked.
        needs: says whether a collector's capabilities will do, None if any will.
        repeatable: whether the request may be made again when it may have reached a collector.
        upkeep: whether the client makes it for itself: a connection is no less idle for it.
        began, deadline: on Trio's clock.
        ticket: its place in the queue for connections.
        settled: whether the latest try takes no place on a connection any longer.
        left: whether the caller has left before the latest try was settled.
        judged: whether the latest try was a failure before it was settled.
        errors: what each try ended by.
        given_up: collectors that this call will not ask any more.
        unreached: collectors that could not be reached, and may be in a moment.
    """

    def __init__(
        self,
        request: RequestT,
        needs: Callable[[Any], bool] | None = None,
        *,
        seconds: float,
        repeatable: bool,
        upkeep: bool = False,
    ) -> None:
        self.request = request
        self.needs = needs
        self.repeatable = repeatable
        self.upkeep = upkeep
        self.began = trio.current_time()
        self.deadline = self.began + seconds
        self.errors: list[IpcError] = []
        self.given_up: set[Collector] = set()
        self.unreached: set[Collector] = set()
        self.ticket = Ticket()
        self.settled = True
        self.left = False
        self.judged = False
        #: What it was at, and since when.
        self._steps: list[tuple[float, Step, Collector | None]] = [(self.began, Step.CHOOSING, None)]
        self._permits: dict[Collector, Permit] = {}
        self._closed_under_it: set[Collector] = set()
        self._spared: set[Collector] = set()

    def now(self, step: Step, collector: Collector | None = None) -> None:
        """Note what the call is at, and with whom."""
        self._steps.append((trio.current_time(), step, collector))

    def permit(self, collector: Collector) -> Permit | None:
        """Return this call's permit for a collector, the same one each time it is tried."""
        held = self._permits.get(collector)
        if held is not None and collector.breaker.still_admits(held):
            return held
        permit = collector.breaker.admit(self.deadline)
        if permit is not None:
            self._permits[collector] = permit
        return permit

    def refused(self, collector: Collector) -> None:
        """Its circuit breaker lets nobody through; that is never waited for."""
        breaker = collector.breaker.statistics()
        retry_after = collector.breaker.retry_after
        error = CircuitOpenError(
            f"left alone until the one call that tries it has an answer; come again in {retry_after:.1f} s"
            if breaker.probing
            else f"left alone after {breaker.failures} failures in a row; it is tried again in "
            f"{retry_after:.1f} s",
            endpoint=collector.path,
            hint="see why it failed, or add another collector",
        )
        error.retry_after = retry_after
        self.give_up(collector, error)

    def not_reached(self, collector: Collector, error: IpcError) -> None:
        """It could not be reached, which may be otherwise in a moment. Nothing was sent."""
        permit = self._permits[collector]
        if permit.probing:
            self.failed(collector, error)
            return
        self.errors.append(error)
        self.unreached.add(collector)
        self._spared.discard(collector)

    def closed_under_it(self, collector: Collector, error: IpcError, *, blamed: bool) -> None:
        """It closed the connection instead of an answer: it ended, and may begin again, once.

        ``blamed``: another call on the same connection was told first, and has told the breaker.
        """
        if collector not in self._closed_under_it:
            self._closed_under_it.add(collector)
            self.not_reached(collector, error)
            if blamed:
                self._spared.add(collector)
        elif blamed:
            self.give_up(collector, error)
        else:
            self.failed(collector, error)

    def failed(self, collector: Collector, error: IpcError | None) -> None:
        """It failed, or (without an error) did not answer by the call's deadline."""
        self._permits[collector].fail()
        self.give_up(collector, error)

    def give_up(self, collector: Collector, error: IpcError | None) -> None:
        """Ask it no more, through no fault of its own now; if it could not be reached before, that was."""
        if error is not None:
            self.errors.append(error)
        if collector in self.unreached - self._spared:
            self._permits[collector].fail()
        self.given_up.add(collector)
        self.unreached.discard(collector)

    def answered(self, collector: Collector) -> None:
        """It answered."""
        self._permits[collector].succeed()
        self.unreached.discard(collector)

    def withdraw(self, collector: Collector) -> None:
        """Leave it without a verdict: another call may try it meanwhile."""
        permit = self._permits.get(collector)
        if permit is not None and permit.probing:
            del self._permits[collector]
            permit.withdraw()

    def close(self, *, abandoned: bool) -> None:
        """Settle what is left: who could not be reached until the end has failed.

        Args:
            abandoned: the caller was cancelled, which says nothing about anyone.
        """
        for collector, permit in self._permits.items():
            if collector in self.unreached - self._spared and not abandoned:
                permit.fail()
            else:
                permit.withdraw()

    def failure(self) -> IpcError:
        """Return what the call's error is, once there is nobody left to ask."""
        if not self.errors:
            return NoEndpointError(
                "this client has no collector to ask", hint="add an endpoint, or open the client with one"
            )
        if len(self.errors) == 1:
            return self.errors[0]
        if all(isinstance(error, CircuitOpenError) for error in self.errors):
            return self._all_open()
        if all(isinstance(error, PoolTimeoutError) for error in self.errors):
            return self._all_in_use()
        error = AttemptsFailedError(
            f"no collector answered, {len(self.errors)} tries failed: {self._told()}",
            hint="see whether they run, and what they log",
        )
        error.attempts = tuple(self.errors)
        error.__cause__ = ExceptionGroup("the tries of one call", self.errors)
        error.endpoint = self._where()
        return error

    def _all_open(self) -> CircuitOpenError:
        opened = [error for error in self.errors if isinstance(error, CircuitOpenError)]
        error = CircuitOpenError(
            f"all {len(opened)} collectors are left alone, as they failed too often: {self._told()}",
            hint=opened[0].hint,
        )
        error.retry_after = min(one.retry_after for one in opened)
        error.attempts = tuple(opened)
        return error

    def _all_in_use(self) -> PoolTimeoutError:
        error = PoolTimeoutError(
            f"no connection came free to any of {len(self.errors)} collectors: {self._told()}",
            hint=self.errors[0].hint,
        )
        error.attempts = tuple(self.errors)
        return error

    def is_failure(self, outcome: BaseException) -> bool:
        """Return whether it is the collector's failure that a try ended by this exception."""
        if isinstance(outcome, trio.Cancelled):
            return trio.current_time() >= self.deadline
        # A MessageError is the request's fault, and a ChannelClosedError says that this side has closed.
        return isinstance(outcome, IpcError) and not isinstance(outcome, (MessageError, ChannelClosedError))

    def overdue(self) -> None:
        """The deadline went by: that is the failure of the collector that was waited for."""
        _, step, collector = self._steps[-1]
        if step in _ITS_FAULT and collector is not None:
            self.failed(collector, None)

    def timed_out(self) -> CallTimeoutError:
        """Note that the call's deadline went by, and return the error."""
        self.overdue()
        spent = self._time_spent()
        told = "".join(f", {seconds * 1000:.0f} ms {step.told(who)}" for (step, who), seconds in spent)
        (longest, whose), _ = spent[0]
        _, latest, last = self._steps[-1]
        error = CallTimeoutError(
            f"no answer within the call's timeout of {(self.deadline - self.began) * 1000:.0f} ms; it was "
            + latest.told(last)
            + (f"; it had spent {told[2:]}" if len(spent) > 1 else "")
            + (f"; {len(self.errors)} tries had failed: {self._told()}" if self.errors else ""),
            endpoint=self._where() if whose is None else whose.path,
            hint=longest.hint,
        )
        error.attempts = tuple(self.errors)
        if self.errors:
            error.__cause__ = ExceptionGroup("the tries of one call", self.errors)
        return error

    def _time_spent(self) -> list[tuple[tuple[Step, Collector | None], float]]:
        """Return what took how many seconds, the longest first; at least the step that it is at."""
        ends = [began for began, _, _ in self._steps[1:]] + [trio.current_time()]
        spent = Counter[tuple[Step, Collector | None]]()
        for (began, step, collector), ended in zip(self._steps, ends, strict=True):
            spent[step, collector] += ended - began  # type: ignore[assignment]  # seconds are floats
        worth = [(what, float(seconds)) for what, seconds in spent.most_common() if seconds >= _WORTH_TELLING]
        return worth or [(self._steps[-1][1:], 0.0)]

    def _where(self) -> str | None:
        """Return the endpoint of all errors, None if there are several."""
        where = {error.endpoint for error in self.errors}
        return where.pop() if len(where) == 1 else None

    def _told(self) -> str:
        counted = Counter(f"{error.endpoint}: {error.message}" for error in self.errors)
        return "; ".join(f"{text} ({times} times)" if times > 1 else text for text, times in counted.items())
