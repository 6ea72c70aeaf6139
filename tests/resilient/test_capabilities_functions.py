"""Users' own functions of a negotiation, and their errors."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.resilient.able import (
    PROCESS,
    Able,
)
from tests.support import hang, task
from trio_ipc.daemoneye import (
    DETECTION,
    Capabilities,
    DetectionResult,
    stated_capabilities,
)
from trio_ipc.errors import ContractError

from .support import calling, openings_of


class OurBugError(Exception):
    pass


class OurPanic(BaseException):
    """What PyO3 makes of a panic in Rust is no Exception."""


def bug(*_: object) -> Any:
    raise OurBugError


def panic(*_: object) -> Any:
    raise OurPanic


BOTH_BUGS = pytest.mark.parametrize(("bug", "error"), [(bug, OurBugError), (panic, OurPanic)])


@BOTH_BUGS
@pytest.mark.parametrize("max_in_flight", [1, 4])
@pytest.mark.parametrize("where", ["needs", "ask", "learn", "can_do", "mismatch"])
async def test_an_error_of_the_users_own_functions_is_the_callers_and_leaves_nothing_behind(
    autojump_clock: MockClock, max_in_flight: int, where: str, bug: Any, error: type[BaseException]
) -> None:
    server = Able("a", PROCESS)
    negotiation: Any = DETECTION.negotiation
    assert negotiation is not None
    contract = DETECTION
    if where == "mismatch":
        contract = attrs.evolve(DETECTION, mismatch=bug)
    elif where != "needs":
        contract = attrs.evolve(DETECTION, negotiation=attrs.evolve(negotiation, **{where: bug}))
    async with calling(server, contract=contract, max_in_flight=max_in_flight) as client:
        with pytest.raises(error):
            await client.call(task(), needs=bug if where == "needs" else None)
        await wait_all_tasks_blocked()
        assert client.metrics().active_connections_current == 0
        assert not openings_of(client)
        said = client.statistics()[0].breaker
        assert (said.failures, said.probing) == (0, False)


@BOTH_BUGS
async def test_a_server_that_was_not_reached_before_such_an_error_has_failed(
    autojump_clock: MockClock, bug: Any, error: type[BaseException]
) -> None:
    server = Able("a", PROCESS)
    async with calling(server, contract=DETECTION, connect_attempts=2) as client:
        await client.call(task())
        server.crash()
        looks = iter([lambda: True, bug])
        with pytest.raises(error):
            await client.call(task(), needs=lambda _: next(looks)())
        assert client.statistics()[0].failures == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("max_in_flight", [1, 4])
@pytest.mark.parametrize(
    ("where", "value"),
    [
        *((where, value) for where in ("needs", "ask", "can_do", "repeatable") for value in (1, None)),
        ("mismatch", 1),
        *((where, "coroutine") for where in ("needs", "ask", "learn", "can_do", "mismatch", "repeatable")),
    ],
)
async def test_what_the_users_own_functions_must_not_return_is_the_callers_error_and_no_servers(
    autojump_clock: MockClock, max_in_flight: int, where: str, value: object
) -> None:
    async def later() -> None:
        raise AssertionError("nobody awaits it")

    def returns(*_: object) -> Any:
        return later() if value == "coroutine" else value

    strange: Any = returns
    server, other = Able("a", PROCESS), Able("b", PROCESS)
    negotiation: Any = DETECTION.negotiation
    contract = DETECTION
    if where in {"mismatch", "repeatable"}:
        contract = attrs.evolve(DETECTION, **{where: strange})
    elif where != "needs":
        contract = attrs.evolve(DETECTION, negotiation=attrs.evolve(negotiation, **{where: strange}))
    async with calling(server, other, contract=contract, max_in_flight=max_in_flight) as client:
        with pytest.raises(TypeError, match=f"{where} .*returned ") as caught:
            await client.call(task(), needs=strange if where == "needs" else None)
        if where != "needs":
            assert isinstance(caught.value, ContractError)
            assert f"the contract {DETECTION.name}" in str(caught.value)
        await wait_all_tasks_blocked()
        assert client.metrics().active_connections_current == 0
        assert not openings_of(client)
        for found in client.statistics():
            assert (found.healthy, found.failures, found.breaker.probing) == (True, 0, False)
        assert len(server.worked + other.worked) <= 1  # it is not asked again


async def test_what_is_no_ordinary_function_is_refused_as_a_need(autojump_clock: MockClock) -> None:
    async def later(_: object) -> bool:
        raise AssertionError("nobody awaits it")

    async with calling(Able("a", PROCESS), contract=DETECTION) as client:
        for wrong in (later, True):
            with pytest.raises(TypeError, match="needs is .*, must be a function that is not async, or None"):
                await client.call(task(), needs=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("function", ["ask", "learn"])
async def test_a_refresh_that_meets_what_they_must_not_return_is_logged_and_the_client_goes_on(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, function: str
) -> None:
    server, asked = Able("a", PROCESS), 0
    negotiation = DETECTION.negotiation
    assert negotiation is not None
    right = getattr(negotiation, function)

    async def later() -> None:
        raise AssertionError("nobody awaits it")

    def strange(*given: Any) -> Any:
        nonlocal asked
        asked += 1
        return right(*given) if asked == 1 else later()

    contract = attrs.evolve(DETECTION, negotiation=attrs.evolve(negotiation, **{function: strange}))
    async with calling(server, contract=contract, idle_timeout_ms=10_000_000) as client:
        await client.call(task("1"))
        await trio.sleep(301)
        assert asked == 2
        assert (await client.call(task("2"))).success
    assert f"{function} of the contract {contract.name} returned coroutine" in caplog.text


@pytest.mark.parametrize("error", [OurBugError, OurPanic])
async def test_an_error_of_the_negotiations_own_functions_does_not_end_the_client(
    autojump_clock: MockClock, error: type[BaseException]
) -> None:
    server = Able("a", PROCESS)
    asked = 0

    def learn(result: DetectionResult) -> Capabilities:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise error
        return stated_capabilities(result)

    assert DETECTION.negotiation is not None
    contract = attrs.evolve(DETECTION, negotiation=attrs.evolve(DETECTION.negotiation, learn=learn))
    async with calling(server, contract=contract, idle_timeout_ms=10_000_000) as client:
        await client.call(task("1"))
        await trio.sleep(301)
        assert asked == 2
        assert (await client.call(task("2"))).success


async def test_the_client_lives_on_when_it_is_closed_in_the_middle_of_a_refresh(
    autojump_clock: MockClock,
) -> None:
    server = Able("a", PROCESS)
    async with calling(server, contract=DETECTION, idle_timeout_ms=10_000_000) as client:
        await client.call(task())
        server.handler = hang
        await trio.sleep(301)
        await wait_all_tasks_blocked()
        assert client.metrics().active_connections_current == 1


@pytest.mark.parametrize("what", ["refresh_capabilities", "wait_until_healthy", "check_health", "negotiate"])
async def test_a_panic_of_the_negotiations_own_functions_is_the_operators_and_comes_plain(
    autojump_clock: MockClock, what: str
) -> None:
    assert DETECTION.negotiation is not None
    contract = attrs.evolve(
        DETECTION, negotiation=attrs.evolve(DETECTION.negotiation, ask=panic, probe=panic)
    )
    async with calling(Able("a", PROCESS), contract=contract) as client:
        arguments = ("a",) if what in {"check_health", "negotiate"} else ()
        with pytest.raises(OurPanic):
            await getattr(client, what)(*arguments)
        await wait_all_tasks_blocked()
        assert not openings_of(client)
