"""The signals that a service listens to, caught before there is anything to clean up.

Windows has Ctrl-C and Ctrl-Break alone. This module must never let a signal end the program half cleaned up.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Final

import attrs
import trio

if sys.platform == "win32":
    #: What asks a program to end. SIGTERM has a name there and never arrives.
    STOPS: Final = (signal.SIGINT, signal.SIGBREAK)
    _RELOADS: Final[int | None] = None
    _REPORTS: Final[int | None] = None
else:
    STOPS: Final = (signal.SIGINT, signal.SIGTERM)
    _RELOADS: Final[int | None] = signal.SIGHUP
    _REPORTS: Final[int | None] = signal.SIGUSR1


@attrs.frozen
class Signals:
    """What came, as it comes.

    Attributes:
        stops: what asks the program to end.
        reloads: what asks it to read its settings again.
        reports: what asks it to tell what it has done.
    """

    stops: AsyncIterator[object]
    reloads: AsyncIterator[object]
    reports: AsyncIterator[object]


@contextlib.contextmanager
def caught_signals() -> Iterator[Signals]:
    """Receive all of them for a block. After it the program ends, and nothing may hurry it.

    Otherwise a second ^C, or a service manager's second SIGTERM, would interrupt its cleaning up.
    """
    with _stops() as stops, _others(_RELOADS) as reloads, _others(_REPORTS) as reports:
        yield Signals(stops, reloads, reports)


@contextlib.contextmanager
def _stops() -> Iterator[AsyncIterator[object]]:
    caught = False

    def outside(_number: int, _frame: object) -> None:
        if not caught:
            raise KeyboardInterrupt

    for number in STOPS:
        signal.signal(number, outside)  # Trio puts it back when its receiver is closed
    try:
        with trio.open_signal_receiver(*STOPS) as received:
            caught = True
            yield received
    finally:
        for number in STOPS:
            # Python gives handlers of its own up before it ends, and would die of a signal then.
            signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _others(number: int | None) -> Iterator[AsyncIterator[object]]:
    if number is None:
        yield _nothing()
        return
    # What Trio puts back when its receiver is closed: one that comes late must not kill the program.
    signal.signal(number, signal.SIG_IGN)
    with trio.open_signal_receiver(number) as received:
        yield received


async def _nothing() -> AsyncIterator[object]:
    await trio.sleep_forever()
    yield
