"""What an operator does, cancelled at every wait and interrupted at every line: nothing is left behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trio_ipc.resilient
from tests.interrupts import InterruptAt, interrupts_are_trios
from tests.support import success, task
from trio_ipc.daemoneye import DETECTION, stated_capabilities
from trio_ipc.testing import Moment, cancel_everywhere

from .support import DetectionResilientClient, FakeServer, calling, nothing_is_left_behind

Operation: TypeAlias = Callable[[DetectionResilientClient], Awaitable[None]]


async def call_one(client: DetectionResilientClient) -> None:
    assert await client.call(task("x"), endpoint="a") == success("x")


async def negotiate(client: DetectionResilientClient) -> None:
    assert await client.negotiate("a") == stated_capabilities(success())


async def refresh(client: DetectionResilientClient) -> None:
    assert await client.refresh_capabilities() == {}


async def check(client: DetectionResilientClient) -> None:
    assert (await client.check_health("a")).healthy


async def wait(client: DetectionResilientClient) -> None:
    assert await client.wait_until_healthy() in {"a", "b"}


OPERATIONS: dict[str, Operation] = {
    "call": call_one,
    "negotiate": negotiate,
    "refresh": refresh,
    "check": check,
    "wait": wait,
}


@pytest.mark.parametrize("max_in_flight", [1, 3])
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("moment", list(Moment), ids=str)
@pytest.mark.parametrize("name", OPERATIONS)
async def test_cancelled_at_any_wait_it_leaves_nothing_behind_and_blames_nobody(
    name: str, moment: Moment, warm: bool, max_in_flight: int
) -> None:
    settings: dict[str, Any] = {"max_in_flight": max_in_flight, "max_connections_per_endpoint": 1}
    for attempt in cancel_everywhere([moment]):
        async with calling(FakeServer("a"), FakeServer("b"), contract=DETECTION, **settings) as client:
            if warm:
                for other in "ab":
                    await client.call(task(other), endpoint=other)
            with attempt:
                await OPERATIONS[name](client)
            await wait_all_tasks_blocked()
            nothing_is_left_behind(client)
            assert [(one.healthy, one.failures) for one in client.statistics()] == [(True, 0)] * 2, attempt
            with trio.fail_after(10):
                for other in "ab":
                    assert await client.call(task(other), endpoint=other) == success(other)
                await OPERATIONS[name](client)
    assert attempt.number > 1, "it was cancelled nowhere"


async def interrupted(name: str, line: int) -> bool:
    """Return whether the line was reached."""
    interrupt = InterruptAt(trio_ipc.resilient, line)
    async with calling(FakeServer("a"), contract=DETECTION, max_connections_per_endpoint=1) as client:
        await client.call(task("warm"))  # opening a connection has a test of its own
        with suppress(KeyboardInterrupt):
            with interrupt:
                await OPERATIONS[name](client)
            await trio.lowlevel.checkpoint()  # where a protected step puts it off to
        await wait_all_tasks_blocked()
        nothing_is_left_behind(client)
        with trio.fail_after(10):
            assert await client.call(task("next")) == success("next")
        assert client._pool._lanes.taken == 1
    return interrupt.left <= 0


@pytest.mark.parametrize("name", ["negotiate", "refresh", "check", "wait"])
def test_interrupted_at_any_line_it_leaves_nothing_behind(name: str) -> None:
    line, reached = 1, True
    with interrupts_are_trios():
        while reached:
            reached = trio.run(interrupted, name, line)
            line += 1
    assert line > 50
