"""Circuit breakers, as callers see them."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import hang, succeed, success, task
from trio_ipc import (
    Call,
    ReadTimeoutError,
    ServerRefusedError,
)
from trio_ipc.daemoneye import (
    DETECTION,
    Capabilities,
    CapabilityGate,
    DetectionResult,
    DetectionTask,
    MonitoringDomain,
    TaskType,
)
from trio_ipc.errors import (
    CircuitOpenError,
)
from trio_ipc.resilient import BreakerState

from .support import (
    A,
    B,
    DetectionResilientClient,
    FakeServer,
    calling,
    open_breaker,
    servers,
)


async def fail_five_calls(client: DetectionResilientClient) -> None:
    for _ in range(5):
        with pytest.raises(ReadTimeoutError):
            await client.call(task())


async def test_a_breaker_that_one_failure_opens_says_so(autojump_clock: MockClock) -> None:
    server = FakeServer("a", hang, read_timeout_ms=1_000)
    async with calling(server, breaker_failures=1) as client:
        with pytest.raises(ReadTimeoutError):
            await client.call(task())
        with pytest.raises(CircuitOpenError, match="the circuit breaker is open after 1 failure in a row;"):
            await client.call(task())


async def test_five_failed_calls_open_the_breaker_and_the_next_is_refused_at_once(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a", hang, read_timeout_ms=1_000)
    async with calling(server) as client:
        await fail_five_calls(client)
        asked = len(server.asked)
        began = trio.current_time()
        with pytest.raises(
            CircuitOpenError, match=f"{A}: the circuit breaker is open after 5 failures in a row.*30.0 s"
        ) as caught:
            await client.call(task())
        assert (trio.current_time(), len(server.asked)) == (began, asked)
        assert caught.value.retry_after == 30
        assert client.metrics().circuit_breaker_activations_total == 1


async def test_an_open_breaker_is_not_waited_for_where_another_server_is_only_away(
    autojump_clock: MockClock,
) -> None:
    a, b = servers("ab", read_timeout_ms=1_000)
    a.handler = hang
    b.crash()
    async with calling(a, b) as client, trio.open_nursery() as nursery:
        open_breaker(client, "a")

        async def come_back() -> None:
            await trio.sleep(1)
            b.restart()

        nursery.start_soon(come_back)
        answer = await client.ask(task())
        assert answer.endpoint_id == "b"
        assert sum(isinstance(error, CircuitOpenError) for error in answer.attempts) == 1


async def test_all_breakers_open_is_one_error_that_says_when_to_come_again(autojump_clock: MockClock) -> None:
    a, b = servers("ab")
    async with calling(a, b) as client:
        for name in "ab":
            open_breaker(client, name)
            await trio.sleep(10)
        said = f"the circuit breakers of all 2 endpoints are open.*{A}: .*{B}: "
        with pytest.raises(CircuitOpenError, match=said) as caught:
            await client.call(task())
        assert caught.value.retry_after == 10
        assert len(caught.value.attempts) == 2


async def test_one_call_at_a_time_tries_a_half_open_server_and_three_close_it(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a", hang, read_timeout_ms=1_000)
    async with calling(server) as client:
        await fail_five_calls(client)
        await trio.sleep(30)
        release = trio.Event()

        async def wait(task: DetectionTask, _: Call) -> DetectionResult:
            await release.wait()
            return success(task.task_id)

        server.handler = wait
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(client.call, task("probe"), timeout=1))
            await wait_all_tasks_blocked()
            with pytest.raises(
                CircuitOpenError, match="the circuit breaker is half open, .* call again in 1.0 s"
            ) as caught:
                await client.call(task("other"))
            assert caught.value.retry_after == 1
            release.set()
        for successes in 1, 2:
            assert client.statistics()[0].breaker.state is BreakerState.HALF_OPEN
            assert client.statistics()[0].breaker.successes == successes
            await client.call(task())
        assert client.statistics()[0].breaker.state is BreakerState.CLOSED
        assert "other" not in server.asked


async def test_who_sleeps_as_long_as_it_is_told_does_not_spin(autojump_clock: MockClock) -> None:
    server = FakeServer("a", hang, read_timeout_ms=1_000)
    refusals = 0
    async with calling(server, call_timeout_ms=4_000) as client, trio.open_nursery() as nursery:
        await fail_five_calls(client)

        async def patient() -> None:
            nonlocal refusals
            while True:
                try:
                    await client.call(task())
                except CircuitOpenError as exc:
                    refusals += 1
                    assert refusals <= 10 * 3 * 2, "which is where the clock stands still, if it spins"
                    await trio.sleep(exc.retry_after)
                except ReadTimeoutError:
                    pass

        for _ in range(3):
            nursery.start_soon(patient)
        await trio.sleep(310)  # ten times 30 s open, 1 s with a probe
        assert refusals > 10
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("as_it", ["cannot do the task", "is refused", "has no connection in time"])
async def test_a_call_that_goes_on_to_another_server_makes_room_for_the_next_probe(
    autojump_clock: MockClock, as_it: str
) -> None:
    a, b = servers("ab", read_timeout_ms=1_000_000)
    network = DetectionTask(task_id="n", task_type=TaskType.MONITOR_NETWORK_CONNECTIONS)
    settings: dict[str, Any] = {"strategy": "priority", "priorities": [1, 2], "pool_timeout_ms": 1_000}
    async with (
        calling(a, b, contract=DETECTION, max_connections_per_endpoint=1, **settings) as client,
        trio.open_nursery() as nursery,
    ):
        b.handler = CapabilityGate(hang, Capabilities([MonitoringDomain.NETWORK]))
        a.handler = b.handler
        if as_it == "cannot do the task":
            a.handler = CapabilityGate(hang, Capabilities([MonitoringDomain.PROCESS]))
        else:
            # Its only connection is in use by a call from before its breaker opened.
            nursery.start_soon(partial(client.call, network, timeout=1000))
            await wait_all_tasks_blocked()
            a.asked.clear()
        open_breaker(client, "a")
        await trio.sleep(30)
        nursery.start_soon(partial(client.call, network, timeout=1000))
        await wait_all_tasks_blocked()
        if as_it == "is refused":
            assert client.statistics()[0].breaker.probing
            client._upstreams["a"].failed()
        elif as_it == "has no connection in time":
            assert client.statistics()[0].breaker.probing
            await trio.sleep(1)
        await wait_all_tasks_blocked()
        assert b.asked[-1] == "n"
        assert "n" not in a.asked
        said = client.statistics()[0].breaker
        assert (said.state, said.probing) == (BreakerState.HALF_OPEN, False)
        nursery.cancel_scope.cancel()


async def test_a_probe_that_cannot_connect_opens_it_again_without_trying_longer(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a", hang, read_timeout_ms=1_000)
    async with calling(server) as client:
        await fail_five_calls(client)
        await trio.sleep(30)
        server.crash()
        tries = server.tries
        await wait_all_tasks_blocked()
        with pytest.raises(ServerRefusedError, match="connection refused"):
            await client.call(task())
        assert server.tries == tries + 1
        assert client.statistics()[0].breaker.state is BreakerState.OPEN


async def test_a_cancelled_probe_makes_room_for_the_next(autojump_clock: MockClock) -> None:
    server = FakeServer("a", hang, read_timeout_ms=1_000)
    async with calling(server) as client:
        await fail_five_calls(client)
        await trio.sleep(30)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, task())
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        said = client.statistics()[0].breaker
        assert (said.state, said.probing) == (BreakerState.HALF_OPEN, False)
        server.handler = succeed
        await client.call(task())
