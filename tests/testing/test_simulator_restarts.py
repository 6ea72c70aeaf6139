"""Simulated collectors that die and come back, and a resilient client over them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.support import success, task
from trio_ipc import (
    AttemptsFailedError,
    Call,
    ChecksumMismatchError,
    ConnectError,
    EndpointInUseError,
    NoEndpointError,
    PeerClosedError,
    ProtocolError,
    ResilientClient,
    ServerNotFoundError,
    open_client,
    open_resilient_client,
)
from trio_ipc.daemoneye import (
    DETECTION,
    Capabilities,
    DetectionResult,
    DetectionTask,
    MonitoringDomain,
    ProcessFilter,
    ProcessRecord,
    TaskType,
)
from trio_ipc.resilient import Endpoint, ResilientConfig
from trio_ipc.testing import (
    MemoryEndpoint,
    MemoryNetwork,
    SimulatedCollector,
    bad_checksum,
    close_instead,
    close_mid_frame,
    close_on_failure,
    fail,
    garbage,
    hang,
    open_client_at,
    simulate_collector,
    simulate_reference,
    temporary_endpoint,
    undecodable,
    wrong_task_id,
)

# --- Dying and coming back ----------------------------------------------------------------------------------


async def test_a_crash_ends_everything_until_the_restart() -> None:
    async with simulate_collector(hang()) as collector, trio.open_nursery() as nursery:

        async def call() -> None:
            async with open_client_at(DETECTION, collector.endpoint) as client:
                with pytest.raises(PeerClosedError):
                    await client.call(task())

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        assert collector.open_connections == 1
        await collector.crash()
        await collector.crash()
        assert collector.open_connections == 0
        with pytest.raises(ServerNotFoundError):
            await collector.endpoint.connect()
        await collector.restart()
        with pytest.raises(EndpointInUseError):
            await collector.restart()
        async with open_client_at(DETECTION, collector.endpoint) as client:
            assert await client.call(task()) == success()


async def test_connections_can_be_closed_as_soon_as_they_come() -> None:
    async with simulate_collector() as collector:
        collector.close_next = 1
        async with open_client_at(DETECTION, collector.endpoint) as client:
            with pytest.raises(PeerClosedError):
                await client.call(task())
        async with open_client_at(DETECTION, collector.endpoint) as client:
            assert await client.call(task()) == success()


async def test_its_connections_can_be_dropped_while_it_listens_on() -> None:
    async with simulate_collector() as collector:
        async with open_client_at(DETECTION, collector.endpoint) as client:
            await client.call(task())
            collector.drop_connections()
            with pytest.raises(PeerClosedError):
                await client.call(task())
        async with open_client_at(DETECTION, collector.endpoint) as client:
            assert await client.call(task()) == success()


async def test_it_does_the_same_at_a_real_endpoint() -> None:
    with temporary_endpoint() as endpoint:
        async with simulate_collector(bad_checksum(), endpoint=endpoint) as collector:
            async with open_client(DETECTION, collector.config) as client:
                with pytest.raises(ChecksumMismatchError):
                    await client.call(task())
            async with open_client(DETECTION, collector.config) as client:
                assert await client.call(task()) == success()
            await collector.crash()
            with pytest.raises(ConnectError):
                await endpoint.connect()
            await collector.restart()
            async with open_client(DETECTION, collector.config) as client:
                assert await client.call(task()) == success()


# --- Under a resilient client -------------------------------------------------------------------------------


@asynccontextmanager
async def resilient(
    *collectors: SimulatedCollector, connect: Callable[..., object], **settings: int
) -> AsyncIterator[ResilientClient[DetectionTask, DetectionResult]]:
    endpoints = [Endpoint(collector.config) for collector in collectors]
    configured = ResilientConfig(**settings)  # type: ignore[arg-type]
    opened = open_resilient_client(DETECTION, endpoints, configured, connect=connect)  # type: ignore[arg-type]
    async with opened as client:
        yield client


async def test_negotiations_are_answered_apart_from_the_script() -> None:
    network = MemoryNetwork()
    async with (
        simulate_collector(fail("the one task"), endpoint=network.endpoint("a")) as collector,
        resilient(collector, connect=network.open_channel) as client,
    ):
        assert (await client.call(task())).error_message == "the one task"
        assert collector.negotiations == 1
        assert len(collector.asked) == 1


async def test_what_it_states_is_what_a_client_believes() -> None:
    network = MemoryNetwork()
    only_network = Capabilities([MonitoringDomain.NETWORK])
    async with (
        simulate_collector(endpoint=network.endpoint("a"), capabilities=only_network) as claims_little,
        simulate_collector(endpoint=network.endpoint("b")) as other,
        resilient(claims_little, other, connect=network.open_channel) as client,
    ):
        for _ in range(3):
            await client.call(task())
        asked = DetectionTask(task_id="n", task_type=TaskType.MONITOR_NETWORK_CONNECTIONS)
        assert await client.call(asked) == success("n")
        assert (len(claims_little.asked), len(other.asked)) == (1, 3)
        with pytest.raises(NoEndpointError):
            await client.call(task(), needs=lambda capabilities: capabilities.kernel_level)


async def test_it_can_say_nothing_of_its_capabilities_or_lie_when_asked(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = MemoryNetwork()
    async with (
        simulate_collector(endpoint=network.endpoint("a"), capabilities=None) as collector,
        resilient(collector, connect=network.open_channel) as client,
    ):
        assert await client.call(task()) == success()
    async with simulate_collector(endpoint=network.endpoint("a")) as collector:
        collector.negotiation = bad_checksum()
        async with resilient(collector, connect=network.open_channel, connect_attempts=1) as client:
            with pytest.raises((AttemptsFailedError, ProtocolError)):
                await client.call(task())
            assert collector.asked == []


async def test_a_lying_collector_is_made_up_for_by_an_honest_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = MemoryNetwork()
    lies = [wrong_task_id(), garbage(), bad_checksum(), close_mid_frame(), undecodable(), close_instead()]
    async with (
        simulate_collector(*lies, endpoint=network.endpoint("liar")) as liar,
        simulate_collector(endpoint=network.endpoint("honest")) as honest,
        resilient(liar, honest, connect=network.open_channel, breaker_failures=100) as client,
    ):
        for number in range(20):
            assert await client.call(task(str(number))) == success(str(number))
            await trio.sleep(60)  # until it is trusted again
        assert len(liar.asked) > len(lies)


async def test_two_collectors_in_memory_do_not_meet() -> None:
    async with (
        simulate_collector(fail("a"), endpoint=MemoryEndpoint("same")) as first,
        simulate_collector(fail("b"), endpoint=MemoryEndpoint("same")) as second,
        open_client_at(DETECTION, first.endpoint) as one,
        open_client_at(DETECTION, second.endpoint) as other,
    ):
        assert (await one.call(task())).error_message == "a"
        assert (await other.call(task())).error_message == "b"


async def test_a_collector_like_the_references_has_one_place_and_ignores_what_is_asked() -> None:
    records = [ProcessRecord(pid=pid) for pid in (1, 2)]
    question = DetectionTask(task_id="1", process_filter=ProcessFilter(pids=[1]))
    async with (
        simulate_reference(records, max_frame_bytes=100) as collector,
        open_client_at(DETECTION, collector.endpoint, collector.config) as client,
    ):
        assert [one.pid for one in (await client.call(question)).processes] == [1, 2]
        async with open_client_at(DETECTION, collector.endpoint, collector.config) as second:
            with pytest.raises(PeerClosedError):
                await second.call(question)
        result = await client.call(DetectionTask(task_id="2", task_type=TaskType.VERIFY_EXECUTABLE))
        assert (result.success, result.error_message) == (False, "not yet implemented")
        with pytest.raises(PeerClosedError):
            await client.call(DetectionTask(task_id="3" * 96))


@pytest.mark.parametrize("error", [RuntimeError(), OSError("no disk"), ExceptionGroup("two", [EOFError()])])
async def test_whatever_fails_is_closed_without_a_word(error: Exception) -> None:
    async def panic(_task: DetectionTask, _call: Call) -> DetectionResult:
        raise error

    async with simulate_collector(close_on_failure(), handler=panic) as collector:
        async with open_client_at(DETECTION, collector.endpoint, collector.config) as client:
            with pytest.raises(PeerClosedError):
                await client.call(DetectionTask(task_id="1"))


@pytest.mark.parametrize("error", [AssertionError("wrong"), ExceptionGroup("one", [AssertionError()])])
async def test_what_its_handler_asserts_is_no_failure_of_the_collector(error: Exception) -> None:
    async def judge(_task: DetectionTask, _call: Call) -> DetectionResult:
        raise error

    with pytest.raises(type(error)) as caught:  # noqa: PT012 - whichever is first to wake
        async with simulate_collector(close_on_failure(), handler=judge) as collector:
            async with open_client_at(DETECTION, collector.endpoint, collector.config) as client:
                await client.call(DetectionTask(task_id="1"))
    assert caught.value is error


@pytest.mark.parametrize("crashed", [True, False])
async def test_a_collector_does_not_listen_again_after_its_block(crashed: bool) -> None:
    async with simulate_collector() as collector:
        if crashed:
            await collector.crash()
    with pytest.raises(RuntimeError, match="the block of this simulated server is over"):
        await collector.restart()
    async with simulate_collector(endpoint=collector.endpoint):
        pass  # nobody has the endpoint
