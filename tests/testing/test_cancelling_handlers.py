"""What is cancelled in a handler is named: the handler, and not what of the server goes on with it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.support import success, task
from trio_ipc import Call
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import Moment, cancel_everywhere, open_pair


async def wait_within() -> None:
    await trio.sleep(1)
    await trio.lowlevel.checkpoint()


async def waits(request: DetectionTask, _call: Call) -> DetectionResult:
    await wait_within()
    return success(request.task_id)


class Waits:
    """A handler that is no coroutine function."""

    async def __call__(self, request: DetectionTask, call: Call) -> DetectionResult:
        return await waits(request, call)


@pytest.mark.parametrize("handler", [waits, Waits()], ids=["function", "object"])
async def test_an_attempt_names_the_wait_of_a_handler(handler: Waits, autojump_clock: MockClock) -> None:
    places = set()
    for attempt in cancel_everywhere([Moment.WAITING], schedules=1):
        with attempt:
            async with open_pair(handler, DETECTION) as (client, _):
                await client.call(task())
        places.add(attempt.where.partition(":")[0])
    assert "in wait_within (test_cancelling_handlers.py" in places
    assert not any("resume" in place for place in places)
