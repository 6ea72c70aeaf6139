"""What an operator does with a client: asks one endpoint, looks after it, gives it another priority."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.resilient.able import NETWORK, NETWORK_TASK, PROCESS, Able
from tests.support import hang, success, task
from trio_ipc.daemoneye import (
    DETECTION,
    Capabilities,
)
from trio_ipc.errors import (
    AttemptsFailedError,
    CircuitOpenError,
    ConfigError,
    IpcError,
    NoEndpointError,
    ServerRefusedError,
)
from trio_ipc.resilient import Endpoint, Strategy

from .support import A, DetectionResilientClient, FakeServer, calling, nothing_is_left_behind, open_breaker

# --- One endpoint is asked ----------------------------------------------------------------------------------


async def test_a_call_may_name_its_endpoint_whoevers_turn_it_is(autojump_clock: MockClock) -> None:
    a, b = FakeServer("a"), FakeServer("b")
    async with calling(a, b) as client:
        for number in range(4):
            assert (await client.ask(task(str(number)), endpoint="b")).endpoint_id == "b"
        assert await client.call(task("5"), endpoint="a") == success("5")
        assert (a.asked, b.asked) == (["5"], ["0", "1", "2", "3"])


async def test_where_that_one_fails_nobody_else_is_asked(autojump_clock: MockClock) -> None:
    a, b = FakeServer("a"), FakeServer("b")
    async with calling(a, b, connect_attempts=3) as client:
        a.crash()
        with pytest.raises(AttemptsFailedError, match="no server answered, 3 attempts failed") as caught:
            await client.call(task("1"), endpoint="a")
        assert {type(error) for error in caught.value.attempts} == {ServerRefusedError}
        assert caught.value.endpoint == A
        assert (a.tries, b.asked) == (3, [])
        a.restart()
        assert await client.call(task("2"), endpoint="a") == success("2"), "though it is thought to be unwell"


async def test_what_that_one_cannot_do_it_refuses_and_what_it_lacks_is_an_error(
    autojump_clock: MockClock,
) -> None:
    a, b = Able("a", PROCESS), Able("b", PROCESS, NETWORK)
    async with calling(a, b, contract=DETECTION) as client:
        for _ in range(2):
            answer = await client.ask(NETWORK_TASK, endpoint="a")
            assert answer.response.error_message == "Network monitoring not supported"
            assert (await client.call(NETWORK_TASK, endpoint="b")).success
        asked = [*a.asked]
        for _ in range(2):
            with pytest.raises(NoEndpointError, match="the endpoint 'a' has not what the call") as caught:
                await client.call(task(), endpoint="a", needs=lambda capabilities: capabilities.realtime)
            assert caught.value.endpoint == A
        assert a.asked == asked
        nothing_is_left_behind(client)


async def test_what_that_one_lacks_is_learnt_before_it_is_asked(autojump_clock: MockClock) -> None:
    server = Able("a", PROCESS)
    async with calling(server, contract=DETECTION) as client:
        with pytest.raises(NoEndpointError, match="has not what the call needs"):
            await client.call(task("x"), endpoint="a", needs=lambda capabilities: capabilities.realtime)
        assert "x" not in server.asked
        nothing_is_left_behind(client)


async def test_an_open_breaker_keeps_a_call_from_the_endpoint_that_it_names(
    autojump_clock: MockClock,
) -> None:
    a, b = FakeServer("a"), FakeServer("b")
    async with calling(a, b) as client:
        open_breaker(client, "a")
        with pytest.raises(CircuitOpenError) as caught:
            await client.call(task(), endpoint="a")
        assert caught.value.retry_after == pytest.approx(30)
        assert (a.tries, b.tries) == (0, 0)


async def test_an_endpoint_that_is_removed_is_asked_no_more_by_calls_that_wait_for_it(
    autojump_clock: MockClock,
) -> None:
    server, errors = FakeServer("a", hang), list[IpcError]()
    async with calling(server, FakeServer("b"), max_connections_per_endpoint=1) as client:

        async def ask(name: str) -> None:
            try:
                await client.call(task(name), endpoint="a")
            except IpcError as exc:
                errors.append(exc)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "served")
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, "waits")
            await wait_all_tasks_blocked()
            client.remove_endpoint("a")
            await wait_all_tasks_blocked()
            [error] = errors
            assert isinstance(error, NoEndpointError)
            assert str(error).startswith(f"{A}: the endpoint 'a' was removed from this client; add it again")
            server.drop_connections()
        assert len(errors) == 2
        nothing_is_left_behind(client)


async def test_one_that_is_removed_between_two_rounds_is_told_by_what_it_failed_by(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a")
    server.crash()
    async with calling(server) as client, trio.open_nursery() as nursery:

        async def remove() -> None:
            await trio.sleep(0.01)
            client.remove_endpoint("a")

        nursery.start_soon(remove)
        with pytest.raises(ServerRefusedError):
            await client.call(task(), endpoint="a")


# --- It is asked what it can do -----------------------------------------------------------------------------


async def test_negotiate_asks_now_and_its_response_is_gone_by(autojump_clock: MockClock) -> None:
    a, b = Able("a", PROCESS), Able("b", PROCESS)
    async with calling(a, b, contract=DETECTION) as client:
        assert await client.negotiate("a") == Capabilities([PROCESS])
        assert (a.negotiations, b.negotiations, b.tries) == (1, 0, 0)
        a.gate.capabilities = Capabilities([PROCESS, NETWORK])
        assert await client.negotiate("a") == a.gate.capabilities
        assert a.negotiations == 2
        assert (await client.ask(NETWORK_TASK)).endpoint_id in {"a", "b"}
        assert (await client.ask(NETWORK_TASK)).endpoint_id == "a"
        assert client.metrics().tasks_sent_total == 2, "questions are no tasks"
        nothing_is_left_behind(client)


async def test_an_explicit_question_puts_off_the_next_refresh(autojump_clock: MockClock) -> None:
    server = Able("a", PROCESS)
    async with calling(server, contract=DETECTION, idle_timeout_ms=10**9) as client:
        await client.call(task())
        await trio.sleep(200)
        await client.negotiate("a")
        await trio.sleep(200)
        assert server.negotiations == 2
        await trio.sleep(101)
        assert server.negotiations == 3


async def test_one_who_waits_to_ask_takes_the_response_that_was_asked_for_meanwhile(
    autojump_clock: MockClock,
) -> None:
    server, said = Able("a", PROCESS), list[Any]()
    gate = trio.Event()
    server.connecting = gate.wait
    async with calling(server, contract=DETECTION) as client:

        async def negotiate() -> None:
            said.append(await client.negotiate("a"))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(negotiate)
            await wait_all_tasks_blocked()
            gate.set()
        assert said == [server.gate.capabilities] * 4
        assert server.negotiations == 1


async def test_refresh_asks_all_at_the_same_time_and_says_who_could_not_be_asked(
    autojump_clock: MockClock,
) -> None:
    a, gone, hung = Able("a", PROCESS), FakeServer("gone"), FakeServer("hung", hang, read_timeout_ms=5_000)
    gone.crash()
    async with calling(a, gone, hung, contract=DETECTION) as client:
        failures = await client.refresh_capabilities()
        assert {name: type(error).__name__ for name, error in failures.items()} == {
            "gone": "ServerRefusedError",
            "hung": "ReadTimeoutError",
        }
        assert trio.current_time() == pytest.approx(5)
        [said, *others] = client.statistics()
        assert (said.capabilities, said.failures) == (a.gate.capabilities, 0)
        assert [(one.healthy, one.failures) for one in others] == [(False, 1)] * 2
        client.remove_endpoint("gone")
        client.remove_endpoint("hung")
        assert await client.refresh_capabilities() == {}
        assert a.negotiations == 2
        client.remove_endpoint("a")
        assert await client.refresh_capabilities() == {}


async def test_a_removed_endpoint_is_nobodys_failure_to_refresh(autojump_clock: MockClock) -> None:
    async with calling(FakeServer("a", hang), contract=DETECTION) as client, trio.open_nursery() as nursery:
        found: list[dict[str, IpcError]] = []

        async def refresh() -> None:
            found.append(await client.refresh_capabilities(timeout=7))

        nursery.start_soon(refresh)
        await wait_all_tasks_blocked()
        client.remove_endpoint("a")
        await trio.sleep(8)
        assert found == [{}]


@pytest.mark.parametrize(
    "ask", [lambda client: client.negotiate("a"), lambda client: client.refresh_capabilities()]
)
async def test_a_contract_without_a_negotiation_has_nothing_to_ask(
    autojump_clock: MockClock, ask: Callable[[DetectionResilientClient], Awaitable[Any]]
) -> None:
    async with calling(FakeServer("a")) as client:
        with pytest.raises(TypeError, match="the contract plain has no negotiation: there is nothing to ask"):
            await ask(client)


# --- Priorities ---------------------------------------------------------------------------------------------


async def test_a_priority_may_be_changed_while_calls_are_made(autojump_clock: MockClock) -> None:
    a, b = FakeServer("a"), FakeServer("b")
    async with calling(a, b, strategy="priority", priorities=[1, 2]) as client:
        assert (await client.ask(task("1"))).endpoint_id == "a"
        client.set_priority("a", 3)
        assert (await client.ask(task("2"))).endpoint_id == "b"
        assert [(one.id, one.priority) for one in client.endpoints()] == [("a", 3), ("b", 2)]
        assert [one.endpoint for one in client.statistics()] == [*client.endpoints()]
        client.set_priority("a", 1)
        assert (await client.ask(task("3"))).endpoint_id == "a"


@pytest.mark.parametrize("priority", [0, -1, 1.5, True, "1", None])
async def test_a_priority_that_is_none_changes_nothing(autojump_clock: MockClock, priority: Any) -> None:
    async with calling(FakeServer("a"), priorities=[7]) as client:
        with pytest.raises(ConfigError, match=r"priority is .*, must be a whole number of ranks from 1"):
            client.set_priority("a", priority)
        assert (client.endpoints()[0].priority, client._upstreams["a"].priority) == (7, 7)


def test_an_id_is_a_text() -> None:
    with pytest.raises(ConfigError, match="id is 5, must be a str"):
        Endpoint(FakeServer("a").config, id=5)  # type: ignore[arg-type]


# --- What statistics say ------------------------------------------------------------------------------------


async def test_the_score_and_the_strategy_are_in_the_statistics(autojump_clock: MockClock) -> None:
    a, b = FakeServer("a"), FakeServer("b")
    async with calling(a, b, strategy="highest-score", priorities=[2, 4], breaker_reset_ms=5_000) as client:
        assert [one.health_score for one in client.statistics()] == [0.5, 0.25]
        await client.call(task("1"))
        assert client.statistics()[0].health_score == pytest.approx(1)
        await trio.sleep(300)
        assert client.statistics()[0].health_score == pytest.approx(0.5 * (1 + math.exp(-1)))
        a.crash()
        assert (await client.ask(task("2"))).endpoint_id == "b"
        assert client.statistics()[0].health_score == 0, "it is not healthy"
        assert {one.strategy for one in client.statistics()} == {Strategy.HIGHEST_SCORE}


async def test_by_the_highest_score_one_server_has_all_calls_until_it_fails(
    autojump_clock: MockClock,
) -> None:
    a, b, c = FakeServer("a"), FakeServer("b"), FakeServer("c")
    async with calling(a, b, c, strategy="highest-score", breaker_reset_ms=1_000) as client:

        async def asked(count: int) -> set[str]:
            return {(await client.ask(task(str(number)))).endpoint_id for number in range(count)}

        assert await asked(10) == {"a"}
        await trio.sleep(0.1)
        a.crash()
        assert await asked(10) == {"b"}
        a.restart()
        await trio.sleep(2)
        assert await asked(10) == {"b"}, "it answered last"
        client.set_priority("b", 3)
        assert await asked(10) <= {"a", "c"}
