"""A KeyboardInterrupt at any line of a call: nothing of the client's is lost by it."""

from __future__ import annotations

import os
import signal
import sys
import types
from typing import Any

import pytest
import trio
import trio.lowlevel

import trio_ipc.resilient
from tests.support import success, task
from trio_ipc.daemoneye import DETECTION

from .support import PLAIN, FakeServer, calling, openings_of, waiters_of

_ROOM = os.path.dirname(trio_ipc.resilient.__file__)


class InterruptAt:
    """Sends this process a SIGINT at the so-and-so-manieth line that runs in the resilient client."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: types.FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_ROOM):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)
        return self._trace


async def call_and_call_again(line: int, *, warm: bool, settings: dict[str, Any]) -> bool:
    """Return whether the line was reached."""
    server = FakeServer("a")
    interrupt = InterruptAt(line)
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
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    traced = sys.gettrace()
    try:
        line, reached = 1, True
        while reached:

            async def live(line: int = line) -> bool:
                return await call_and_call_again(line, warm=warm, settings=settings)

            reached = trio.run(live)
            line += 1
        assert line > 50
    finally:
        sys.settrace(traced)
        signal.signal(signal.SIGINT, before)
