"""What the tests of cancellation share: where an operation is cancelled, and a look around after it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import attrs
import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.platforms import KEPT_BY_WINE, UNDER_WINE, open_handles
from tests.support import DetectionClient, DetectionServer, success, task
from trio_ipc import Call, ChannelClosedError, IpcConfig
from trio_ipc.daemoneye import DetectionResult, DetectionTask
from trio_ipc.testing import CancelledAttempt, Moment, cancel_everywhere

#: Under Wine each wait of a pipe costs a hundred times what it costs here; one moment of the three must do.
MOMENTS = pytest.mark.parametrize("moment", [Moment.WAITING] if UNDER_WINE else list(Moment), ids=str)

#: More than a socket takes, so that sending waits.
LARGE = "x" * 700_000

#: Far more than any of it takes. Nothing waits that long unless it is broken.
DEADLINE = 60.0


@attrs.define(eq=False)
class World:
    """A server, and a client of it that must never notice what happens beside it."""

    config: IpcConfig
    server: DetectionServer
    neighbour: DetectionClient
    _gate: trio.Event = attrs.field(factory=trio.Event)
    _held: trio.Event = attrs.field(factory=trio.Event)

    async def answer(self, request: DetectionTask, _: Call) -> DetectionResult:
        """Answer by what was asked: ``held`` when the gate opens, all the rest after a few steps."""
        if request.task_id == "held":
            self._held.set()
            await self._gate.wait()
        await trio.lowlevel.checkpoint()
        return success(request.task_id)

    def elsewhere(self) -> IpcConfig:
        """Settings for an endpoint beside the server's."""
        return self.config.replace(endpoint_path=f"{self.config.endpoint_path}-2")

    @asynccontextmanager
    async def undisturbed(self) -> AsyncIterator[None]:
        """Have a request of the neighbour's in a handler for the length of a block, and then answered."""
        self._gate, self._held = trio.Event(), trio.Event()

        async def ask() -> None:
            assert await self.neighbour.call(task("held")) == success("held")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await self._held.wait()
            yield
            self._gate.set()

    async def drive(self, moment: Moment, operation: Operation) -> None:
        """Cancel the operation at every wait, and look around after each."""
        for _ in range(2):  # so that it is served, and has the task that keeps its deadlines
            await self.neighbour.call(task())
        await trio.testing.wait_all_tasks_blocked()
        before = self.around()
        handles = open_handles() if sys.platform == "win32" else 0
        with trio.fail_after(DEADLINE):
            for attempt in cancel_everywhere([moment]):
                async with self.undisturbed():
                    await operation(self, attempt)
                with trio.move_on_after(DEADLINE / 6):
                    while self.around() != before:  # the server may be about to see the end of a client
                        await trio.lowlevel.checkpoint()
                assert self.around() == before, attempt
        assert attempt.number > 1, "it was cancelled nowhere"
        if sys.platform == "win32":
            assert open_handles() < handles + attempt.number + KEPT_BY_WINE

    def around(self) -> dict[str, object]:
        """What must be as before: a thing that only garbage collection would close is left behind."""
        tasks = trio.lowlevel.current_statistics().tasks_living
        if sys.platform != "linux":  # Windows' threads have handles, and live a little longer than their work
            return {"tasks": tasks}
        directory = os.path.dirname(self.server.endpoint)
        return {
            "tasks": tasks,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "files": sorted(os.listdir(directory)),
        }


Operation: TypeAlias = Callable[[World, CancelledAttempt], Awaitable[None]]


async def is_good_or_closed(client: DetectionClient) -> None:
    """The next calls have their own responses, or all of them say that the client is closed."""
    broken = client.is_broken
    for name in ("after", "again"):
        try:
            assert await client.call(task(name)) == success(name)
            assert not broken
        except ChannelClosedError:
            assert broken
