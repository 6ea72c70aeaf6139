"""Logging that cannot hurt what is logged.

A host program's record factories, filters, formatters and handlers are its own code, and may raise: for one,
where it gives every record a field of a name that we use. That costs a line of the log, and never a response,
a connection or the server. This module must never decide what is worth a line.
"""

from __future__ import annotations

import logging
import math
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import trio

from trio_ipc.errors import ends_the_program, writable

#: What ``exc_info`` may be.
Exc: TypeAlias = BaseException | bool | None

#: Lines of one kind that are written within a second. What happens thousands of times a second, because a
#: process connects in a loop or a handler fails at each request, would fill the disk.
_LINES_A_SECOND: Final = 10


class Log:
    """A logger of :mod:`logging` whose methods raise nothing but what ends the program.

    Args:
        name: a module's ``__name__``. The logger is its package's, such as ``trio_ipc.server``: which file of
            a package logs something is an implementation detail.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(".".join(name.split(".")[:2]))

    def debug(
        self, message: str, *args: object, extra: Mapping[str, object] | None = None, exc_info: Exc = None
    ) -> None:
        """Log like :meth:`logging.Logger.debug`."""
        self.log(logging.DEBUG, message, *args, extra=extra, exc_info=exc_info, stacklevel=2)

    def info(
        self, message: str, *args: object, extra: Mapping[str, object] | None = None, exc_info: Exc = None
    ) -> None:
        """Log like :meth:`logging.Logger.info`."""
        self.log(logging.INFO, message, *args, extra=extra, exc_info=exc_info, stacklevel=2)

    def warning(
        self, message: str, *args: object, extra: Mapping[str, object] | None = None, exc_info: Exc = None
    ) -> None:
        """Log like :meth:`logging.Logger.warning`."""
        self.log(logging.WARNING, message, *args, extra=extra, exc_info=exc_info, stacklevel=2)

    def error(
        self, message: str, *args: object, extra: Mapping[str, object] | None = None, exc_info: Exc = None
    ) -> None:
        """Log like :meth:`logging.Logger.error`."""
        self.log(logging.ERROR, message, *args, extra=extra, exc_info=exc_info, stacklevel=2)

    def exception(self, message: str, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log like :meth:`logging.Logger.exception`."""
        self.log(logging.ERROR, message, *args, extra=extra, exc_info=True, stacklevel=2)

    def log(
        self,
        level: int,
        message: str,
        *args: object,
        extra: Mapping[str, object] | None = None,
        exc_info: Exc = None,
        stacklevel: int = 1,
    ) -> None:
        """Log like :meth:`logging.Logger.log`."""
        told: dict[str, Any] = {"exc_info": exc_info, "stacklevel": stacklevel + 1}
        try:
            if not self._logger.isEnabledFor(level):
                return
            # A path may hold bytes that are no text; a handler's file would not take the line.
            args = tuple(writable(arg) if isinstance(arg, str) else arg for arg in args)
            try:
                self._logger.log(level, message, *args, extra=extra, **told)
            except KeyError as exc:
                if _was_made(exc):
                    raise
                # A record factory has a field of the name of one of ours (Logger.makeRecord).
                self._logger.log(level, message, *args, **told)
        except BaseException as exc:
            if ends_the_program(exc) is not None:
                raise
            _tell_on_stderr()


def _was_made(exc: KeyError) -> bool:
    """Return whether the record was made: then filters and handlers have had it, and one of them raised this.

    Logger.handle is what is done with a record. To make and to handle it here, in two steps, would leave out
    what a program's own class of loggers does in between.
    """
    steps = traceback.walk_tb(exc.__traceback__)
    return any(frame.f_code.co_name == logging.Logger.handle.__name__ for frame, _ in steps)


def _tell_on_stderr() -> None:
    """Do what :mod:`logging` does where a handler of its own raises (Handler.handleError)."""
    if logging.raiseExceptions and sys.stderr is not None:
        try:
            traceback.print_exc(file=sys.stderr)
        except BaseException as exc:
            if ends_the_program(exc) is not None:
                raise


def time_here() -> float:
    """Return the time in seconds, by Trio's clock in a run of Trio's, and by the system's elsewhere."""
    # Not monotonic(), which Windows advances in steps of 15.6 ms (time.get_clock_info says so).
    return trio.current_time() if trio.lowlevel.in_trio_run() else time.perf_counter()


class LimitedLog:
    """Writes so many lines of one kind a second, and one that says how many more there were.

    Args:
        log: where to.
        level: of the lines.
        more: of that one line: ``"more connections were refused: %d"``.
        counted_as: the field in which it has the number.
        fields: its other fields.
    """

    def __init__(
        self, log: Log, level: int, more: str, *, counted_as: str, fields: Mapping[str, object]
    ) -> None:
        self._log = log
        self._level = level
        self._more = more
        self._counted_as = counted_as
        self._fields = fields
        self._second_over = -math.inf
        self._lines = 0
        self._unsaid = 0
        self._flooded = trio.Event()

    def write(
        self, message: str, *args: object, extra: Mapping[str, object], exc_info: BaseException | None = None
    ) -> None:
        """Write the line, or count it where there were ``_LINES_A_SECOND`` of them within a second."""
        now = time_here()
        if self._is_over(now):
            self.say_rest()
            self._second_over = now + 1
            self._lines = 0
        if self._lines < _LINES_A_SECOND:
            self._lines += 1
            self._log.log(self._level, message, *args, extra=extra, exc_info=exc_info, stacklevel=2)
        else:
            self._unsaid += 1
            self._flooded.set()

    def _is_over(self, now: float) -> bool:
        # The clock of another run of Trio's, or of another event loop, may be far behind.
        return not self._second_over - 1 <= now < self._second_over

    def catch_up(self) -> None:
        """Say how many got no line if their second is over; for who has no task for :meth:`run`."""
        if self._unsaid and self._is_over(time_here()):
            self.say_rest()

    async def run(self) -> None:
        """Say how many got no line once their second is over, until cancelled, and then what is left."""
        try:
            while True:
                await self._flooded.wait()
                await trio.sleep_until(self._second_over)
                self.say_rest()
        finally:
            self.say_rest()

    def say_rest(self) -> None:
        """Say how many got no line, if any."""
        if self._unsaid:
            fields = {**self._fields, self._counted_as: self._unsaid}
            self._log.log(self._level, self._more, self._unsaid, extra=fields)
            self._unsaid = 0
            self._flooded = trio.Event()
