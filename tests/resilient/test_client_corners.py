"""The resilient client in rare situations; each was a defect once."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support import frame, hang, success, task
from trio_ipc import (
    Call,
    Channel,
    ChannelClosedError,
    FramedChannel,
    IpcConfig,
    PeerClosedError,
    ServerRefusedError,
)
from trio_ipc.daemoneye import (
    DETECTION,
    DetectionResult,
    DetectionTask,
)
from trio_ipc.errors import (
    AttemptsFailedError,
    CallTimeoutError,
)
from trio_ipc.resilient import BreakerState, Endpoint, ResilientConfig, open_resilient_client
from trio_ipc.resilient.calls import PendingCall
from trio_ipc.resilient.endpoints import Upstream
from trio_ipc.resilient.lanes import Lanes
from trio_ipc.testing import memory_streams

from .support import (
    PLAIN,
    A,
    DetectionResilientClient,
    FakeServer,
    Servers,
    calling,
    servers,
)


@pytest.mark.parametrize("max_in_flight", [1, 2])
async def test_an_interrupt_in_a_task_of_the_clients_own_is_not_lost(max_in_flight: int) -> None:
    """Not even where a scope around the block is cancelled later."""

    def interrupt(request: DetectionTask, _: DetectionResult) -> str | None:
        raise KeyboardInterrupt

    server = FakeServer("a")
    world = Servers(server)
    contract = attrs.evolve(PLAIN, mismatch=interrupt)
    settings = ResilientConfig(max_in_flight=max_in_flight)

    async def interrupted() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            with trio.CancelScope() as around:
                try:
                    async with open_resilient_client(
                        contract, [server.endpoint()], settings, connect=world.connect
                    ) as client:
                        await client.call(task())
                finally:
                    around.cancel()
            nursery.cancel_scope.cancel()

    with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True):
        await interrupted()


async def test_a_server_that_the_call_gave_up_is_not_waited_for(autojump_clock: MockClock) -> None:
    server = FakeServer("a")
    async with calling(server, breaker_failures=1) as client:
        server.crash()

        async def in_a_hurry() -> None:
            with pytest.raises(CallTimeoutError):
                await client.call(task(), timeout=0.02)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_a_hurry)  # it opens the breaker while the other call waits
            with pytest.raises(AttemptsFailedError):
                await client.call(task())
            assert trio.current_time() < 1


@pytest.mark.parametrize("max_in_flight", [1, 2])
async def test_closing_the_client_ends_a_call_that_waits_to_connect_again(
    autojump_clock: MockClock, max_in_flight: int
) -> None:
    server = FakeServer("a")
    server.failing = ServerRefusedError("connection refused")

    async def call(client: DetectionResilientClient) -> None:
        with pytest.raises(ChannelClosedError, match="this client was closed; open a new one"):
            await client.call(task())
        assert trio.current_time() == pytest.approx(1)

    async with trio.open_nursery() as nursery:
        async with calling(server, max_in_flight=max_in_flight) as client:
            nursery.start_soon(call, client)
            await trio.sleep(1)
    with pytest.raises(ChannelClosedError):
        client.add_endpoint(FakeServer("b").endpoint())


async def test_one_connection_that_breaks_under_many_calls_is_one_failure(autojump_clock: MockClock) -> None:
    a, b = servers("ab")
    a.handler = hang
    async with calling(
        a, b, strategy="priority", priorities=[1, 2], max_connections_per_endpoint=1, max_in_flight=8
    ) as client:
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(client.call, task(str(number)))
            await trio.sleep(0.1)
            assert a.connections.total == 1
            a.drop_connections()
        found = client.statistics()[0]
        assert (found.breaker.failures, found.failures) == (1, 1)
        assert found.breaker.state is BreakerState.CLOSED


async def test_an_endpoint_added_again_has_no_more_connections_than_before(autojump_clock: MockClock) -> None:
    server = FakeServer("a", hang)
    async with calling(server) as client, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(client.call, task())
        await trio.sleep(0.1)
        client.remove_endpoint("a")
        client.add_endpoint(server.endpoint())
        for _ in range(4):
            nursery.start_soon(client.call, task())
        await trio.sleep(0.1)
        assert server.connections.most == 4
        nursery.cancel_scope.cancel()


async def test_what_is_believed_of_a_servers_places_goes_with_its_endpoint(autojump_clock: MockClock) -> None:
    async def take_a_second(request: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep(1)
        return success(request.task_id)

    server = FakeServer("a", take_a_second)
    async with calling(server) as client:

        async def seconds_of_two_calls() -> float:
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.call, task())
                await trio.sleep(0.1)
                nursery.start_soon(client.call, task())
            return trio.current_time() - began

        await client.call(task())
        server.closes = 1
        assert await seconds_of_two_calls() == pytest.approx(2), "it has one place, as far as could be seen"
        assert await seconds_of_two_calls() == pytest.approx(2), "which is believed for a while"
        client.remove_endpoint("a")
        await trio.testing.wait_all_tasks_blocked()
        client.add_endpoint(server.endpoint())
        assert await seconds_of_two_calls() == pytest.approx(1.1)


async def test_a_server_that_hangs_is_known_though_the_callers_own_deadline_is_the_same(
    autojump_clock: MockClock,
) -> None:
    async with calling(FakeServer("a", hang)) as client:
        for _ in range(5):
            with trio.move_on_after(5):
                await client.call(task(), timeout=5)
        found = client.statistics()[0]
        assert found.breaker.state is BreakerState.OPEN
        assert found.breaker.failures == found.failures == 5


@pytest.mark.parametrize("seconds", [10**400, 10**5_000, -(10**5_000)], ids=["large", "huge", "huge below 0"])
async def test_a_timeout_beyond_all_floats_is_a_short_error(seconds: int) -> None:
    async with calling(FakeServer("a")) as client:
        with pytest.raises(ValueError, match=r"timeout is .*, must be ") as caught:
            await client.call(task(), timeout=seconds)
        assert len(str(caught.value)) < 250
        assert client.metrics().tasks_sent_total == 0


@pytest.mark.parametrize("seconds", [-1, float("nan")])
async def test_a_timeout_that_is_no_time_is_refused(seconds: float) -> None:
    async with calling(FakeServer("a")) as client:
        with pytest.raises(ValueError, match="must be 0 or more seconds, or None for the setting"):
            await client.call(task(), timeout=seconds)
        assert client.metrics().tasks_sent_total == 0


@pytest.mark.parametrize("late", [False, True])
async def test_a_call_that_is_overdue_on_a_shared_connection_is_one_failure(
    autojump_clock: MockClock, late: bool
) -> None:
    async def slow(request: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep(10 if late else 10**6)
        return success(request.task_id)

    async with calling(FakeServer("a", slow), max_in_flight=4) as client:
        with pytest.raises(CallTimeoutError):
            await client.call(task(), timeout=5)
        await trio.sleep(60)
        found = client.statistics()[0]
        assert (found.failures, found.breaker.failures) == (1, 1)


async def test_who_needs_another_server_is_not_passed_by_sharers(
    autojump_clock: MockClock,
) -> None:
    async def slow(request: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep(0.5)
        return success(request.task_id)

    a, b = servers("ab")
    a.handler = b.handler = slow
    async with (
        calling(a, b, max_connections=1, max_in_flight=2, strategy="priority", priorities=[1, 2]) as client,
        trio.open_nursery() as nursery,
    ):

        async def keep_busy() -> None:
            while True:
                await client.call(task())

        for _ in range(3):
            nursery.start_soon(keep_busy)
            await trio.sleep(0.17)
        asked = len(a.asked)
        with trio.fail_after(5):
            connection = await client._pool.wait(
                client._upstreams["b"],
                PendingCall(task("b"), began=trio.current_time(), seconds=100, repeatable=True),
            )
        assert len(a.asked) - asked <= 4
        client._pool.release(connection, trio.current_time())
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("max_in_flight", [1, 2])
async def test_what_follows_the_negotiation_is_nobodys_answer(max_in_flight: int) -> None:
    """Not even where the contract could not tell whose response it is."""
    config = IpcConfig(endpoint_path=A)
    contract = attrs.evolve(DETECTION, mismatch=lambda _request, _response: None)

    async def lie(stream: trio.abc.Stream) -> None:
        async with stream:
            while await stream.receive_some():
                await stream.send_all(frame(success("a lie")) * 2)

    async with trio.open_nursery() as nursery:

        async def connect(_: IpcConfig) -> Channel:
            near, far = memory_streams(A)
            nursery.start_soon(lie, far)
            return FramedChannel(near, config, endpoint=A, peer=near.peer)

        settings = ResilientConfig(max_in_flight=max_in_flight, connect_attempts=1)
        async with open_resilient_client(contract, [Endpoint(config)], settings, connect=connect) as client:
            with pytest.raises(PeerClosedError, match="sent more than it was asked for"):
                await client.call(task("mine"))
        nursery.cancel_scope.cancel()


async def test_an_error_of_hundreds_of_servers_tells_of_a_few_and_keeps_all(
    autojump_clock: MockClock,
) -> None:
    world = [FakeServer(f"s{number}") for number in range(100)]
    for server in world:
        server.crash()
    async with calling(*world, connect_attempts=2) as client:
        with pytest.raises(AttemptsFailedError, match=r"200 attempts failed: .*; and 92 more; see") as caught:
            await client.call(task())
        assert len(caught.value.attempts) == 200
        assert len(str(caught.value)) < 1_000


def test_endpoints_that_are_added_and_removed_make_the_limit() -> None:
    lanes = Lanes(ResilientConfig(max_connections_per_endpoint=10))
    upstreams = [
        Upstream(one.endpoint(), ResilientConfig(), on_open=stays, on_failure=stays) for one in servers("abc")
    ]
    limits = []
    for upstream in upstreams:
        lanes.add(upstream)
        limits.append(lanes.limit)
    for upstream in upstreams:
        upstream.removed = True
        lanes.drop_if_empty(lanes.get(upstream) or lanes.add(upstream))
        limits.append(lanes.limit)
    assert limits == [16, 20, 30, 20, 16, 16]


def stays(*_: object) -> None:
    """Be told of nothing that matters here."""
