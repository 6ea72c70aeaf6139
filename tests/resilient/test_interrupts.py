"""A KeyboardInterrupt at any line of a call: nothing of the client's is lost by it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.lowlevel

import trio_ipc.resilient
from tests.interrupts import InterruptAt, interrupts_are_trios
from tests.support import success, task
from trio_ipc.daemoneye import DETECTION

from .support import PLAIN, FakeServer, calling, openings_of, waiters_of


async def call_and_call_again(line: int, *, warm: bool, settings: dict[str, Any]) -> bool:
    """Return whether the line was reached."""
    server = FakeServer("a")
    interrupt = InterruptAt(trio_ipc.resilient, line)
    async with calling(server, max_connections_per_endpoint=1, **settings) as client:
        if warm:
            await client.call(task("warm"))
        try:
            with interrupt:
                await client.call(task("x"))
            await trio.lowlevel.checkpoint()  # where a protected step puts it off to
        except KeyboardInterrupt:
            pass
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            assert await client.call(task("next")) == success("next")
        metrics = client.metrics()
        assert metrics.tasks_sent_total == metrics.tasks_completed_total + metrics.tasks_failed_total
        assert (metrics.active_connections_current, metrics.pooled_connections_current) == (0, 1)
        assert not waiters_of(client)
        assert not openings_of(client)
        assert client._pool._lanes.taken == 1
        assert not client.statistics()[0].breaker.probing
    return interrupt.left <= 0


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize(
    "settings",
    [{"contract": DETECTION}, {"contract": PLAIN, "max_in_flight": 3}],
    ids=["negotiating", "shared"],
)
def test_an_interrupt_at_any_line_loses_no_place_of_the_pool(warm: bool, settings: dict[str, Any]) -> None:
    line, reached = 1, True
    with interrupts_are_trios():
        while reached:

            async def live(line: int = line) -> bool:
                return await call_and_call_again(line, warm=warm, settings=settings)

            reached = trio.run(live)
            line += 1
    assert line > 50
