"""Ten thousand calls leave no task, no file descriptor and no memory growth behind."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.platforms import KEPT_BY_WINE, open_handles
from tests.support import MIB, DetectionClient, DetectionServer, serving, succeed, success, task
from trio_ipc import Call, ChannelClosedError, IpcConfig, TransportType, open_client
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask


def living_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def settled(server: DetectionServer, connections: int) -> None:
    """Wait until the server has seen the end of so many connections, and has nothing left to do."""
    while True:
        counters = server.snapshot()
        ended = counters.connections_served + counters.connections_left - counters.connections_active
        if ended >= connections:
            break
        await trio.lowlevel.checkpoint()
    await trio.testing.wait_all_tasks_blocked()
    gc.collect()


def objects_of_ours() -> Counter[str]:
    """How many objects of this package's classes are alive, by class."""
    # A class may have a property of that name: then its own is that property.
    kinds = (type(thing) for thing in gc.get_objects())
    return Counter(kind.__name__ for kind in kinds if str(kind.__module__).startswith("trio_ipc."))


async def test_ten_thousand_calls_leave_nothing_behind(
    config: IpcConfig, caplog: pytest.LogCaptureFixture
) -> None:
    # Pytest keeps every line, of which each connection has two, where another test has let them through.
    caplog.set_level(logging.WARNING, "trio_ipc")
    # On Windows, legacy's every wait starts a thread: there a tenth must do.
    each = 20 if sys.platform == "win32" and config.transport is TransportType.LEGACY else 200
    async with serving(succeed, config) as server:

        async def calls(connections: int, each: int) -> None:
            for _ in range(connections):
                async with open_client(DETECTION, config) as client:
                    for _ in range(each):
                        assert await client.call(task()) == success()

        await calls(2, 500)  # warm up what is made once
        await settled(server, 2)
        tasks, descriptors, objects = living_tasks(), open_handles(), objects_of_ours()
        tracemalloc.start()
        await calls(1, 100)
        await settled(server, 3)
        before, _ = tracemalloc.get_traced_memory()
        await calls(50, each)
        await settled(server, 53)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert server.snapshot().requests == 1_000 + 100 + 50 * each
        assert living_tasks() == tasks
        assert open_handles() <= descriptors + KEPT_BY_WINE
        assert objects_of_ours() == objects
        # Trio keeps up to 1,000 deadlines that nobody waits for any longer, of about 240 bytes each. An
        # object leaked by each call would come to twice as much.
        assert after - before < 300_000


async def answer_badly(request: DetectionTask, _: Call) -> DetectionResult:
    if request.task_id == "raises":
        raise ValueError("x" * 1_000)
    if request.task_id == "too large":
        return DetectionResult(task_id=request.task_id, error_message="x" * MIB)
    await trio.sleep_forever()
    raise AssertionError("unreachable")


async def be_answered(client: DetectionClient, how: str) -> None:
    assert not (await client.call(task(how))).success


async def cancel(client: DetectionClient, _: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.call, task())
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def close(client: DetectionClient, _: str) -> None:
    async def call() -> None:
        with contextlib.suppress(ChannelClosedError):
            await client.call(task())

    async with trio.open_nursery() as nursery:
        for _caller in range(2):
            nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()


@pytest.mark.parametrize(
    ("end", "how"), [(be_answered, "raises"), (be_answered, "too large"), (cancel, ""), (close, "")]
)
async def test_calls_that_fail_leave_nothing_behind_either(
    config: IpcConfig,
    caplog: pytest.LogCaptureFixture,
    end: Callable[[DetectionClient, str], Awaitable[None]],
    how: str,
) -> None:
    caplog.set_level("CRITICAL")
    config = config.replace(max_connections=100)  # nobody waits for a place, so each is served alike
    async with serving(answer_badly, config) as server:

        async def fail(times: int) -> tuple[int, int, Counter[str]]:
            already = server.snapshot().connections_accepted
            for _ in range(times):
                async with open_client(DETECTION, config) as client:
                    await end(client, how)
            await settled(server, already + times)
            return living_tasks(), open_handles(), objects_of_ours()

        tasks, handles, objects = await fail(1)
        tasks_after, handles_after, objects_after = await fail(50)
        assert (tasks_after, objects_after) == (tasks, objects)
        # Threads of Trio's that had nothing to do may have ended meanwhile, with the handles that they had.
        assert handles_after <= handles + KEPT_BY_WINE
