"""Servers that have fewer places than a client would take."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import succeed, success, task
from trio_ipc import Call, Contract, IpcConfig, PeerClosedError, serve
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.errors import AttemptsFailedError, CallTimeoutError, PoolTimeoutError
from trio_ipc.resilient import BreakerState, Endpoint, open_resilient_client

from .support import (
    PLAIN,
    UNREPEATABLE,
    A,
    DetectionResilientClient,
    FakeServer,
    calling,
    connections_of,
    lanes_of,
    openings_of,
)

CONTRACTS = pytest.mark.parametrize("contract", [DETECTION, PLAIN], ids=lambda one: one.name)


async def in_20_ms(request: DetectionTask, _: Call) -> DetectionResult:
    await trio.sleep(0.02)
    return success(request.task_id)


class Callers:
    """So many who call again and again, and how long their calls take."""

    def __init__(self, client: DetectionResilientClient, count: int = 8) -> None:
        self.client = client
        self.count = count
        self.took: list[float] = []

    async def run(self, seconds: float) -> None:
        end = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            for number in range(self.count):
                nursery.start_soon(self._call, number, end)

    async def _call(self, number: int, end: float) -> None:
        turn = 0
        while trio.current_time() < end:
            turn += 1
            name, began = f"{number}-{turn}", trio.current_time()
            assert await self.client.call(task(name)) == success(name)
            self.took.append(trio.current_time() - began)


# --- One place ----------------------------------------------------------------------------------------------


async def test_with_one_place_no_call_fails_and_none_starves(autojump_clock: MockClock) -> None:
    server = FakeServer("a", in_20_ms, places=1)
    async with calling(server, contract=DETECTION) as client:
        callers = Callers(client)
        await callers.run(20)
        assert len(callers.took) > 20 / 0.02 * 0.99
        assert max(callers.took) < 0.3, "which is the time of eight calls, one after the other, and a bit"
        metrics = client.metrics()
        assert metrics.tasks_failed_total == 0
        [said] = client.statistics()
        assert (said.failures, said.breaker.activations, said.healthy) == (0, 0, True)
        assert said.connection_failures < 8, "it is not tried again and again"


async def test_with_one_place_and_defaults_over_real_endpoints(config: IpcConfig) -> None:
    config = config.replace(max_connections=1)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, in_20_ms, DETECTION, config)
        async with open_resilient_client(DETECTION, [Endpoint(config)]) as client:
            callers = Callers(client)
            await callers.run(2.5)
            assert len(callers.took) > 50
            assert max(callers.took) < 2
            assert client.metrics().tasks_failed_total == 0
        nursery.cancel_scope.cancel()


async def test_without_a_negotiation_a_call_that_was_kept_waiting_is_made_again(
    autojump_clock: MockClock,
) -> None:
    """There the call itself finds out that its connection was one too many, once."""
    server = FakeServer("a", in_20_ms, places=1, accept_timeout_ms=1_000)
    async with calling(server) as client:
        callers = Callers(client)
        await callers.run(20)
        assert client.metrics().tasks_failed_total == 0
        assert len(set(server.asked)) == len(server.asked) == len(callers.took), "nothing was done twice"
        assert max(callers.took) < 1.3
        assert sum(took > 0.3 for took in callers.took) <= 2
        [said] = client.statistics()
        assert (said.failures, said.healthy) == (0, True)


async def test_what_may_not_be_repeated_is_not_made_again_but_blames_nobody(
    autojump_clock: MockClock,
) -> None:
    gate = Gate()
    server = FakeServer("a", gate, places=1, accept_timeout_ms=1_000)
    async with calling(server, contract=UNREPEATABLE, max_connections_per_endpoint=2) as client:
        await client.call(task("0"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, task("1"))
            await wait_all_tasks_blocked()
            with pytest.raises(PeerClosedError):
                await client.call(task("2"))
            [said] = client.statistics()
            assert (said.healthy, said.breaker.failures) == (True, 0)
            nursery.start_soon(client.call, task("3"))
            await wait_all_tasks_blocked()
            assert server.connections.now == 1, "it waits for the one that there is"
            gate.set()
        assert server.asked == ["0", "1", "3"]


class Gate:
    """A handler that waits until it may go on."""

    def __init__(self) -> None:
        self._open = trio.Event()

    def set(self) -> None:
        self._open.set()

    async def __call__(self, request: DetectionTask, _: Call) -> DetectionResult:
        if request.task_id in {"1", "2"}:
            await self._open.wait()
        return success(request.task_id)


# --- What is believed ---------------------------------------------------------------------------------------


async def test_as_many_places_as_there_are_are_used(autojump_clock: MockClock) -> None:
    server = FakeServer("a", in_20_ms, places=2)
    async with calling(server, contract=DETECTION) as client:
        callers = Callers(client)
        await callers.run(20)
        assert len(callers.took) > 2 * 20 / 0.02 * 0.95
        assert sum(one.load == 0 for one in connections_of(client)) == 2


async def test_a_server_is_believed_to_have_no_more_places_for_as_long_as_a_breaker_is_open(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a", in_20_ms, places=1)
    async with calling(server, contract=DETECTION, breaker_reset_ms=10_000) as client:
        callers = Callers(client, 2)
        await callers.run(9)
        tries = server.tries
        assert tries == 2
        await callers.run(4)
        assert server.tries == 2, "it was refused after 5 s, and is believed until 15 s"
        server.places = 1000  # too late for the one that serves; but more would be tried now
        await callers.run(4)
        assert server.tries == 3


async def test_when_a_connection_is_lost_nothing_is_believed_any_longer(autojump_clock: MockClock) -> None:
    server = FakeServer("a", in_20_ms)
    async with calling(server, contract=DETECTION, max_connections_per_endpoint=2) as client:
        server.closes = 0
        await client.call(task("1"))
        [lane] = lanes_of(client)
        assert lane.server.is_full_after(PeerClosedError("one too many"), 1_000)
        assert lane.server.places(2) == 1
        server.handler = crash = Crash(server)
        with pytest.raises(AttemptsFailedError, match="closed"):
            await client.call(task("2"))
        assert crash.calls
        assert lane.server.places(2) == 2


class Crash:
    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.calls = 0

    async def __call__(self, request: DetectionTask, call: Call) -> DetectionResult:
        if request.task_id == "2":
            self.calls += 1
            self.server.drop_connections()
            await trio.sleep_forever()
        return await succeed(request, call)


async def test_who_waits_takes_whichever_connection_comes_first(autojump_clock: MockClock) -> None:
    """A connection that the server keeps waiting is not waited for, and not lost if it comes."""
    server = FakeServer("a", in_20_ms, places=1)
    async with calling(server, contract=DETECTION) as client:
        await client.call(task("1"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, task("2"))
            await wait_all_tasks_blocked()
            began = trio.current_time()
            assert await client.call(task("3")) == success("3")
            assert trio.current_time() - began == pytest.approx(0.04)
        assert len(openings_of(client)) == 1
        [connection] = connections_of(client)
        await client._pool._close(connection)
        await trio.sleep(0.05)
        assert not openings_of(client), "it got the place"
        assert server.connections.now == 1
        assert client.metrics().connection_failures_total == 0
        began = trio.current_time()
        await client.call(task("4"))
        assert trio.current_time() - began == pytest.approx(0.02)


async def test_a_server_that_is_gone_is_no_server_without_places(autojump_clock: MockClock) -> None:
    server = FakeServer("a", in_20_ms)
    async with calling(server, contract=DETECTION) as client:
        server.crash()
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(client.call, task(str(number)))
            await trio.sleep(0.05)
            assert not client.statistics()[0].healthy
            server.restart()
        assert client.statistics()[0].connection_failures >= 8


@CONTRACTS
async def test_one_that_closes_every_connection_fails_every_call(
    autojump_clock: MockClock, contract: Contract[DetectionTask, DetectionResult]
) -> None:
    server = FakeServer("a")
    server.closes = 10**6
    failed = 0
    async with calling(server, contract=contract, connect_attempts=3) as client:

        async def fails(number: int) -> None:
            nonlocal failed
            with pytest.raises(AttemptsFailedError, match="closed the connection"):
                await client.call(task(str(number)), timeout=10)
            failed += 1

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(fails, number)
        assert failed == 8
        assert trio.current_time() < 5
        assert client.statistics()[0].breaker.state is BreakerState.OPEN


# --- A connection that is opened is the pool's --------------------------------------------------------------


async def test_what_is_opened_for_a_call_that_leaves_goes_to_the_next(autojump_clock: MockClock) -> None:
    server = FakeServer("a")
    may_connect = trio.Event()
    server.connecting = may_connect.wait
    async with calling(server, max_connections_per_endpoint=1) as client, trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            nursery.start_soon(client.call, task("2"))
            await client.call(task("1"))
        assert len(openings_of(client)) == 1
        may_connect.set()
    assert server.tries == 1
    assert set(server.asked) <= {"1", "2"}
    assert "2" in server.asked


async def test_what_is_opened_for_nobody_any_longer_is_given_up_at_once(autojump_clock: MockClock) -> None:
    server = FakeServer("a", accept_timeout_ms=100_000)
    server.connecting = trio.sleep_forever
    async with calling(server) as client:
        with trio.move_on_after(1):
            await client.call(task("1"))
        assert client.metrics().connection_failures_total == 1
        await wait_all_tasks_blocked()
        assert not openings_of(client)
        assert client._pool._lanes.taken == 0


async def test_who_waits_for_what_is_opened_does_not_fear_for_its_place_but_who_queues_does(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a", accept_timeout_ms=100_000)
    server.connecting = trio.sleep_forever
    settings: dict[str, Any] = {"max_connections_per_endpoint": 1, "pool_timeout_ms": 1_000}
    async with calling(server, **settings) as client, trio.open_nursery() as nursery:

        async def connects() -> None:
            with pytest.raises(CallTimeoutError, match=f"it was connecting to {A}"):
                await client.call(task("1"), timeout=3)

        nursery.start_soon(connects)
        await wait_all_tasks_blocked()
        with pytest.raises(PoolTimeoutError, match="in use are 1 of 1 to this endpoint"):
            await client.call(task("2"), timeout=3)
        assert trio.current_time() == pytest.approx(1)
