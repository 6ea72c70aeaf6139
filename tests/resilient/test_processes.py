"""Real collectors: one killed and one stopped under the load of sixteen callers, and not one call lost."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from contextlib import AsyncExitStack

import pytest
import trio

from tests.examples.support import Program, procmond, spawn
from trio_ipc import IpcConfig
from trio_ipc.daemoneye import DETECTION, DetectionTask, ProcessFilter
from trio_ipc.resilient import Endpoint, ResilientConfig, open_resilient_client

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and SIGSTOP are Unix's")

CALLERS = 16
CALLS = 40

NAMES = ("first", "second", "third")


async def start(stack: AsyncExitStack, directory: str, name: str) -> Program:
    program = await stack.enter_async_context(spawn(*procmond(f"{directory}/{name}")))
    assert await program.stdout.next() == f"listening on {directory}/{name}"
    return program


def small_task(name: str, pid: int) -> DetectionTask:
    return DetectionTask(task_id=name, process_filter=ProcessFilter(pids=[pid]))


@pytest.mark.parametrize("max_in_flight", [1, 4])
async def test_one_killed_and_one_stopped_and_not_one_call_lost(directory: str, max_in_flight: int) -> None:
    async with AsyncExitStack() as stack:
        programs = {name: await start(stack, directory, name) for name in NAMES}
        endpoints = [
            Endpoint(IpcConfig(endpoint_path=f"{directory}/{name}", read_timeout_ms=1_000), id=name)
            for name in NAMES
        ]
        settings = ResilientConfig(
            call_timeout_ms=20_000, max_in_flight=max_in_flight, breaker_reset_ms=1_000
        )
        answered: Counter[str] = Counter()
        async with open_resilient_client(DETECTION, endpoints, settings) as client:
            pid = programs["first"].pid
            some, many = trio.Event(), trio.Event()

            async def caller(number: int) -> None:
                for turn in range(CALLS):
                    answer = await client.ask(small_task(f"{number}-{turn}", pid))
                    assert answer.response.task_id == f"{number}-{turn}"
                    assert answer.response.success
                    answered[answer.endpoint_id] += 1
                    if answered.total() == CALLERS * CALLS // 4:
                        some.set()
                    if answered.total() == CALLERS * CALLS // 2:
                        many.set()

            async with trio.open_nursery() as nursery:
                for number in range(CALLERS):
                    nursery.start_soon(caller, number)
                await some.wait()
                programs["second"].process.kill()
                await many.wait()
                programs["third"].process.send_signal(signal.SIGSTOP)
            assert answered.total() == CALLERS * CALLS
            assert set(answered) == set(NAMES), "all three had worked"
            metrics = client.metrics()
            assert (metrics.tasks_completed_total, metrics.tasks_failed_total) == (CALLERS * CALLS, 0)
            healthy = {one.endpoint.id: one.failures == 0 for one in client.statistics()}
            assert healthy == {"first": True, "second": False, "third": False}

            # Both come back, and are asked again once their breakers and their health allow it.
            programs["third"].process.send_signal(signal.SIGCONT)
            async with spawn(*procmond(f"{directory}/second")) as again:
                await again.stdout.next()
                with trio.fail_after(30):
                    latest: set[str] = set()
                    while latest != set(NAMES):
                        asked = [await client.ask(small_task(f"again-{turn}", pid)) for turn in range(12)]
                        latest = {answer.endpoint_id for answer in asked}
