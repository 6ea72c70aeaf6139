"""Trying again to connect, ever more slowly. Tenacity does the counting and waiting, on Trio's clock.

Only what may pass is tried again (:data:`PASSING`). This module must never repeat a request: by the time
one is sent, connecting is over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from trio_ipc.errors import ConnectTimeoutError, PeerClosedError, ServerNotFoundError, ServerRefusedError

from .settings import ResilientConfig

if TYPE_CHECKING:
    from tenacity import RetryCallState

_ResultT = TypeVar("_ResultT")

#: What may be over in a moment, if it happens while connecting: the server is not there (yet, or just
#: now), is overloaded, or closes because too many are connected. Everything else stays as it is until
#: somebody changes something: permissions, the peer's user, its protocol.
PASSING: Final = (ServerNotFoundError, ServerRefusedError, ConnectTimeoutError, PeerClosedError)


class NobodyReachedError(Exception):
    """Not one collector could be reached, and it may be otherwise in a moment. Never leaves the client."""


def backoff(tries: int, settings: ResilientConfig, chance: float) -> float:
    """Return how long to wait before the next try, in seconds.

    Args:
        tries: how many there were, from 1.
        settings: the first and the longest wait.
        chance: from 0 up to 1. It takes off up to a half, so that those who failed together do not come
            back together.
    """
    doubled: float = settings.backoff_first_ms * 2.0 ** (tries - 1)
    return min(doubled, settings.backoff_longest_ms) / 1000 * (1 - chance / 2)


async def with_backoff(
    reach: Callable[[], Awaitable[_ResultT]], settings: ResilientConfig, draw: Callable[[], float]
) -> _ResultT:
    """Call ``reach`` until it reaches somebody, at most ``connect_attempts`` times.

    Args:
        reach: raises :exc:`NobodyReachedError` where it is to be called again.
        settings: how often, and the waits between.
        draw: gives a chance from 0 up to 1 for each wait.

    Returns:
        What ``reach`` returns.

    Raises:
        NobodyReachedError: as the last try raised it. Everything else that ``reach`` raises comes out at
            once, and so does a cancellation.
    """
    try:
        return await reach()
    except NobodyReachedError:
        # Nearly every call ends above, without the 27 µs that tenacity was measured to take.
        if settings.connect_attempts == 1:
            raise
    # Imported where it is used: rarely, and it takes longer than any module of ours.
    from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt  # noqa: PLC0415

    def wait(state: RetryCallState) -> float:
        return backoff(state.attempt_number + 1, settings, draw())

    await trio.sleep(backoff(1, settings, draw()))
    retrying = AsyncRetrying(
        sleep=trio.sleep,
        stop=stop_after_attempt(settings.connect_attempts - 1),
        wait=wait,
        retry=retry_if_exception_type(NobodyReachedError),
        reraise=True,
    )
    result: _ResultT = await retrying(reach)
    return result
