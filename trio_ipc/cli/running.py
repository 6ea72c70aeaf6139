"""A command's async part: run by Trio, cancelled by what asks a program to end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from .ending import StoppedError

_T = TypeVar("_T")

if sys.platform == "win32":
    STOP_SIGNALS: Final = (signal.SIGBREAK,)
else:
    STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)


def run_async(body: Callable[[], Awaitable[_T]]) -> _T:
    """Run an async function, and return what it does.

    Ctrl-C is a KeyboardInterrupt, as always with Trio. What else asks a program to end (SIGTERM; SIGHUP of
    a terminal that is closed; Ctrl-Break on Windows) cancels it, so that it can clean up.

    Args:
        body: takes nothing; a :func:`functools.partial` brings arguments.

    Raises:
        StoppedError: a signal has cancelled it.
    """
    return trio.run(_until_stopped, body)


async def _until_stopped(body: Callable[[], Awaitable[_T]]) -> _T:
    stopped: list[int] = []

    async def watch(scope: trio.CancelScope) -> None:
        async for number in signals:
            stopped.append(number)
            scope.cancel()

    returned: list[_T] = []
    # Who started it may want it to outlive a terminal: nohup ignores SIGHUP.
    heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    with trio.open_signal_receiver(*heeded) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)
            returned.append(await body())
            nursery.cancel_scope.cancel()
    if not returned:
        raise StoppedError(stopped[0])
    return returned[0]
