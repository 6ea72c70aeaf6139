"""The signals that a service listens to, caught before there is anything to clean up.

Windows has Ctrl-C and Ctrl-Break alone. This module must never let a signal end the program half cleaned up.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Iterator

import attrs
import trio

from trio_ipc.transports.host import RELOAD_SIGNAL, REPORT_SIGNAL, STOP_SIGNALS


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
    with caught_stops() as stops, _others(RELOAD_SIGNAL) as reloads, _others(REPORT_SIGNAL) as reports:
        yield Signals(stops, reloads, reports)


@contextlib.contextmanager
def caught_stops() -> Iterator[AsyncIterator[object]]:
    """Receive what asks the program to end, and nothing else; as :func:`caught_signals`."""
    caught = False

    def outside(_number: int, _frame: object) -> None:
        if not caught:
            raise KeyboardInterrupt

    for number in STOP_SIGNALS:
        signal.signal(number, outside)  # Trio puts it back when its receiver is closed
    try:
        with trio.open_signal_receiver(*STOP_SIGNALS) as received:
            caught = True
            yield received
    finally:
        for number in STOP_SIGNALS:
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
