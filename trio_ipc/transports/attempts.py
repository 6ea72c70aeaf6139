"""Connecting where that takes a wait: one attempt after another, as the system offers nothing to wait for.

A Unix socket whose backlog is full says so at once (connect(2), EAGAIN), and so does a pipe whose instances
are all taken (CreateFile, ERROR_PIPE_BUSY). WaitNamedPipe would block a thread for each client, and in
containers fails at once. This module must never know what an attempt does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import trio

_MadeT = TypeVar("_MadeT")

#: Attempts before this sleeps, with a turn for all others between them. A server in the same process that is
#: about to accept needs no longer.
_TURNS_BEFORE_SLEEPING: Final = 4

#: How long to sleep between two attempts: at first, and at most. Seconds.
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.05


@trio.lowlevel.enable_ki_protection  # an interrupt between an attempt and the caller would lose a connection
async def until_made(attempt: Callable[[], _MadeT | None]) -> _MadeT:
    """Make attempts until one succeeds, and return what that made. The caller sets the deadline.

    Args:
        attempt: makes something, or returns None where that would take a wait. What it raises comes out.

    Cancellation ends it between two attempts.
    """
    turns, pause = _TURNS_BEFORE_SLEEPING, _FIRST_PAUSE
    await trio.lowlevel.checkpoint_if_cancelled()
    made = attempt()
    if made is not None:
        await trio.lowlevel.cancel_shielded_checkpoint()
    while made is None:
        turns -= 1
        if turns > 0:
            await trio.lowlevel.checkpoint()
        else:
            await trio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        made = attempt()
    return made
