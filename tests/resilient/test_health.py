"""Looking whether servers are well, and waiting until one is."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.resilient.able import NETWORK, PROCESS, Able
from tests.support import hang, serving, succeed, success, task
from trio_ipc import Call, Contract, HealthCheck, IpcConfig
from trio_ipc.daemoneye import (
    DETECTION,
    PROBE_TASK_PREFIX,
    Capabilities,
    DetectionResult,
    DetectionTask,
    is_capability_negotiation,
    is_connection_probe,
)
from trio_ipc.errors import (
    CallTimeoutError,
    CircuitOpenError,
    ContractError,
    NoEndpointError,
    PoolTimeoutError,
    ReadTimeoutError,
    ServerRefusedError,
)
from trio_ipc.resilient import BreakerState, Endpoint, open_resilient_client

from .support import PLAIN, A, FakeServer, calling, nothing_is_left_behind, open_breaker, world_of

NEGOTIATION: Any = DETECTION.negotiation
WITHOUT_HEALTH = attrs.evolve(DETECTION, health=None)
WITHOUT_PROBE = attrs.evolve(WITHOUT_HEALTH, negotiation=attrs.evolve(NEGOTIATION, probe=None))
CONTRACTS = pytest.mark.parametrize(
    "contract",
    [DETECTION, WITHOUT_HEALTH, WITHOUT_PROBE, PLAIN],
    ids=["health", "probe", "question", "connection"],
)


class Noting(FakeServer):
    """A server that keeps what it is asked, by kind."""

    def __init__(self, name: str = "a") -> None:
        super().__init__(name, self.answer, read_timeout_ms=2_000)
        self.kinds: list[str] = []
        self.stuck = False

    async def answer(self, request: DetectionTask, call: Call) -> DetectionResult:
        if self.stuck:
            await trio.sleep_forever()
        probe, question = is_connection_probe(request), is_capability_negotiation(request)
        self.kinds.append("probe" if probe else "question" if question else "task")
        return await succeed(request, call)


# --- A check ------------------------------------------------------------------------------------------------


async def test_without_a_question_for_health_a_check_is_the_cheapest_request_that_there_is(
    autojump_clock: MockClock,
) -> None:
    server = Noting()
    async with calling(server, contract=WITHOUT_HEALTH) as client:
        said = await client.check_health("a")
        assert (said.endpoint_id, said.healthy, said.error) == ("a", True, None)
        assert server.kinds == ["question"], "the connection has shown that it is well"
        assert (await client.check_health("a")).healthy
        assert server.kinds == ["question", "probe"]
        assert server.connections.total == 1
        assert client.metrics().tasks_sent_total == 0
        [told] = client.statistics()
        assert (told.answers, told.failures, told.last_success) == (0, 0, 0)
        nothing_is_left_behind(client)


async def test_without_a_probe_it_is_the_question_and_without_that_a_connection(
    autojump_clock: MockClock,
) -> None:
    for contract, kinds in ((WITHOUT_PROBE, ["question"] * 2), (PLAIN, [])):
        server = Noting()
        async with calling(server, contract=contract) as client:
            for _ in range(2):
                assert (await client.check_health("a")).healthy
            assert (server.kinds, server.connections.total) == (kinds, 1)
            server.drop_connections()
            assert (await client.check_health("a")).healthy
            assert server.connections.total == 2, "a connection that was closed shows nothing"


async def test_a_check_that_is_the_negotiation_does_not_repeat_the_one_that_its_connection_begins_with(
    autojump_clock: MockClock,
) -> None:
    server = Noting()
    async with calling(server, contract=DETECTION) as client:
        assert (await client.check_health("a")).healthy
        assert server.kinds == ["question"], "which may cost it an enumeration"
        assert (await client.check_health("a")).healthy
        assert server.kinds == ["question"] * 2, "what was said earlier does not say how it is now"
        server.drop_connections()
        assert await client.wait_until_healthy() == "a"
        assert server.kinds == ["question"] * 3
        assert server.connections.total == 2
        nothing_is_left_behind(client)


async def test_a_check_that_is_the_negotiation_puts_off_the_next_refresh(autojump_clock: MockClock) -> None:
    server = Able("a", PROCESS)
    async with calling(server, contract=DETECTION, idle_timeout_ms=10**9) as client:
        await client.call(task())
        await trio.sleep(200)
        server.gate.capabilities = Capabilities([PROCESS, NETWORK])
        assert (await client.check_health("a")).healthy
        assert client.statistics()[0].capabilities == server.gate.capabilities
        await trio.sleep(200)
        assert server.negotiations == 2
        await trio.sleep(101)
        assert server.negotiations == 3


async def test_a_negotiation_that_failed_does_not_say_that_a_server_is_well(
    autojump_clock: MockClock,
) -> None:
    async def fail(request: DetectionTask, _: Call) -> DetectionResult:
        return DetectionResult(task_id=request.task_id, error_message="not now")

    async with calling(FakeServer("a", fail), contract=DETECTION) as client:
        said = await client.check_health("a")
        assert (said.healthy, said.error) == (False, None)


def _raising(_: DetectionResult) -> bool:
    raise KeyError("healthy")


def _panicking(_: DetectionResult) -> bool:
    raise BaseException("as PyO3 makes of a panic in Rust")  # noqa: TRY002


@pytest.mark.parametrize(
    ("says_well", "said"),
    [
        (lambda _: None, "returned NoneType"),
        (_raising, r"raised KeyError\('healthy'\)"),
        (_panicking, r"raised BaseException\('as PyO3"),
    ],
    ids=["returns no bool", "raises", "panics"],
)
async def test_what_a_contract_cannot_say_of_a_negotiation_fails_checks_and_no_calls(
    autojump_clock: MockClock, says_well: Any, said: str
) -> None:
    contract = attrs.evolve(DETECTION, health=HealthCheck(ask=NEGOTIATION.ask, says_well=says_well))
    async with calling(FakeServer("a"), contract=contract) as client:
        assert (await client.ask(task("x"))).endpoint_id == "a"
    async with calling(FakeServer("a"), contract=contract) as client:
        for check in (client.check_health("a"), client.wait_until_healthy(5)):
            with pytest.raises(ContractError, match=f"says_well of the contract {contract.name} {said}"):
                await check
        nothing_is_left_behind(client)


async def test_where_frames_are_too_small_to_ask_a_connection_must_do(autojump_clock: MockClock) -> None:
    server = FakeServer("a", max_frame_bytes=20)
    async with calling(server, contract=DETECTION) as client:
        for _ in range(2):
            assert (await client.check_health("a")).healthy
        assert await client.wait_until_healthy() == "a"
        assert (server.asked, server.connections.total) == ([], 1)
        nothing_is_left_behind(client)


@CONTRACTS
async def test_one_that_is_gone_is_not_well_until_it_is_back(
    autojump_clock: MockClock, contract: Contract[DetectionTask, DetectionResult]
) -> None:
    server, other = Noting(), FakeServer("b")
    async with calling(server, other, contract=contract) as client:
        server.crash()
        for _ in range(10):
            said = await client.check_health("a")
            assert (said.healthy, type(said.error)) == (False, ServerRefusedError)
        [told, _] = client.statistics()
        assert (told.healthy, told.failures, told.breaker.state) == (False, 0, BreakerState.CLOSED)
        for number in range(4):
            assert (await client.ask(task(str(number)))).endpoint_id == "b"
        server.restart()
        assert (await client.check_health("a")).healthy
        assert client.statistics()[0].healthy, "at once, though it failed just before"
        nothing_is_left_behind(client)


async def test_one_that_hangs_is_not_well_after_its_own_deadline_or_the_checks(
    autojump_clock: MockClock,
) -> None:
    server = Noting()
    async with calling(server, contract=DETECTION) as client:
        await client.call(task())
        server.stuck = True
        said = await client.check_health("a")
        assert isinstance(said.error, ReadTimeoutError)
        assert said.duration == pytest.approx(2)
        said = await client.check_health("a", timeout=0.5)
        assert isinstance(said.error, CallTimeoutError)
        assert said.duration == pytest.approx(0.5)
        assert not client.statistics()[0].healthy
        nothing_is_left_behind(client)


async def test_an_open_breaker_lets_no_check_through_and_a_half_open_one_counts_it(
    autojump_clock: MockClock,
) -> None:
    server = Noting()
    async with calling(server, contract=DETECTION, breaker_successes=2) as client:
        open_breaker(client, "a")
        said = await client.check_health("a")
        assert isinstance(said.error, CircuitOpenError)
        assert server.tries == 0
        await trio.sleep(30)
        server.crash()
        assert not (await client.check_health("a")).healthy
        assert client.statistics()[0].breaker.state is BreakerState.OPEN
        server.restart()
        await trio.sleep(30)
        for state in (BreakerState.HALF_OPEN, BreakerState.CLOSED):
            assert (await client.check_health("a")).healthy
            assert client.statistics()[0].breaker.state is state
        nothing_is_left_behind(client)


async def test_that_all_connections_are_in_use_says_nothing_about_the_server(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a", hang)
    settings: dict[str, Any] = {"max_connections_per_endpoint": 1, "pool_timeout_ms": 1_000}
    async with calling(server, **settings) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.call, task())
        await wait_all_tasks_blocked()
        said = await client.check_health("a")
        assert (said.healthy, type(said.error)) == (False, PoolTimeoutError)
        assert client.statistics()[0].healthy
        nursery.cancel_scope.cancel()


async def test_one_that_is_removed_meanwhile_is_no_endpoint_any_more(autojump_clock: MockClock) -> None:
    server = FakeServer("a", hang)
    async with calling(server, max_connections_per_endpoint=1) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.call, task())
        await wait_all_tasks_blocked()

        async def check() -> None:
            with pytest.raises(NoEndpointError, match="the endpoint 'a' was removed from this client"):
                await client.check_health("a")

        nursery.start_soon(check)
        await wait_all_tasks_blocked()
        client.remove_endpoint("a")
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("base", [PLAIN, WITHOUT_HEALTH], ids=["no probe", "probe"])
async def test_a_contracts_own_question_for_health_is_asked_whether_there_is_a_probe_or_not(
    autojump_clock: MockClock, base: Contract[DetectionTask, DetectionResult]
) -> None:
    well = False

    async def answer(request: DetectionTask, _: Call) -> DetectionResult:
        return DetectionResult(task_id=request.task_id, success=well)

    health: Any = HealthCheck(ask=lambda: task("well?"), says_well=lambda response: response.success)
    server = FakeServer("a", answer)
    async with calling(server, contract=attrs.evolve(base, health=health)) as client:
        said = await client.check_health("a")
        assert (said.healthy, said.error, client.statistics()[0].healthy) == (False, None, False)
        with pytest.raises(CallTimeoutError, match="no endpoint was healthy within the timeout of 5000 ms"):
            await client.wait_until_healthy(5)
        well = True
        assert (await client.check_health("a")).healthy
        assert client.statistics()[0].healthy
        assert await client.wait_until_healthy() == "a"
        assert "well?" in server.asked
        assert not any(one.startswith(PROBE_TASK_PREFIX) for one in server.asked)
        nothing_is_left_behind(client)


# --- Waiting ------------------------------------------------------------------------------------------------


async def test_who_waits_goes_on_as_soon_as_one_server_is_there(autojump_clock: MockClock) -> None:
    a, b = Noting("a"), FakeServer("b", hang)
    async with calling(a, b, contract=DETECTION) as client, trio.open_nursery() as nursery:
        a.crash()

        async def start() -> None:
            await trio.sleep(40)
            a.restart()

        nursery.start_soon(start)
        assert await client.wait_until_healthy(100) == "a"
        assert 40 <= trio.current_time() <= 41
        [told, _] = client.statistics()
        assert (told.healthy, told.breaker.activations) == (True, 0), "it is not kept away by the waiting"
        assert (await client.ask(task("x"))).endpoint_id == "a"
        nothing_is_left_behind(client)


@CONTRACTS
async def test_where_one_is_well_nobody_waits(
    autojump_clock: MockClock, contract: Contract[DetectionTask, DetectionResult]
) -> None:
    gone, well = FakeServer("gone"), FakeServer("well")
    async with calling(gone, well, contract=contract) as client:
        gone.crash()
        assert await client.wait_until_healthy() == "well"
        assert trio.current_time() == 0
        nothing_is_left_behind(client)


async def test_where_none_comes_it_is_told_why(autojump_clock: MockClock) -> None:
    gone, hung = FakeServer("a"), FakeServer("b", hang, read_timeout_ms=2_000)
    async with calling(gone, hung, contract=DETECTION) as client:
        gone.crash()
        with pytest.raises(CallTimeoutError) as caught:
            await client.wait_until_healthy(9)
        assert trio.current_time() == pytest.approx(9)
        assert {type(one) for one in caught.value.attempts} == {ServerRefusedError, ReadTimeoutError}
        assert str(caught.value).startswith("no endpoint was healthy within the timeout of 9000 ms: ")
        assert f"{A}: connection refused" in str(caught.value)
        nothing_is_left_behind(client)


async def test_who_waits_sees_endpoints_come_and_go(autojump_clock: MockClock) -> None:
    gone, late = FakeServer("gone"), FakeServer("late")
    async with calling(gone, contract=DETECTION) as client, trio.open_nursery() as nursery:
        gone.crash()
        world_of(client).add(late)
        await nursery.start(late.serve)

        async def come_and_go() -> None:
            await trio.sleep(5)
            client.remove_endpoint("gone")
            await trio.sleep(5)
            client.add_endpoint(late.endpoint())

        nursery.start_soon(come_and_go)
        assert await client.wait_until_healthy(math.inf) == "late"
        assert 10 <= trio.current_time() <= 11
        nursery.cancel_scope.cancel()


async def test_a_client_without_endpoints_has_nobody_to_wait_for(autojump_clock: MockClock) -> None:
    async with calling() as client:
        with pytest.raises(NoEndpointError, match="this client has no endpoint to ask; add an endpoint"):
            await client.wait_until_healthy()


async def test_who_waits_for_a_breaker_is_there_when_it_is_half_open(autojump_clock: MockClock) -> None:
    async with calling(FakeServer("a"), contract=DETECTION) as client:
        open_breaker(client, "a")
        assert await client.wait_until_healthy(60) == "a"
        assert trio.current_time() == pytest.approx(30)


async def test_a_real_server_is_waited_for(config: IpcConfig) -> None:
    async with open_resilient_client(DETECTION, [Endpoint(config, id="real")]) as client:
        found, is_there = list[str](), trio.Event()

        async def wait() -> None:
            found.append(await client.wait_until_healthy(60))
            is_there.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            with trio.fail_after(60):
                while not client.statistics()[0].connection_failures:
                    await trio.lowlevel.checkpoint()
            async with serving(succeed, config):
                with trio.fail_after(60):
                    await is_there.wait()
                assert await client.call(task()) == success()
        assert found == ["real"]
