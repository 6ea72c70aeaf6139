"""What an operator may hand over by mistake, and a client that is closed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import hang, task
from trio_ipc.daemoneye import DETECTION
from trio_ipc.errors import CallTimeoutError, ChannelClosedError, ContractError, NoEndpointError

from .support import FakeServer, calling, nothing_is_left_behind

ONE: list[Callable[..., Any]] = [
    lambda client, name, **more: client.call(task(), endpoint=name, **more),
    lambda client, name, **more: client.ask(task(), endpoint=name, **more),
    lambda client, name, **more: client.negotiate(name, **more),
    lambda client, name, **more: client.check_health(name, **more),
]
ALL: list[Callable[..., Any]] = [
    *ONE,
    lambda client, _, **more: client.refresh_capabilities(**more),
    lambda client, _, **more: client.wait_until_healthy(**more),
]
IDS = ["call", "ask", "negotiate", "check_health", "refresh_capabilities", "wait_until_healthy"]


@pytest.mark.parametrize("operation", ONE, ids=IDS[:4])
async def test_an_id_that_nobody_has_is_told_with_those_that_there_are(
    autojump_clock: MockClock, operation: Callable[..., Any]
) -> None:
    async with calling(FakeServer("a"), FakeServer("b"), contract=DETECTION) as client:
        with pytest.raises(NoEndpointError, match="there is no endpoint 'x'; there are: a, b"):
            await operation(client, "x")
        for wrong in (5, ["a"], client.endpoints()[0]):
            with pytest.raises(TypeError, match=r"the endpoint is .*, must be the id of one, a str"):
                await operation(client, wrong)
        nothing_is_left_behind(client)
    with pytest.raises(NoEndpointError, match="there is no endpoint 'x'"):
        client.set_priority("x", 1)
    with pytest.raises(TypeError, match="must be the id of one, a str"):
        client.remove_endpoint(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("operation", ALL, ids=IDS)
async def test_a_timeout_that_is_none_is_refused(
    autojump_clock: MockClock, operation: Callable[..., Any]
) -> None:
    async with calling(FakeServer("a"), contract=DETECTION) as client:
        for wrong in (-1, math.nan, -math.inf, 10**400):
            with pytest.raises(ValueError, match=r"timeout is .*, must be "):
                await operation(client, "a", timeout=wrong)
        for strange in ("1", True, [1]):
            with pytest.raises(TypeError, match=r"timeout is .*, must be a number of seconds or None"):
                await operation(client, "a", timeout=strange)
        assert client.metrics().connection_attempts_total == 0


@pytest.mark.parametrize("seconds", [None, math.inf, 5, 0.5])
@pytest.mark.parametrize("operation", ALL, ids=IDS)
async def test_any_other_timeout_will_do(
    autojump_clock: MockClock, operation: Callable[..., Any], seconds: float | None
) -> None:
    async with calling(FakeServer("a"), contract=DETECTION) as client:
        assert await operation(client, "a", timeout=seconds) is not None
        nothing_is_left_behind(client)


@pytest.mark.parametrize("operation", ALL, ids=IDS)
async def test_without_any_time_nothing_is_done(
    autojump_clock: MockClock, operation: Callable[..., Any]
) -> None:
    server = FakeServer("a")
    async with calling(server, contract=DETECTION) as client:
        try:
            said = await operation(client, "a", timeout=0)
        except CallTimeoutError:
            pass
        else:
            error = said.error if hasattr(said, "error") else said["a"]
            assert isinstance(error, CallTimeoutError)
        assert (server.tries, client.statistics()[0].healthy) == (0, True)
        nothing_is_left_behind(client)


@pytest.mark.parametrize("operation", ALL, ids=IDS)
async def test_a_client_that_is_closed_says_so(
    autojump_clock: MockClock, operation: Callable[..., Any]
) -> None:
    async with calling(FakeServer("a"), contract=DETECTION) as client:
        await client.call(task())
    with pytest.raises(ChannelClosedError, match="this client was closed; open a new one"):
        await operation(client, "a")
    assert [one.id for one in client.endpoints()] == ["a"]


@pytest.mark.parametrize("operation", ALL, ids=IDS)
async def test_who_waits_when_it_is_closed_is_told_so(
    autojump_clock: MockClock, operation: Callable[..., Any]
) -> None:
    told: list[BaseException] = []
    async with trio.open_nursery() as nursery:
        async with calling(FakeServer("a", hang), contract=DETECTION) as client:

            async def wait() -> None:
                with pytest.raises(ChannelClosedError, match="this client was closed") as caught:
                    await operation(client, "a")
                told.append(caught.value)

            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
    assert len(told) == 1


@pytest.mark.parametrize("operation", ALL[2:], ids=IDS[2:])
async def test_what_the_contracts_functions_raise_comes_out_as_it_is(
    autojump_clock: MockClock, operation: Callable[..., Any]
) -> None:
    class OurBugError(Exception):
        pass

    def bug() -> Any:
        raise OurBugError

    for made, error in ((bug, OurBugError), (lambda: None, ContractError)):
        negotiation: Any = DETECTION.negotiation
        negotiation = attrs.evolve(negotiation, ask=made, probe=made)
        contract = attrs.evolve(DETECTION, negotiation=negotiation)
        async with calling(FakeServer("a"), FakeServer("b"), contract=contract) as client:
            with pytest.raises(error):
                await operation(client, "a")
            await wait_all_tasks_blocked()
            nothing_is_left_behind(client)
            assert [one.healthy for one in client.statistics()] == [True, True]
