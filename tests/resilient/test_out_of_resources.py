"""A client that has no descriptor left, which is no server's fault."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.support import success, task
from trio_ipc import Call, OutOfResourcesError
from trio_ipc.daemoneye import DetectionResult, DetectionTask
from trio_ipc.errors import AttemptsFailedError, IpcError
from trio_ipc.resilient import BreakerState

from .support import A, DetectionResilientClient, FakeServer, calling

NONE_LEFT = OutOfResourcesError("cannot connect: Too many open files", endpoint=A)


def assert_not_blamed(client: DetectionResilientClient, *, connection_failures: int) -> None:
    said = client.statistics()[0]
    assert said.healthy
    assert (said.failures, said.last_failure) == (0, None)
    assert (said.breaker.state, said.breaker.failures) == (BreakerState.CLOSED, 0)
    assert said.connection_failures == connection_failures


@pytest.mark.parametrize("rounds", [1, 3])
async def test_it_does_not_count_against_the_server_and_calls_go_on_at_once_when_there_are_some(
    autojump_clock: MockClock, rounds: int
) -> None:
    server = FakeServer("a")
    server.failing = NONE_LEFT
    async with calling(server, connect_attempts=rounds, breaker_failures=1) as client:
        for _ in range(10):
            with pytest.raises(IpcError, match="Too many open files") as caught:
                await client.call(task())
            assert type(caught.value) is (OutOfResourcesError if rounds == 1 else AttemptsFailedError)
        assert_not_blamed(client, connection_failures=10 * rounds)
        server.restart()
        began = trio.current_time()
        assert await client.call(task()) == success()
        assert trio.current_time() == began


async def test_a_call_outlasts_a_shortage(autojump_clock: MockClock) -> None:
    server = FakeServer("a")
    server.failing = NONE_LEFT
    async with calling(server) as client, trio.open_nursery() as nursery:

        async def come_free() -> None:
            await trio.sleep(2)
            server.restart()

        nursery.start_soon(come_free)
        answer = await client.ask(task())
        assert answer.response == success()
        assert 2 <= trio.current_time() < 4
        assert {type(error) for error in answer.attempts} == {OutOfResourcesError}
        assert_not_blamed(client, connection_failures=len(answer.attempts))


async def test_a_server_to_which_there_is_a_connection_answers(autojump_clock: MockClock) -> None:
    first, second = FakeServer("a"), FakeServer("b")
    async with calling(first, second) as client:
        assert (await client.ask(task())).endpoint_id == "a"
        first.failing = second.failing = NONE_LEFT
        for _ in range(4):
            assert (await client.ask(task())).endpoint_id == "a"
        assert (first.tries, trio.current_time()) == (1, 0)
        assert [said.failures for said in client.statistics()] == [0, 0]
        second.restart()
        first.restart()
        assert {(await client.ask(task())).endpoint_id for _ in range(2)} == {"a", "b"}


async def test_calls_wait_for_the_connections_that_there_are(autojump_clock: MockClock) -> None:
    async def in_a_second(request: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep(1)
        return success(request.task_id)

    server = FakeServer("a", in_a_second)
    async with calling(server) as client:
        await client.call(task())
        server.failing = NONE_LEFT
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(client.call, task(str(number)))
        assert trio.current_time() == 5, "one after another, on the one connection"
        assert client.metrics().tasks_completed_total == 5
        assert server.connections.total == 1
        assert_not_blamed(client, connection_failures=server.tries - 1)


async def test_a_probe_that_meets_it_leaves_the_breaker_half_open(autojump_clock: MockClock) -> None:
    server = FakeServer("a")
    server.crash()
    async with calling(server, connect_attempts=1, breaker_failures=1, breaker_successes=1) as client:
        with pytest.raises(IpcError, match="refused"):
            await client.call(task())
        await trio.sleep(30)
        server.failing = NONE_LEFT
        for _ in range(3):
            with pytest.raises(OutOfResourcesError):
                await client.call(task())
            breaker = client.statistics()[0].breaker
            assert (breaker.state, breaker.probing) == (BreakerState.HALF_OPEN, False)
            assert (breaker.activations, breaker.failed_total) == (1, 1)
        server.restart()
        assert await client.call(task()) == success()
        assert client.statistics()[0].breaker.state is BreakerState.CLOSED
