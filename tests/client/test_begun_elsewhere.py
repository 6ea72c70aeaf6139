"""A call that was begun in another thread, and is finished on Trio: see trio_ipc/client/direct.py."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from tests.support import frame, success, task
from trio_ipc import FramedChannel, ReadTimeoutError
from trio_ipc.channel import STOPPED
from trio_ipc.client.single import Single
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import memory_streams

from .support import CONFIG


@pytest.mark.parametrize("all_sent", [True, False])
async def test_a_response_that_has_begun_has_all_of_its_time_regardless_of_who_has_waited_for_its_beginning(
    autojump_clock: MockClock, *, all_sent: bool
) -> None:
    near, far = memory_streams()
    config = CONFIG.replace(read_timeout_ms=1_000)
    channel = FramedChannel(near, config, endpoint="memory", peer=None)
    line, answer = Single(channel, DETECTION), frame(success())
    assert line.begin_now(task())
    read_until = trio.current_time() + 1

    async def answer_late() -> None:
        await trio.sleep(0.9)
        await far.send_all(answer[:5])
        await trio.sleep(0.9)
        await far.send_all(answer[5:])

    async with trio.open_nursery() as nursery, channel:
        nursery.start_soon(answer_late)
        if all_sent:
            assert await channel.fill(), "as block_and_look() does in another thread"
        assert await line.finish(task(), math.inf, read_until, all_sent=all_sent) == success()


@pytest.mark.parametrize(("late", "answers"), [(0.0, False), (STOPPED - 0.01, False), (STOPPED, True)])
async def test_the_time_for_a_response_begins_anew_where_this_process_was_stopped(
    autojump_clock: MockClock, *, late: float, answers: bool
) -> None:
    near, far = memory_streams()
    config = CONFIG.replace(read_timeout_ms=1_000)
    channel = FramedChannel(near, config, endpoint="memory", peer=None)
    line = Single(channel, DETECTION)
    assert line.begin_now(task())
    read_until = trio.current_time() + 1

    async def answer_late() -> None:
        await trio.sleep(1 + late + 0.9)
        await far.send_all(frame(success()))

    async with trio.open_nursery() as nursery, channel:
        nursery.start_soon(answer_late)
        await trio.sleep(1 + late)  # and the other thread has noticed the end of the time now
        if answers:
            assert await line.finish(task(), math.inf, read_until, all_sent=True) == success()
        else:
            with pytest.raises(ReadTimeoutError, match="frame to begin, the limit read_timeout_ms is 1000"):
                await line.finish(task(), math.inf, read_until, all_sent=True)
            nursery.cancel_scope.cancel()
