"""Turns: who may use a connection, and for how long the others wait.

No turn is lost, neither by a cancellation nor by a KeyboardInterrupt. This module must never know what a turn
is used for.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import trio

from trio_ipc.channel import STOPPED, Alarm
from trio_ipc.errors import IpcError, plural

from .failures import no_turn


class _Waiter:
    """Somebody who waits for a turn.

    Attributes:
        task: whose.
        deadline: of the caller's own, if the alarm is to end the wait by then; else infinity.
        due: when the alarm is to end it, by that or by ``read_timeout_ms``; else infinity.
        has_turn: whether it got one.
    """

    __slots__ = ("deadline", "due", "has_turn", "task")

    def __init__(self, until: float = math.inf, deadline: float = math.inf) -> None:
        self.task = trio.lowlevel.current_task()
        self.deadline = deadline
        self.due = min(until, deadline)
        self.has_turn = False


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
        self._read_timeout_ms = read_timeout_ms
        self._free = at_a_time
        # In the order in which they came. A dict is searched for its first one from where that was once.
        self._waiting: OrderedDict[_Waiter, None] = OrderedDict()
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
        ahead = self._at_a_time + len(self._waiting)
        limit = self._read_timeout_ms / 1000 if limited else math.inf
        until = trio.current_time() + limit
        if self._set_alarm(min(until, deadline)):
            waiter = _Waiter(until, deadline)
            await self._park(waiter)
            if trio.current_time() >= deadline:
                if waiter.has_turn:  # too late: it came in the moment in which the alarm was about to ring
                    self.give_back()
                raise self._no_turn(ahead)
            if not waiter.has_turn:
                raise self._no_turn(ahead, limit)
            return
        while True:
            with trio.CancelScope(deadline=min(until, deadline)):
                await self._park(_Waiter())
                return
            now = trio.current_time()
            if now >= deadline:
                raise self._no_turn(ahead)
            if now < until + STOPPED:
                raise self._no_turn(ahead, limit)
            until = now + limit  # it was this process that was stopped, not the calls ahead

    @trio.lowlevel.enable_ki_protection
    def give_back(self, _outcome: BaseException | None = None) -> None:
        """End a turn. The next one goes to the caller that waits longest."""
        if self._waiting:
            waiter = next(iter(self._waiting))
            waiter.has_turn = True
            self._wake(waiter)
        else:
            self._free += 1

    def _no_turn(self, ahead: int, limit: float | None = None) -> IpcError:
        return no_turn(self._endpoint, f"{ahead} {plural(ahead, 'call')}", limit)

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

    async def _park(self, waiter: _Waiter) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            self._leave(waiter)
            return trio.lowlevel.Abort.SUCCEEDED

        self._waiting[waiter] = None
        await trio.lowlevel.wait_task_rescheduled(abort)

    def _wake(self, waiter: _Waiter) -> None:
        self._leave(waiter)
        trio.lowlevel.reschedule(waiter.task)

    def _leave(self, waiter: _Waiter) -> None:
        del self._waiting[waiter]
        if self._alarm_is_leaving and not self._waiting and self._alarm is not None:
            self._alarm.end()
            self._alarm = None  # who comes now has another one

    def _time_is_up(self, alarm: Alarm) -> None:
        """End the waits whose time is up, and set the alarm for the next one."""
        now = trio.current_time()
        for waiter in [*self._waiting]:
            if now >= waiter.deadline or waiter.due <= now < waiter.due + STOPPED:
                self._wake(waiter)
            elif waiter.due <= now:  # this process was stopped
                waiter.due = min(now + self._read_timeout_ms / 1000, waiter.deadline)
        due = min((waiter.due for waiter in self._waiting), default=math.inf)
        if due < math.inf:
            alarm.set(due)
