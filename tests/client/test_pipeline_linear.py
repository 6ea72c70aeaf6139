"""Many callers who leave a shared connection together: that takes a time which grows as they do."""

from __future__ import annotations

import time
from contextlib import suppress

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.linear import costs_as, needs_thread_time, takes_as
from tests.support import ME, task
from trio_ipc import CallTimeoutError, FramedChannel, PeerClosedError
from trio_ipc.client.line import nobody_cares
from trio_ipc.client.pending import Pending
from trio_ipc.client.pipeline import Pipeline
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import MemoryStream, memory_streams

from .support import CONFIG, client_over, narrow_streams

pytestmark = needs_thread_time


async def test_what_is_not_sent_yet_is_taken_back_one_by_one_as_quickly_as_it_was_given() -> None:
    request, reason = task(), PeerClosedError("any")
    channel = FramedChannel(memory_streams()[0], CONFIG, endpoint="memory", peer=ME)
    pipeline = Pipeline(channel, DETECTION)
    waiting = []

    def give() -> None:
        posted = [Pending(request, nobody_cares, pipeline.begin) for _ in range(4_000)]
        waiting.extend(posted)
        for pending in posted:
            pipeline.post(pending)

    def take_back() -> None:
        for pending in waiting[-4_000:]:
            pipeline.withdraw((pending,), reason)
        del waiting[-4_000:]

    give()
    give()
    assert costs_as(give, take_back)
    assert [*pipeline._outbox] == waiting


CALLERS = 2_000


async def leave(connection: MemoryStream, timeout: float | None) -> float:  # noqa: ASYNC109 - the callers'
    """Have many callers leave at once, by a cancellation or their timeout; return the seconds that took."""
    request = task()
    async with client_over(connection, CALLERS) as client:
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with suppress(CallTimeoutError):
                    await client.call(request, timeout=timeout)

            for _ in range(CALLERS):
                nursery.start_soon(call)
            await wait_all_tasks_blocked()
            began = time.thread_time()
            if timeout is None:
                nursery.cancel_scope.cancel()
            else:
                clock = trio.lowlevel.current_clock()
                assert isinstance(clock, MockClock)
                clock.jump(timeout + 1)  # they are late, as it is where so many are
        return time.thread_time() - began


def seconds_to_leave(connection: MemoryStream, timeout: float | None = None) -> float:
    return trio.run(leave, connection, timeout, clock=MockClock())


def test_whose_time_is_up_before_they_are_sent_leave_as_quickly_as_the_cancelled() -> None:
    """Nothing can have come for them, also where the time was up a while ago."""
    assert takes_as(
        lambda: seconds_to_leave(memory_streams()[0]), lambda: seconds_to_leave(narrow_streams()[0], 1)
    )
