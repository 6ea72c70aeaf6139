"""What the adapters keep open in the Trio thread, at the moments when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_ipc import ChannelClosedError
from trio_ipc.portal import Job, Kept

#: Trio draws which of two tasks goes first: one of so many rounds has either.
ROUNDS = 20


class Then(Job[None]):
    """A job whose owner does something as soon as it has ended."""

    def __init__(self, function: Callable[[], Any], then: Callable[[], object]) -> None:
        super().__init__(function)
        self._then = then

    def done(self) -> None:
        self._then()


@asynccontextmanager
async def _nothing(_end: Callable[[], None]) -> AsyncIterator[None]:
    yield


async def test_who_calls_again_while_it_is_torn_down_is_refused() -> None:
    for _ in range(ROUNDS):
        kept = Kept("here", _nothing)
        again = Then(trio.sleep_forever, lambda: None)
        first = Then(trio.sleep_forever, partial(kept.submit, again))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kept.keep)
            await wait_all_tasks_blocked()
            kept.submit(first)
            await wait_all_tasks_blocked()
            kept.abandon()
        for job in (first, again):
            assert job.finished
            with pytest.raises(ChannelClosedError):
                job.outcome()
