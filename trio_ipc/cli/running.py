"""A command's async part: run by Trio, cancelled by what asks a program to end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar

import trio

from trio_ipc.transports.host import COMMAND_STOP_SIGNALS

from .ending import StoppedError

_T = TypeVar("_T")


@contextlib.contextmanager
def heeded_signals(*numbers: int) -> Iterator[AsyncIterator[int]]:
    """Receive signals for a block, except those that are ignored.

    The program may be meant to outlive its terminal: nohup has it ignore SIGHUP.
    """
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    if not heeded:  # Trio wants one at least
        yield _none()
        return
    with trio.open_signal_receiver(*heeded) as received:
        yield received


async def _none() -> AsyncIterator[int]:
    await trio.sleep_forever()
    yield


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
    with heeded_signals(*{*COMMAND_STOP_SIGNALS} - {signal.SIGINT}) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)
            returned.append(await body())
            nursery.cancel_scope.cancel()
    if not returned:
        raise StoppedError(stopped[0])
    return returned[0]
