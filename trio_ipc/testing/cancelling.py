"""Cancels a piece of code at every place at which it can be cancelled, one place at a time.

What a service does when it is cancelled is what nobody tries by hand: there are as many cases as there are
waits. Trio's instruments see each of them. A wait is found again by its number, and so Trio must run the
tasks in the same order again: it shuffles them otherwise. This module must know nothing of what it cancels,
and never guess how many moments there are: it counts until there is none left.
"""

from __future__ import annotations

import contextlib
import enum
import os
import random
from collections.abc import Iterable, Iterator, MutableSequence
from types import TracebackType
from typing import Any, Final

import trio
import trio._core._run as scheduler

from trio_ipc.errors import shown_argument

from .checking import check_whole
from .frames import await_frames

#: With the separator: trio_ipc is beside it where both are installed.
_TRIO: Final = os.path.join(os.path.dirname(trio.__file__), "")

#: What Trio draws the order of the tasks by, and whether it sorts them first. It has no public way to order
#: them; pytest-trio sets the same for Hypothesis.
_DRAWS: Final = ("_r", "_ALLOW_DETERMINISTIC_SCHEDULING")


class Moment(enum.StrEnum):
    """When, seen from a wait, the cancellation comes."""

    #: As soon as the wait has begun.
    WAITING = "waiting"
    #: When what was waited for has come, and the task has not gone on yet.
    WOKEN = "woken"
    #: By a deadline that is over as soon as the wait has begun: who wakes the task may be quicker.
    DEADLINE = "deadline"


class CancelledAttempt(trio.abc.Instrument):
    """One run of the code, cancelled at one moment. Made by :func:`cancel_everywhere`.

    A context manager around what is to be cancelled. What is before the block and behind it is not.

    Attributes:
        schedule: in which order tasks run that are ready at the same time; see :func:`cancel_everywhere`.
        moment: which of the three.
        number: at which wait, from 1; 0 is before the block begins. The waits of all tasks that the block
            starts, in nurseries that it opens, are counted; those of a task no more once ``nursery.start``
            has moved it into a nursery of others.
        hit: whether it came to that. In the last attempt of each kind the block was over before.
        where: where the code was, for people; empty before the hit.
    """

    def __init__(self, moment: Moment, number: int, schedule: int = 0) -> None:
        self.schedule = schedule
        self.moment = moment
        self.number = number
        self.hit: bool = False
        self.where: str = ""
        self._task: trio.lowlevel.Task | None = None
        self._tasks: set[trio.lowlevel.Task] = set()
        self._nurseries_around: list[trio.Nursery] = []
        self._waits = 0
        self._scope: trio.CancelScope | None = None

    @property
    def cancelled(self) -> bool:
        """Whether the block ended by the cancellation. It may have been hit, and done nevertheless."""
        return self._scope is not None and self._scope.cancelled_caught

    def __enter__(self) -> CancelledAttempt:
        """Begin to count, in the current task."""
        if self._scope is not None:
            raise RuntimeError("an attempt is for one `with` block: take the next one from the loop")
        self._scope = trio.CancelScope()
        self._scope.__enter__()
        self._task = task = trio.lowlevel.current_task()
        self._tasks.add(task)
        self._nurseries_around = [*task.child_nurseries]
        if self.number == 0:
            self.where = "before the block"
            self._cancel()
        else:
            trio.lowlevel.add_instrument(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Stop counting, and take the cancellation in. An exception of the block gets a note of it."""
        assert self._scope is not None  # noqa: S101 - __enter__ made it
        if self.number:
            trio.lowlevel.remove_instrument(self)
        if exc is not None and self.hit:
            exc.add_note(repr(self))
        self._tasks.clear()
        self._task = None
        return self._scope.__exit__(kind, exc, traceback)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """Count a task's waits, too, if the block has started it inside of itself."""
        if self._is_inside(task) and trio.lowlevel.current_task() in self._tasks:
            self._tasks.add(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """Forget a task."""
        self._tasks.discard(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count, where what is to be cancelled has been woken."""
        if self.moment is Moment.WOKEN:
            self._count(task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count, where what is to be cancelled waits."""
        if self.moment is not Moment.WOKEN:
            self._count(task)

    def _count(self, task: trio.lowlevel.Task) -> None:
        if task not in self._tasks or not self._is_inside(task):
            return
        self._waits += 1
        if self._waits == self.number:
            self.where = _place(task)
            self._cancel()

    def _is_inside(self, task: trio.lowlevel.Task) -> bool:
        """Whether the block waits for a task: nursery.start() moves one when it has begun."""
        while task is not self._task:
            nursery = task.parent_nursery
            if nursery is None or nursery in self._nurseries_around or nursery.parent_task not in self._tasks:
                return False
            task = nursery.parent_task
        return True

    def _cancel(self) -> None:
        assert self._scope is not None  # noqa: S101 - __enter__ made it
        self.hit = True
        if self.moment is Moment.DEADLINE:
            self._scope.deadline = trio.current_time()
        else:
            self._scope.cancel()

    def __repr__(self) -> str:
        """Say where it was cancelled."""
        where = f", {self.where}" if self.where else ", not reached"
        return f"<cancelled at wait {self.number}, {self.moment}{where}, schedule {self.schedule}>"


def _place(task: trio.lowlevel.Task) -> str:
    """Return where a task waits: in the innermost function that is not Trio's own."""
    place = task.name
    for frame, line in await_frames(task):
        code = frame.f_code
        if not code.co_filename.startswith(_TRIO):
            place = f"in {code.co_qualname} ({os.path.basename(code.co_filename)}:{line})"
    return place


class _Order(random.Random):
    """Takes the place of what Trio draws the order of ready tasks from, and is the same each time."""

    def __init__(self, schedule: int) -> None:
        super().__init__(schedule)
        self._schedule = schedule
        self.before: dict[str, Any] = {}

    def shuffle(self, x: MutableSequence[Any]) -> None:
        """Leave the order of creation, turn it round, or shuffle as the schedule's number will have it."""
        if self._schedule == 0:
            x.reverse()  # Trio takes them from the end
        elif self._schedule > 1:
            super().shuffle(x)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Let Trio run tasks in this order for the length of a block."""
        names = vars(scheduler)
        self.before = {name: names[name] for name in _DRAWS}
        names.update(zip(_DRAWS, (self, True), strict=True))
        try:
            yield
        finally:
            # A loop may run within another, or beside it: the other one keeps its order.
            holder = names
            while isinstance(order := holder["_r"], _Order) and order is not self:
                holder = order.before
            if holder["_r"] is self:
                holder.update(self.before)


def cancel_everywhere(
    moments: Iterable[Moment | str] = Moment, *, schedules: int = 2
) -> Iterator[CancelledAttempt]:
    """Run the body of a ``for`` loop again and again, cancelled at each wait in turn.

    ::

        for attempt in cancel_everywhere():
            async with open_client(CONTRACT, config) as client:
                with attempt:
                    await client.call(request)
                assert client.is_broken or await client.call(request) == response, attempt

    The first attempt is cancelled before its block begins, the next at the first wait in it, then at the
    second, and so on, until the block comes to its end before it is hit; so for each of the moments. What
    must hold after a cancellation is checked behind the block, where nothing is cancelled.

    Trio runs tasks that are ready at the same time in an order that it draws. Here all attempts of one
    schedule have the same order, from the loop's body on to its next turn: that of the tasks' creation for
    the first, the opposite for the second, and drawn ones for all further. So of two tasks that are ready
    together, each is seen to be first. What comes from outside of the program (sockets, threads, the real
    clock) still comes when it likes, and may change the number of a wait from one attempt to the next: what
    must be complete runs in memory and on a mock clock.

    Args:
        moments: when, seen from a wait, the cancellation comes; all three if not given.
        schedules: how many orders are tried, one after another.

    Returns:
        An iterator of :class:`CancelledAttempt`. The block must come to its end by itself if it is not
        cancelled; put a deadline around the loop.

    Raises:
        TypeError: ``moments`` is one moment and no list of them, or ``schedules`` no number.
        ValueError: there is no such moment, none at all, or no schedule.
        RuntimeError: the body did not enter ``with attempt``.
    """
    check_whole("schedules", schedules, 1)
    given: object = str(moments) if isinstance(moments, str) else moments  # and not the repr of a Moment
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"moments is {shown_argument(given)}, must be a list such as [Moment.WOKEN]")
    wanted = [Moment(moment) for moment in moments]
    if not wanted:
        raise ValueError("moments is empty, and nothing would be tried: must have at least one")
    return _attempts(wanted, schedules)


def _attempts(moments: list[Moment], schedules: int) -> Iterator[CancelledAttempt]:
    for schedule in range(schedules):
        for moment in moments:
            number = 0
            while True:
                attempt = CancelledAttempt(moment, number, schedule)
                with _Order(schedule).kept():
                    yield attempt
                if attempt._scope is None:  # noqa: SLF001 - one of this module's own
                    raise RuntimeError("the body of the loop did not enter `with attempt:`")
                if not attempt.hit:
                    break
                number += 1
