"""A program that was stopped for longer than its call's deadline: what has come meanwhile counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.platforms import unix_only
from tests.support import serving, success, task
from trio_ipc import Call, IpcConfig
from trio_ipc.daemoneye import DetectionResult, DetectionTask
from trio_ipc.errors import PoolTimeoutError

from .pooled import call_in_order, gated

#: Seconds: a call's deadline, and for how long the program is stopped.
DEADLINE, STOPPED = 1.0, 1.3

#: It stops by itself: how long this process takes to notice something is nothing to its deadline.
CLIENT = """
import os, signal, sys, trio, trio.testing
from trio_ipc import Endpoint, IpcConfig, ResilientConfig, open_resilient_client
from trio_ipc.daemoneye import DETECTION, DetectionTask
from trio_ipc.errors import CallTimeoutError

async def stop():
    await trio.testing.wait_all_tasks_blocked()  # until the call waits for its response
    os.kill(os.getpid(), signal.SIGSTOP)

async def main(path, in_flight, deadline):
    settings = ResilientConfig(max_in_flight=int(in_flight))
    endpoints = [Endpoint(IpcConfig(endpoint_path=path))]
    async with open_resilient_client(DETECTION, endpoints, settings) as client:
        await client.call(DetectionTask(task_id="first"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            try:
                answer = await client.ask(DetectionTask(task_id="slow"), timeout=float(deadline))
                [said] = client.statistics()
                print(answer.response.task_id, len(answer.attempts), said.failures, said.healthy, flush=True)
            except CallTimeoutError as exc:
                print(exc, flush=True)

trio.run(main, *sys.argv[1:])
"""


@unix_only  # SIGSTOP is
@pytest.mark.parametrize("in_flight", ["1", "4"])
@pytest.mark.parametrize("answered", [True, False])
async def test_a_call_whose_program_was_stopped_past_its_deadline_finds_its_response(
    config: IpcConfig, in_flight: str, answered: bool
) -> None:
    entered, leave = trio.Event(), trio.Event()

    async def handler(request: DetectionTask, _: Call) -> DetectionResult:
        if request.task_id == "slow":
            entered.set()
            await leave.wait()
        return success(request.task_id)

    with trio.fail_after(60):
        async with serving(handler, config):
            process = await trio.lowlevel.open_process(
                [sys.executable, "-c", CLIENT, config.endpoint_path, in_flight, str(DEADLINE)],
                stdout=subprocess.PIPE,
            )
            try:
                await entered.wait()
                # Until it has stopped.
                await trio.to_thread.run_sync(os.waitpid, process.pid, os.WUNTRACED, abandon_on_cancel=True)
                if answered:
                    leave.set()
                await trio.sleep(STOPPED)  # by the clock on the wall, and nothing else tells
                os.kill(process.pid, signal.SIGCONT)
                assert process.stdout is not None
                said = b"".join([piece async for piece in process.stdout]).decode()
            finally:
                process.kill()
                await process.wait()
    if answered:
        assert said == "slow 0 0 True\n"
    else:
        assert "no response within the call's timeout of 1000 ms; it was waiting for the response" in said


async def test_a_call_that_waits_for_a_connection_meanwhile_waits_on(mock_clock: MockClock) -> None:
    """It was not the calls ahead that took too long."""
    async with gated(takes_hours=True, max_connections=1, pool_timeout_ms=10_000) as (gate, _, client):
        async with trio.open_nursery() as nursery:
            done: list[str] = []
            await call_in_order(nursery, client, "1", "2", done=done)
            mock_clock.jump(100)
            await wait_all_tasks_blocked()
            gate.open("1", "2")
        assert done == ["1", "2"]


async def test_a_call_that_waits_for_a_connection_for_too_long_after_it_is_told_so(
    mock_clock: MockClock,
) -> None:
    async with gated(takes_hours=True, max_connections=1, pool_timeout_ms=10_000) as (gate, _, client):
        async with trio.open_nursery() as nursery:
            await call_in_order(nursery, client, "1")
            nursery.start_soon(jump_twice, mock_clock)
            with pytest.raises(PoolTimeoutError, match="the limit pool_timeout_ms is 10000"):
                await client.call(task("2"))
            gate.open("1")


async def jump_twice(clock: MockClock) -> None:
    await wait_all_tasks_blocked()
    clock.jump(100)
    await wait_all_tasks_blocked()
    clock.jump(10)
