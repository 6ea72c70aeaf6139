"""What a caller can do to the client: leave at any moment, and take endpoints away and give them back."""

from __future__ import annotations

import math
import random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import succeed, success, task
from trio_ipc import Call, Contract, IpcError
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.errors import CallTimeoutError

from .support import (
    PLAIN,
    UNREPEATABLE,
    DetectionResilientClient,
    FakeServer,
    calling,
    connections_of,
    nothing_is_left_behind,
    open_breaker,
    world_of,
)

CONTRACTS = pytest.mark.parametrize("contract", [PLAIN, UNREPEATABLE, DETECTION], ids=lambda one: one.name)
SHARING = pytest.mark.parametrize("max_in_flight", [1, 3])


async def four_calls_cancelled(client: DetectionResilientClient, steps: int) -> None:
    """Cancel them, by a scope around their nursery, after so many passes of the scheduler."""

    async def cancel(scope: trio.CancelScope) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel, nursery.cancel_scope)
        for number in range(4):
            nursery.start_soon(client.call, task(str(number)))
    await wait_all_tasks_blocked()


@SHARING
@CONTRACTS
@pytest.mark.parametrize("state", ["cold", "warm", "dropped", "short of places", "half open"])
async def test_calls_cancelled_at_any_step_leave_nothing_behind_and_blame_nobody(
    autojump_clock: MockClock,
    contract: Contract[DetectionTask, DetectionResult],
    max_in_flight: int,
    state: str,
) -> None:
    for steps in range(40):
        a, b = FakeServer("a"), FakeServer("b")
        async with calling(
            a,
            b,
            contract=contract,
            max_in_flight=max_in_flight,
            max_connections_per_endpoint=1,
            max_connections=1 if state == "short of places" else 2,
        ) as client:
            failures = 0
            if state in {"warm", "dropped"}:
                await client.call(task("w1"))
                await client.call(task("w2"))
            if state == "dropped":
                a.drop_connections()
            if state == "half open":
                open_breaker(client, "a")
                failures = 5
                await trio.sleep(30)
            await four_calls_cancelled(client, steps)
            nothing_is_left_behind(client)
            assert [one.failures for one in client.statistics()] == [failures, 0]
            for number in range(4):
                name = f"after-{number}"
                assert await client.call(task(name), timeout=1) == success(name)


async def test_endpoints_may_come_and_go_while_the_users_own_function_is_asked(
    autojump_clock: MockClock,
) -> None:
    a, b = FakeServer("a"), FakeServer("b")
    async with calling(a, b, contract=DETECTION) as client:
        await client.call(task("1"))
        await client.call(task("2"))

        def fickle(_: object) -> bool:
            for one in a, b:
                if one.name in client._upstreams:
                    client.remove_endpoint(one.name)
                else:
                    client.add_endpoint(one.endpoint())
            return True

        assert await client.call(task("3"), needs=fickle) == success("3")
        await wait_all_tasks_blocked()
        nothing_is_left_behind(client)


async def test_a_call_that_has_no_time_at_all_ends_at_once_and_blames_nobody(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a")
    async with calling(server) as client:
        with pytest.raises(CallTimeoutError, match="timeout of 0 ms; it was choosing an endpoint"):
            await client.call(task(), timeout=0)
        assert (server.tries, client.statistics()[0].failures) == (0, 0)
        nothing_is_left_behind(client)


class Load:
    """Twelve callers, under whom endpoints come and go."""

    def __init__(
        self, client: DetectionResilientClient, servers: list[FakeServer], chance: random.Random
    ) -> None:
        self.client = client
        self.servers = servers
        self.chance = chance
        self.answered = 0

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._come_and_go)
            async with trio.open_nursery() as callers:
                for number in range(12):
                    callers.start_soon(self._call, number)
            nursery.cancel_scope.cancel()

    async def _come_and_go(self) -> None:
        while True:
            await trio.sleep(self.chance.uniform(0, 0.3))
            one = self.chance.choice(self.servers)
            if one.name in {known.endpoint.id for known in self.client.statistics()}:
                self.client.remove_endpoint(one.name)
            else:
                self.client.add_endpoint(one.endpoint(priority=self.chance.randrange(1, 4)))
            if self.chance.random() < 0.2:
                one.drop_connections()

    async def _call(self, number: int) -> None:
        chance = self.chance
        for turn in range(25):
            name, began = f"{number}-{turn}", trio.current_time()
            with trio.move_on_after(chance.uniform(0, 2) if chance.random() < 0.2 else 100):
                try:
                    assert await self.client.call(task(name), timeout=5) == success(name)
                    self.answered += 1
                except IpcError:
                    pass
            assert trio.current_time() - began <= 5 + 1e-6
            await trio.sleep(chance.choice([0, 0.05, 0.2]))


@SHARING
@CONTRACTS
@pytest.mark.parametrize("seed", range(3))
async def test_endpoints_come_and_go_under_load_and_the_limits_hold(
    autojump_clock: MockClock,
    contract: Contract[DetectionTask, DetectionResult],
    max_in_flight: int,
    seed: int,
) -> None:
    chance = random.Random(seed)

    async def work(task: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep(chance.choice([0, 0.01, 0.1, 0.5, math.inf if chance.random() < 0.2 else 0]))
        return success(task.task_id)

    servers = [FakeServer(name, work, read_timeout_ms=2_000) for name in "abcd"]
    async with calling(
        *servers,
        contract=contract,
        max_in_flight=max_in_flight,
        max_connections=5,
        max_connections_per_endpoint=2,
        breaker_reset_ms=1_000,
        pool_timeout_ms=3_000,
        capabilities_refresh_ms=2_000,
    ) as client:
        load = Load(client, servers, chance)
        await load.run()
        assert load.answered > 30, "a load of which nothing is answered shows nothing"
        world = world_of(client)
        assert world.connections.most <= 5
        assert all(one.connections.most <= 2 for one in servers)
        for one in servers:
            one.handler = succeed
            if one.name not in client._upstreams:
                client.add_endpoint(one.endpoint())
        await trio.sleep(30.123)  # not when a refresh is due, which would be in flight
        nothing_is_left_behind(client)
        assert not any(one.upstream.removed for one in connections_of(client))
        for number in range(8):
            assert await client.call(task(f"after-{number}"), timeout=3) == success(f"after-{number}")
