"""Telemetry: times, and what a snapshot is."""

from __future__ import annotations

import json
import math

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.audits import (
    CONFIG,
    Handler,
)
from tests.support import (
    ME,
    MemoryEndpoint,
    frame,
    hang,
    read_results,
    read_to_end,
    serving,
    succeed,
    task,
)
from trio_ipc import (
    LATENCY_BOUNDS,
    Client,
    FramedChannel,
    HistogramSnapshot,
    IpcConfig,
    PeerClosedError,
    ReadTimeoutError,
    ServerCounts,
    open_client,
)
from trio_ipc.daemoneye import DETECTION
from trio_ipc.telemetry.histogram import Histogram

# --- Times --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", range(len(LATENCY_BOUNDS)))
def test_a_value_is_in_the_bucket_of_the_first_bound_that_it_does_not_exceed(bound: int) -> None:
    seconds = LATENCY_BOUNDS[bound]
    histogram = Histogram()
    for value in (seconds, math.nextafter(seconds, 0), math.nextafter(seconds, math.inf)):
        histogram.observe(value)
    counts = histogram.snapshot().counts
    assert (counts[bound], counts[bound + 1], sum(counts)) == (2, 1, 3)


def test_bounds_rise() -> None:
    assert list(LATENCY_BOUNDS) == sorted(set(LATENCY_BOUNDS))


@given(st.lists(st.floats(0, 100)), st.lists(st.floats(0, 100)))
def test_two_histograms_together_are_one_of_all_values(some: list[float], others: list[float]) -> None:
    def seen(values: list[float]) -> HistogramSnapshot:
        histogram = Histogram()
        for value in values:
            histogram.observe(value)
        return histogram.snapshot()

    both = seen(some) + seen(others)
    assert both.counts == seen(some + others).counts
    assert both.sum == pytest.approx(sum(some) + sum(others))
    assert both.count == len(some + others) == both.cumulative()[-1]
    for bound, count in zip(both.bounds, both.cumulative(), strict=False):
        assert count == len([value for value in some + others if value <= bound])


def test_the_mean_of_no_values_is_nothing() -> None:
    assert HistogramSnapshot().mean == 0.0


async def test_handlers_and_calls_are_timed(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(Handler(), endpoint) as server:
        client = endpoint.client()
        for kind in ("slow", "slow", "hang"):
            await client.call(task(kind))
        handlers, calls = server.snapshot().handler_seconds, client.snapshot().call_seconds
    for histogram in (handlers, calls):
        assert histogram.sum == pytest.approx(0.7 + 0.7 + 1.5)
        assert histogram.mean == pytest.approx(2.9 / 3)
        by_bound = dict(zip(histogram.bounds, histogram.counts, strict=False))
        assert (by_bound[1.0], by_bound[2.5], histogram.count) == (2, 1, 3)


async def test_the_time_a_call_waits_for_its_turn_is_a_part_of_it(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(Handler(), endpoint):
        client = endpoint.client()
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(client.call, task("slow"))
        assert client.snapshot().call_seconds.sum == pytest.approx(0.7 + 1.4)


async def test_failed_calls_are_not_timed() -> None:
    near, far = trio.testing.memory_stream_pair()
    await far.aclose()
    client = Client(FramedChannel(near, CONFIG, endpoint="memory", peer=ME), DETECTION, CONFIG)
    with pytest.raises(PeerClosedError):
        await client.call(task())
    assert client.snapshot().call_seconds.count == 0


async def test_the_uptime_follows_the_clock_until_the_server_ends(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(succeed, endpoint) as server:
        client = endpoint.client()
        await trio.sleep(5)
        assert server.snapshot().uptime_seconds == pytest.approx(5)
        assert client.snapshot().uptime_seconds == pytest.approx(5)
        server.stop()
        await server.wait_stopped()
        await trio.sleep(5)
        assert server.snapshot().uptime_seconds == pytest.approx(5)


# --- What a snapshot is -------------------------------------------------------------------------------------


async def test_a_snapshot_is_frozen_and_does_not_change(config: IpcConfig) -> None:
    async with serving(succeed, config) as server, open_client(DETECTION, config) as client:
        before = server.snapshot(), client.snapshot()
        told = [snapshot.as_dict() for snapshot in before]
        await client.call(task())
        assert [snapshot.as_dict() for snapshot in before] == told
        for snapshot in before:
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                snapshot.transport = "pigeon"  # type: ignore[misc]
        with pytest.raises(TypeError):
            before[0].timeouts["read"] = 1  # type: ignore[index]


async def test_a_snapshot_is_json_with_a_place_for_every_field(config: IpcConfig) -> None:
    async with serving(succeed, config) as server, open_client(DETECTION, config) as client:
        await client.call(task())
        await trio.testing.wait_all_tasks_blocked()
        for snapshot in (server.snapshot(), client.snapshot()):
            document = json.loads(json.dumps(snapshot.as_dict()))
            assert list(document) == [field.name for field in attrs.fields(type(snapshot))]
            assert document["transport"] == config.transport
            assert document["endpoint"] == config.endpoint_path
            assert document["contract"] == DETECTION.name
            assert document["timeouts"] == dict(snapshot.timeouts)
        document = server.snapshot().as_dict()
    part = document["by_transport"][config.transport]
    assert list(part) == [field.name for field in attrs.fields(ServerCounts)]
    assert part == {name: document[name] for name in part}
    assert sum(document["handler_seconds"]["counts"]) == document["requests"] == 1


async def test_any_thread_may_take_a_snapshot_and_so_may_who_comes_later(config: IpcConfig) -> None:
    async with serving(succeed, config) as server, open_client(DETECTION, config) as client:
        await client.call(task())
        await trio.testing.wait_all_tasks_blocked()
        assert (await trio.to_thread.run_sync(server.snapshot)).requests == 1
        assert (await trio.to_thread.run_sync(client.snapshot)).calls == 1


async def test_a_read_timeout_of_the_server_is_one_of_its_timeouts(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(hang, endpoint) as server, endpoint.connect() as raw:
        await raw.send_all(frame(task()))
        assert len(await read_results(raw, 1)) == 1
        assert await read_to_end(raw) == b""
        whole = server.snapshot()
    assert dict(whole.timeouts) == {"accept": 0, "read": 1, "write": 0, "handler": 1}


async def test_a_read_timeout_of_a_client_is_one_of_its_timeouts(autojump_clock: MockClock) -> None:
    near, _far = trio.testing.memory_stream_pair()
    client = Client(FramedChannel(near, CONFIG, endpoint="memory", peer=ME), DETECTION, CONFIG)
    with pytest.raises(ReadTimeoutError):
        await client.call(task())
    assert dict(client.snapshot().timeouts) == {"turn": 0, "write": 0, "read": 1, "call": 0}
