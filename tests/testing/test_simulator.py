"""A simulated collector does to clients what its script says, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.support import frame, success, task
from trio_ipc import (
    RESPONSE_TOO_LARGE,
    AttemptsFailedError,
    ChecksumMismatchError,
    ConnectError,
    EndpointInUseError,
    FrameTooLargeError,
    IpcError,
    NoEndpointError,
    PeerClosedError,
    ProtocolError,
    ReadTimeoutError,
    ResilientClient,
    ResponseMismatchError,
    ServerNotFoundError,
    TruncatedFrameError,
    UndecodableMessageError,
    open_client,
    open_resilient_client,
)
from trio_ipc.daemoneye import Capabilities, DetectionResult, DetectionTask, MonitoringDomain, TaskType
from trio_ipc.resilient import Endpoint, ResilientConfig
from trio_ipc.testing import (
    Behaviour,
    MemoryEndpoint,
    MemoryNetwork,
    Reply,
    SimulatedCollector,
    bad_checksum,
    close_instead,
    close_mid_frame,
    drip,
    fail,
    garbage,
    hang,
    open_client_at,
    simulate_collector,
    slow,
    temporary_endpoint,
    too_large,
    unasked_answer,
    undecodable,
    wrong_task_id,
)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (hang(), ReadTimeoutError),
        (slow(100), ReadTimeoutError),
        (drip(20), ReadTimeoutError),
        (wrong_task_id(), ResponseMismatchError),
        (garbage(), ProtocolError),
        (garbage(bytes(8)), ProtocolError),
        (bad_checksum(), ChecksumMismatchError),
        (too_large(), FrameTooLargeError),
        (undecodable(), UndecodableMessageError),
        (close_instead(), PeerClosedError),
        (close_mid_frame(), TruncatedFrameError),
        (close_mid_frame(3), TruncatedFrameError),
        (close_mid_frame(0), PeerClosedError),
    ],
    ids=lambda value: getattr(value, "__qualname__", str(value)).partition(".")[0],
)
async def test_each_behaviour_is_the_error_that_it_should_be_and_the_next_task_is_answered(
    behaviour: Behaviour, error: type[IpcError], autojump_clock: trio.testing.MockClock
) -> None:
    async with simulate_collector(behaviour) as collector:
        async with open_client_at(collector.endpoint) as client:
            with pytest.raises(error):
                await client.call(task("1"))
        async with open_client_at(collector.endpoint) as client:
            assert await client.call(task("2")) == success("2")
        assert [one.task_id for one in collector.asked] == ["1", "2"]
        assert collector.connections == 2


async def test_slowness_within_the_deadline_is_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        simulate_collector(slow(20), drip(0.1, 2), slow(1, fail("late and failed"))) as collector,
        open_client_at(collector.endpoint) as client,
    ):
        began = trio.current_time()
        assert await client.call(task()) == success()
        assert trio.current_time() - began == pytest.approx(20)
        assert await client.call(task()) == success()
        assert (await client.call(task())).error_message == "late and failed"


async def test_an_answer_that_nobody_asked_for_spoils_the_connection() -> None:
    async with (
        simulate_collector(unasked_answer()) as collector,
        open_client_at(collector.endpoint) as client,
    ):
        assert await client.call(task("1")) == success("1")
        assert not client.is_quiet()
        with pytest.raises(ResponseMismatchError):
            await client.call(task("2"))


async def test_after_its_script_it_does_what_is_its_default() -> None:
    async def find(task: DetectionTask) -> DetectionResult:
        return DetectionResult(task_id=task.task_id, success=True, error_message="found")

    async with (
        simulate_collector(fail("first"), handler=find) as collector,
        open_client_at(collector.endpoint) as client,
    ):
        said = [(await client.call(task())).error_message for _ in range(2)]
        collector.default = fail("from now on")
        collector.script(fail("once"))
        said += [(await client.call(task())).error_message for _ in range(2)]
        assert said == ["first", "found", "once", "from now on"]


async def test_a_behaviour_of_ones_own_may_send_any_bytes() -> None:
    async def answer_in_two_pieces(task: DetectionTask, reply: Reply) -> None:
        whole = reply.frame(success(task.task_id))
        await reply.send_bytes(whole[:5])
        await trio.testing.wait_all_tasks_blocked()
        await reply.send_bytes(whole[5:])

    async with (
        simulate_collector(answer_in_two_pieces) as collector,
        open_client_at(collector.endpoint) as client,
    ):
        assert await client.call(task()) == success()


async def test_a_behaviour_that_fails_is_the_tests_failure() -> None:
    async def broken(_task: DetectionTask, _reply: Reply) -> None:
        raise ZeroDivisionError("in the test's own code")

    with pytest.raises(ZeroDivisionError, match="own code"):
        async with simulate_collector(broken) as collector, open_client_at(collector.endpoint) as client:
            await client.call(task())


async def test_a_result_too_large_for_a_frame_fails_as_that_of_a_real_collector() -> None:
    async def find_much(task: DetectionTask) -> DetectionResult:
        return DetectionResult(task_id=task.task_id, success=True, error_message="x" * 5_000)

    async with (
        simulate_collector(handler=find_much, max_frame_bytes=4_096) as collector,
        open_client_at(collector.endpoint, collector.config) as client,
    ):
        assert (await client.call(task())).error_message.startswith(RESPONSE_TOO_LARGE)


@pytest.mark.parametrize("data", [b"\xff" * 8, frame(task())[:5], b"\3\0\0\0\0\0\0\0abc"])
async def test_a_client_that_breaks_the_protocol_is_let_go_and_others_served(data: bytes) -> None:
    async with simulate_collector() as collector:
        stream = await collector.endpoint.connect()
        await stream.send_all(data)
        assert isinstance(stream, trio.abc.HalfCloseableStream)
        await stream.send_eof()
        assert await stream.receive_some() == b""
        async with open_client_at(collector.endpoint) as client:
            assert await client.call(task()) == success()


# --- Dying and coming back ----------------------------------------------------------------------------------


async def test_a_crash_ends_everything_until_the_restart() -> None:
    async with simulate_collector(hang()) as collector, trio.open_nursery() as nursery:

        async def call() -> None:
            async with open_client_at(collector.endpoint) as client:
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
        async with open_client_at(collector.endpoint) as client:
            assert await client.call(task()) == success()


async def test_connections_can_be_closed_as_soon_as_they_come() -> None:
    async with simulate_collector() as collector:
        collector.close_next = 1
        async with open_client_at(collector.endpoint) as client:
            with pytest.raises(PeerClosedError):
                await client.call(task())
        async with open_client_at(collector.endpoint) as client:
            assert await client.call(task()) == success()


async def test_its_connections_can_be_dropped_while_it_listens_on() -> None:
    async with simulate_collector() as collector:
        async with open_client_at(collector.endpoint) as client:
            await client.call(task())
            collector.drop_connections()
            with pytest.raises(PeerClosedError):
                await client.call(task())
        async with open_client_at(collector.endpoint) as client:
            assert await client.call(task()) == success()


async def test_it_does_the_same_at_a_real_endpoint() -> None:
    with temporary_endpoint() as endpoint:
        async with simulate_collector(bad_checksum(), endpoint=endpoint) as collector:
            async with open_client(collector.config) as client:
                with pytest.raises(ChecksumMismatchError):
                    await client.call(task())
            async with open_client(collector.config) as client:
                assert await client.call(task()) == success()
            await collector.crash()
            with pytest.raises(ConnectError):
                await endpoint.connect()
            await collector.restart()
            async with open_client(collector.config) as client:
                assert await client.call(task()) == success()


# --- Under a resilient client -------------------------------------------------------------------------------


@asynccontextmanager
async def resilient(
    *collectors: SimulatedCollector, connect: Callable[..., object], **settings: int
) -> AsyncIterator[ResilientClient[DetectionTask, DetectionResult]]:
    endpoints = [Endpoint(collector.config) for collector in collectors]
    async with open_resilient_client(endpoints, ResilientConfig(**settings), connect=connect) as client:  # type: ignore[arg-type]
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
        open_client_at(first.endpoint) as one,
        open_client_at(second.endpoint) as other,
    ):
        assert (await one.call(task())).error_message == "a"
        assert (await other.call(task())).error_message == "b"
