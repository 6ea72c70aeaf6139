"""How a resilient client opens and closes."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import frame, hang, success, task
from trio_ipc import (
    Call,
    ConfigError,
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
    ChannelClosedError,
    PoolTimeoutError,
)
from trio_ipc.resilient import open_resilient_client

from .support import (
    PLAIN,
    A,
    FakeServer,
    calling,
    servers,
)


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_resilient_client(PLAIN, []):
            raise ZeroDivisionError


async def test_a_keyboard_interrupt_in_a_cancelled_block_is_not_lost() -> None:
    async def interrupted() -> None:
        with trio.CancelScope() as scope:
            async with open_resilient_client(PLAIN, []):
                scope.cancel()
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await interrupted()


async def test_cancelling_the_block_closes_everything(autojump_clock: MockClock) -> None:
    server = FakeServer("a", hang)
    with trio.move_on_after(1) as scope:
        async with calling(server) as client, trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(client.call, task(str(number)))
    assert scope.cancelled_caught
    assert (server.connections.now, server.connections.total) == (0, 4)


async def test_two_endpoints_of_one_id_are_refused() -> None:
    a = FakeServer("a")
    with pytest.raises(ConfigError):
        async with open_resilient_client(DETECTION, [a.endpoint(), a.endpoint()]):
            raise AssertionError("unreachable")


async def test_metrics_are_what_happened(autojump_clock: MockClock) -> None:
    a, b = servers("ab", read_timeout_ms=2_000)

    async def slowly(task: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep(1)
        return success(task.task_id)

    async def connect_slowly() -> None:
        await trio.sleep(0.5)

    a.handler = b.handler = slowly
    a.connecting = b.connecting = connect_slowly
    async with calling(a, b) as client:
        fresh = client.metrics()
        assert (fresh.success_rate, fresh.connection_success_rate) == (1, 1)
        assert (fresh.average_task_duration_ms, fresh.average_connection_duration_ms) == (0, 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, task("1"))
            nursery.start_soon(client.call, task("2"))
            await trio.sleep(1)
            during = client.metrics()
            assert (during.tasks_sent_total, during.tasks_completed_total) == (2, 0)
            assert (during.active_connections_current, during.pooled_connections_current) == (2, 0)
        with trio.move_on_after(0.1):
            await client.call(task("3"))
        a.crash()
        b.crash()
        with pytest.raises(CallTimeoutError):
            await client.call(task("4"), timeout=3)
        metrics = client.metrics()
        assert metrics.transport == "interprocess"
        assert (metrics.tasks_sent_total, metrics.tasks_completed_total, metrics.tasks_failed_total) == (
            4,
            2,
            2,
        )
        assert metrics.success_rate == 0.5
        assert metrics.task_duration_ms_total == pytest.approx(3_000)
        assert metrics.average_task_duration_ms == pytest.approx(1_500)
        assert metrics.connections_established_total == 2
        assert metrics.connection_duration_ms_total == pytest.approx(1_000)
        assert metrics.average_connection_duration_ms == pytest.approx(500)
        assert metrics.connection_attempts_total == a.tries + b.tries
        assert metrics.connection_failures_total == a.tries + b.tries - 2
        assert metrics.connection_success_rate == 2 / metrics.connection_attempts_total
        assert (metrics.active_connections_current, metrics.pooled_connections_current) == (0, 0)
        assert metrics.bytes_sent_total == 3 * len(frame(task("1")))
        assert metrics.bytes_received_total == 2 * len(frame(success("1")))
        assert metrics.circuit_breaker_activations_total == 0


async def test_statistics_count_calls_as_the_breaker_does_and_tries_as_the_metrics_do(
    autojump_clock: MockClock,
) -> None:
    a, b = servers("ab", read_timeout_ms=2_000)
    a.crash()
    async with calling(a, b, breaker_failures=3, breaker_reset_ms=10_000) as client:
        for number in range(3):
            await client.call(task(str(number)))
            await trio.sleep(10)  # so that it is thought healthy, and asked again
        b.handler = hang
        with trio.move_on_after(1):
            await client.call(task("cancelled"))
        with pytest.raises(AttemptsFailedError):
            await client.call(task("fails"))
        first, second = client.statistics()
        assert (first.answers, second.answers) == (0, 3)
        assert second.failures == second.breaker.failures == 1
        assert first.failures == first.breaker.failed_total
        metrics = client.metrics()
        assert first.answers + second.answers == metrics.tasks_completed_total
        assert first.connection_failures + second.connection_failures == metrics.connection_failures_total
        assert first.connection_failures == a.tries
        activations = first.breaker.activations + second.breaker.activations
        assert activations == metrics.circuit_breaker_activations_total > 0


async def test_a_server_that_was_not_reached_has_failed_though_the_call_gave_up_waiting_for_it(
    autojump_clock: MockClock,
) -> None:
    a = FakeServer("a")
    a.failing = ServerRefusedError("connection refused", endpoint=A)
    async with (
        calling(a, max_connections_per_endpoint=1, pool_timeout_ms=1_000, breaker_failures=9) as client,
        trio.open_nursery() as nursery,
    ):

        async def unlucky() -> None:
            with pytest.raises(AttemptsFailedError) as caught:
                await client.call(task())
            assert [type(error) for error in caught.value.attempts] == [ServerRefusedError, PoolTimeoutError]

        nursery.start_soon(unlucky)  # it is refused at once, and waits to connect again
        await trio.sleep(0.01)
        a.connecting = trio.sleep_forever
        with trio.move_on_after(5):
            await client.call(task("takes the only place"))
        [said] = client.statistics()
        assert said.failures == said.breaker.failures == 1


@pytest.mark.parametrize("max_in_flight", [1, 3])
async def test_a_connection_that_succeeds_just_as_the_client_is_closed_is_closed_as_well(
    autojump_clock: MockClock, max_in_flight: int
) -> None:
    server = FakeServer("a")
    may_connect = trio.Event()

    async def succeed_all_the_same() -> None:
        with trio.CancelScope(shield=True):
            await may_connect.wait()

    async def call() -> None:
        with pytest.raises(ChannelClosedError):
            await client.call(task())

    server.connecting = succeed_all_the_same
    async with trio.open_nursery() as nursery:
        async with calling(server, max_in_flight=max_in_flight) as client:
            nursery.start_soon(call)
            await wait_all_tasks_blocked()
            trio.lowlevel.current_trio_token().run_sync_soon(may_connect.set)
    assert (server.connections.now, server.connections.total) == (0, 1)
    metrics = client.metrics()
    assert (metrics.connections_established_total, metrics.connection_failures_total) == (0, 1)
