"""The watch over one connection: what may cancel what it does, and why, as a value.

The connection says what it waits for; the server's watchdog tells when that takes too long, and when it is
time to look at the client. This module must never decide what follows from a verdict, and never read.
"""

from __future__ import annotations

import enum
from typing import Final

import trio

from trio_ipc.channel import STOPPED, Channel
from trio_ipc.errors import ChannelError, PeerClosedError
from trio_ipc.transports import PeerState

from .watchdog import Watchdog

#: Seconds that a handler runs before anyone looks whether its client is still there, and between two looks.
#: Most are done sooner.
_FIRST_LOOK: Final = 0.01
_NEXT_LOOK: Final = 0.1


class Verdict(enum.Enum):
    """Why what a connection does was cancelled. The first one counts."""

    TIMED_OUT = "timed out"
    PEER_GONE = "peer gone"
    SEND_FAILED = "sending failed"
    STOPPED = "stopped"


class Watch:
    """Cancels the scope in which a connection works.

    Args:
        channel: the connection's.
        watchdog: keeps its deadlines.
        handler_timeout: seconds that a handler may take.

    Attributes:
        scope: around what the connection does.
        verdict: why that was cancelled, None while it was not.
        late: by how many seconds the end of its time was noticed, where it has timed out.
    """

    __slots__ = (
        "_channel",
        "_first_look",
        "_handling",
        "_has_more_time",
        "_next_look",
        "_now",
        "_reading",
        "_watchdog",
        "late",
        "scope",
        "verdict",
    )

    def __init__(self, channel: Channel, watchdog: Watchdog, handler_timeout: float) -> None:
        self._channel = channel
        self._watchdog = watchdog
        self._now = trio.lowlevel.current_clock().current_time
        # The channel's own time, which may have been made with other settings than the server's.
        self._reading = watchdog.waits(channel.read_timeout, _time_is_up)
        self._handling = watchdog.waits(handler_timeout, _handler_time_is_up)
        self._first_look = watchdog.waits(_FIRST_LOOK, _look)
        self._next_look = watchdog.waits(_NEXT_LOOK, _look)
        self._has_more_time = False
        self.late = 0.0
        self.verdict: Verdict | None = None
        self.scope: trio.CancelScope | None = None

    def new_scope(self) -> trio.CancelScope:
        """Return a scope in which nothing was cancelled yet."""
        self.verdict = None
        self.scope = scope = trio.CancelScope()
        return scope

    def begin_reading(self) -> None:
        """A frame is waited for, or the rest of one, and has all of its time from now on."""
        self._reading.begin(self, self._now())

    def was_stopped(self) -> bool:
        """Return whether what is waited for is overdue because this process was stopped meanwhile."""
        return self._reading.is_late(self, self._now())

    def end_reading(self) -> None:
        """What was waited for has come, or never will."""
        self._reading.end(self)

    def begin_handling(self, began: float) -> None:
        """A handler that began then takes its time."""
        self._has_more_time = False
        self._handling.begin(self, began)
        self._first_look.begin(self, began)

    def end_handling(self) -> None:
        """The handler is done."""
        self._handling.end(self)
        self._first_look.end(self)
        self._next_look.end(self)
        if self._first_look.is_empty:
            self._watchdog.sleep_on()  # or a server that has little to do would be woken for nothing

    def cancel(self, verdict: Verdict) -> None:
        """Cancel what the connection does."""
        if self.verdict is None:
            self.verdict = verdict
            if self.scope is not None:  # it has begun
                self.scope.cancel()

    def send_failed(self, exc: ChannelError) -> None:
        """Be told that the client does not take what was answered before."""
        self.cancel(Verdict.PEER_GONE if isinstance(exc, PeerClosedError) else Verdict.SEND_FAILED)

    async def leave_cancelled_scope(self) -> None:
        """Go on in the next scope, if there was a verdict in the moment in which something came."""
        if self.verdict is not None:
            await trio.lowlevel.checkpoint_if_cancelled()

    def time_is_up(self, late: float) -> None:
        """Be told that the wait for a frame, or a handler, takes too long."""
        self.late = late
        self.cancel(Verdict.TIMED_OUT)

    def handler_time_is_up(self, late: float) -> None:
        """Be told that a handler takes too long.

        Once it has its time anew, if this process was stopped meanwhile: what it waits for may be over, and
        the tasks by which it waits have not run since.
        """
        if late < STOPPED or self._has_more_time:
            self.time_is_up(late)
        else:
            self._has_more_time = True
            self._handling.begin(self, self._now())

    def look(self) -> None:
        """See whether the client of a handler is still there."""
        if self._channel.peer_state() is PeerState.GONE:
            self.cancel(Verdict.PEER_GONE)
        else:
            self._next_look.begin(self, self._now())


def _time_is_up(watch: Watch, late: float) -> None:
    watch.time_is_up(late)


def _handler_time_is_up(watch: Watch, late: float) -> None:
    watch.handler_time_is_up(late)


def _look(watch: Watch, _late: float) -> None:
    watch.look()
