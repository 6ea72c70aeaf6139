"""Turns: who may use a connection, and for how long the others wait.

No turn is lost, neither by a cancellation nor by a KeyboardInterrupt. This module must never know what a turn
is used for.
"""

from __future__ import annotations

import abc
import math
from collections import OrderedDict

import trio

from trio_ipc.channel import STOPPED, Alarm
from trio_ipc.errors import IpcError, plural

from .failures import no_turn


class Waiter(abc.ABC):
    """What waits for a turn. :class:`Turns` sets its attributes.

    Attributes:
        ahead: how many had, or waited for, a turn when it came.
        deadline: of the caller's own, if the alarm is to end the wait by then; else infinity.
        due: when the alarm is to end it, by that or by ``read_timeout_ms``; else infinity.
    """

    __slots__ = ("ahead", "deadline", "due")

    ahead: int
    deadline: float
    due: float

    @abc.abstractmethod
    def got_turn(self) -> bool:
        """Take note of the turn, and return whether it is of use. If not, the next one gets it."""

    @abc.abstractmethod
    def fail(self, error: IpcError) -> None:
        """Take note that the wait is over without a turn."""


class _Sleeper(Waiter):
    """A task that is woken for its turn.

    Attributes:
        has_turn: whether it got one.
        error: why it gets none.
    """

    __slots__ = ("_task", "error", "has_turn")

    def __init__(self) -> None:
        self._task = trio.lowlevel.current_task()
        self.has_turn = False
        self.error: IpcError | None = None

    def got_turn(self) -> bool:
        self.has_turn = True
        trio.lowlevel.reschedule(self._task)
        return True

    def fail(self, error: IpcError) -> None:
        self.error = error
        trio.lowlevel.reschedule(self._task)


class Turns:
    """Leave to use a connection, first come, first served.

    One alarm, for whose time is up first, is enough for all who wait, instead of a cancel scope for each.

    Args:
        at_a_time: how many callers may have it at the same time.
        endpoint: where the connection leads, for the error.
        read_timeout_ms: how long a caller waits.
        nursery: where the alarm is kept; None for a cancel scope for each wait.
    """

    def __init__(
        self, at_a_time: int, *, endpoint: str, read_timeout_ms: int, nursery: trio.Nursery | None = None
    ) -> None:
        self._at_a_time = at_a_time
        self._endpoint = endpoint
        self._limit = read_timeout_ms / 1000
        self._free = at_a_time
        # In the order in which they came. A dict is searched for its first one from where that was once.
        self._waiting: OrderedDict[Waiter, None] = OrderedDict()
        self._nursery = nursery
        self._alarm: Alarm | None = None
        #: Whether the alarm's task was cancelled, and stays for those alone who wait under a shield.
        self._alarm_is_leaving = False

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
            CallTimeoutError: the deadline passed.

        Cancellation leaves the turn to the next one.
        """
        waiter = _Sleeper()
        if self.enqueue(waiter, deadline=deadline, limited=limited):
            await self._park(waiter)
            if waiter.has_turn and trio.current_time() >= deadline:
                self.give_back()  # too late: it came in the moment in which the alarm was about to ring
                raise self.no_turn(waiter)
            if waiter.error is not None:
                raise waiter.error
            return
        until, limit = waiter.due, self._limit if limited else math.inf
        while True:
            with trio.CancelScope(deadline=min(until, deadline)):
                self._waiting[waiter] = None
                await self._park(waiter)
                return
            now = trio.current_time()
            if now >= deadline:
                raise self.no_turn(waiter)
            if now < until + STOPPED:
                raise self.no_turn(waiter, limit)
            until = now + limit  # it was this process that was stopped, not the calls ahead
            if self.take_nowait():  # one was given back while this waited no more
                return

    @trio.lowlevel.enable_ki_protection
    def enqueue(self, waiter: Waiter, *, deadline: float = math.inf, limited: bool = True) -> bool:
        """Let something wait for its turn, for which no task need be woken, and return whether that is so.

        Not where there is no alarm that could end the wait. :meth:`leave` takes it back.

        Args:
            waiter: told of its turn, or that its time is up.
            deadline: as for :meth:`wait`.
            limited: likewise.
        """
        waiter.ahead = self._at_a_time + len(self._waiting)
        waiter.deadline = deadline
        waiter.due = min(trio.current_time() + self._limit, deadline) if limited else deadline
        if not self._set_alarm(waiter.due):
            return False
        self._waiting[waiter] = None
        return True

    @trio.lowlevel.enable_ki_protection
    def leave(self, waiter: Waiter) -> bool:
        """Let something wait no longer, and return whether it did."""
        if waiter not in self._waiting:
            return False
        del self._waiting[waiter]
        if self._alarm_is_leaving and not self._waiting and self._alarm is not None:
            self._alarm.end()
            self._alarm = None  # who comes now has another one
        return True

    @trio.lowlevel.enable_ki_protection
    def give_back(self, _outcome: BaseException | None = None) -> None:
        """End a turn. The next one goes to the caller that waits longest."""
        while self._waiting:
            waiter = next(iter(self._waiting))
            self.leave(waiter)
            if waiter.got_turn():
                return
        self._free += 1

    def no_turn(self, waiter: Waiter, limit: float | None = None) -> IpcError:
        """Return the error of a wait that took too long.

        Args:
            waiter: what has waited.
            limit: for how many seconds, None for the caller's own deadline.
        """
        return no_turn(self._endpoint, f"{waiter.ahead} {plural(waiter.ahead, 'call')}", limit)

    # --- Waiting ---

    def _set_alarm(self, until: float) -> bool:
        """Have the alarm end the wait of somebody who comes now; return whether there is one."""
        if self._alarm is None:
            if self._nursery is None:
                return False
            alarm = Alarm(self._time_is_up)
            try:
                self._nursery.start_soon(self._keep_alarm, alarm)
            except RuntimeError:  # it was closed just now, and so was the connection
                return False
            self._alarm, self._alarm_is_leaving = alarm, False
        if until < self._alarm.deadline:
            self._alarm.set(until)
        return True

    @trio.lowlevel.enable_ki_protection
    async def _keep_alarm(self, alarm: Alarm) -> None:
        """Keep the alarm until this is cancelled, and after that as long as somebody waits all the same."""
        try:
            await alarm.run()
        finally:
            self._alarm_is_leaving = True
            if self._waiting:
                with trio.CancelScope(shield=True):
                    await alarm.run()
            if self._alarm is alarm:
                self._alarm = None

    async def _park(self, waiter: _Sleeper) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            self.leave(waiter)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _time_is_up(self, alarm: Alarm) -> None:
        """End the waits whose time is up, and set the alarm for the next one."""
        now = trio.current_time()
        for waiter in [*self._waiting]:
            if now >= waiter.deadline or waiter.due <= now < waiter.due + STOPPED:
                self.leave(waiter)
                waiter.fail(self.no_turn(waiter, None if now >= waiter.deadline else self._limit))
            elif waiter.due <= now:  # this process was stopped
                waiter.due = min(now + self._limit, waiter.deadline)
        due = min((waiter.due for waiter in self._waiting), default=math.inf)
        if due < math.inf:
            alarm.set(due)
