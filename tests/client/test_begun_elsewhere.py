"""A call that was begun in another thread, and is finished on Trio: see trio_ipc/client/direct.py."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from tests.support import frame, success, task
from trio_ipc import FramedChannel
from trio_ipc.client.single import Single
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import memory_streams

from .support import CONFIG


@pytest.mark.parametrize("all_sent", [True, False])
async def test_an_answer_that_has_begun_has_all_of_its_time_whoever_has_waited_for_its_beginning(
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
