"""Durations are differences: right whatever the clock says when they begin."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock

from tests.resilient.support import FakeServer, calling
from tests.support import IN_MEMORY, MemoryEndpoint, serving, success, task
from trio_ipc import Call, Channel, IpcConfig
from trio_ipc.client import client_over
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.telemetry import ServerTelemetry

#: Seconds. Trio's own clock begins anywhere, the mock clock at 0, where a sum is the same as a difference.
BEGAN = 5_000.0

IN_FLIGHT = pytest.mark.parametrize("max_in_flight", [1, 3])


@pytest.fixture
def late_clock(autojump_clock: MockClock) -> MockClock:
    autojump_clock.jump(BEGAN)
    return autojump_clock


async def slowly(request: DetectionTask, _: Call) -> DetectionResult:
    await trio.sleep(2)
    return success(request.task_id)


@IN_FLIGHT
async def test_calls_and_handlers_are_timed_from_where_they_begin(
    late_clock: MockClock, max_in_flight: int
) -> None:
    endpoint = MemoryEndpoint(IpcConfig(endpoint_path=IN_MEMORY))

    async def connect(_: IpcConfig) -> Channel:
        near, far = endpoint.ends.channels(endpoint.config)
        endpoint.offer(far)
        return near

    async with serving(slowly, endpoint) as server:
        async with client_over(connect, DETECTION, endpoint.config, max_in_flight=max_in_flight) as client:
            await client.call(task())
            await trio.sleep(7)
            await client.call(task())
        calls, handlers = client.snapshot().call_seconds, server.snapshot().handler_seconds
    assert calls.sum == handlers.sum == pytest.approx(2 + 2)
    assert calls.count == handlers.count == 2


@IN_FLIGHT
async def test_so_are_the_calls_of_a_batch_each_from_the_batchs_beginning(
    late_clock: MockClock, max_in_flight: int
) -> None:
    endpoint = MemoryEndpoint(IpcConfig(endpoint_path=IN_MEMORY))

    async def connect(_: IpcConfig) -> Channel:
        near, far = endpoint.ends.channels(endpoint.config)
        endpoint.offer(far)
        return near

    async with serving(slowly, endpoint):
        async with client_over(connect, DETECTION, endpoint.config, max_in_flight=max_in_flight) as client:
            for times in (1, 2):
                await client.call_many([task()] * 3)
                took = client.snapshot().call_seconds
                assert took.count == 3 * times
                assert took.sum == pytest.approx(times * (2 + 4 + 6))
                await trio.sleep(7)


async def test_the_uptime_is_from_the_beginning_to_the_end(late_clock: MockClock) -> None:
    endpoint = MemoryEndpoint(IpcConfig(endpoint_path=IN_MEMORY))
    async with serving(slowly, endpoint) as server:
        assert server.snapshot().uptime_seconds == 0
        client = endpoint.client()
        await trio.sleep(5)
        assert server.snapshot().uptime_seconds == client.snapshot().uptime_seconds == pytest.approx(5)
        server.stop()
        await server.wait_stopped()
        await trio.sleep(5)
        assert server.snapshot().uptime_seconds == pytest.approx(5)


def test_the_uptime_can_be_asked_for_when_trio_no_longer_runs() -> None:
    clock = MockClock()

    async def make() -> ServerTelemetry:
        clock.jump(BEGAN)
        made = ServerTelemetry(transport="interprocess", endpoint="/e", contract="c")
        clock.jump(3)
        return made

    assert trio.run(make, clock=clock).snapshot().uptime_seconds == pytest.approx(3)


async def test_a_resilient_client_times_its_tasks_from_where_they_begin(late_clock: MockClock) -> None:
    server = FakeServer("a", slowly)
    server.connecting = partial(trio.sleep, 1)
    async with calling(server) as client:
        for task_id in "12":
            await client.call(task(task_id))
            await trio.sleep(7)
        metrics = client.metrics()
        assert metrics.task_duration_ms_total == pytest.approx(1_000 + 2_000 + 2_000)
        assert metrics.connection_duration_ms_total == pytest.approx(1_000)
