"""A nursery for tasks of a client's own, of which the client's user notices nothing.

This module must never hide what the user's own code raises.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from trio_ipc.errors import leaves


@asynccontextmanager
async def nursery_of_our_own() -> AsyncIterator[trio.Nursery]:
    """A nursery for tasks of a client's own, of which the block in it notices nothing.

    Its tasks are cancelled when the block ends. What the block raises comes out as it is, and not in a
    group; so does a KeyboardInterrupt or a SystemExit of one of the tasks.
    """
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as exc:  # noqa: BLE001 - raised again below, outside of the nursery
                raised = exc
            if nursery.child_tasks:
                nursery.cancel_scope.cancel()
    except trio.Cancelled:
        # The scope around the block is cancelled; what the block raised all the same goes first.
        if raised is not None:
            raise raised from None
        raise
    except BaseExceptionGroup as group:
        # One of the tasks has ended it. What the block raised then is mostly the Cancelled of this
        # nursery, which must not leave it.
        if isinstance(raised, (KeyboardInterrupt, SystemExit)):
            raise raised from group
        if group.split((KeyboardInterrupt, SystemExit))[1] is None:
            raise leaves(group)[0] from None
        raise
    if raised is not None:
        raise raised
