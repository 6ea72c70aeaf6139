"""One server as the client knows it: when it counts as well, and when not."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from tests.support import IN_MEMORY, task
from trio_ipc import IpcConfig
from trio_ipc.resilient import Endpoint, ResilientConfig, Strategy
from trio_ipc.resilient.endpoints import Upstream

from .support import FakeServer, calling

BEGAN = 1_000.0


@pytest.fixture
def told() -> list[Upstream]:
    """Whom the client was told of, as not being well."""
    return []


@pytest.fixture
def upstream(told: list[Upstream]) -> Upstream:
    settings = ResilientConfig(breaker_reset_ms=30_000)
    endpoint = Endpoint(IpcConfig(endpoint_path=IN_MEMORY))
    return Upstream(endpoint, settings, on_open=lambda: None, on_failure=told.append)


async def test_one_of_which_nothing_is_known_is_healthy(upstream: Upstream) -> None:
    assert upstream.is_healthy(BEGAN)
    assert upstream.is_healthy(-BEGAN), "whatever the clock says"
    said = upstream.statistics(active=0, pooled=0, stale=False, strategy=Strategy.ROUND_ROBIN)
    assert (said.healthy, said.last_success, said.last_failure) == (True, None, None)


async def test_one_that_failed_is_unhealthy_for_breaker_reset_ms_and_no_longer(
    upstream: Upstream, told: list[Upstream], mock_clock: MockClock
) -> None:
    mock_clock.jump(BEGAN)
    upstream.failed()
    assert told == [upstream]
    assert upstream.last_failure == BEGAN
    assert not upstream.is_healthy(BEGAN)
    assert not upstream.is_healthy(BEGAN + 29.999)
    assert upstream.is_healthy(BEGAN + 30)
    said = upstream.statistics(active=2, pooled=1, stale=True, strategy=Strategy.ROUND_ROBIN)
    assert (said.healthy, said.last_failure) == (False, BEGAN)
    assert (said.connections_active, said.connections_pooled, said.capabilities_stale) == (2, 1, True)
    mock_clock.jump(30)
    assert upstream.statistics(active=0, pooled=0, stale=False, strategy=Strategy.ROUND_ROBIN).healthy


async def test_one_that_failed_and_then_answered_is_healthy_at_once(
    upstream: Upstream, mock_clock: MockClock
) -> None:
    mock_clock.jump(BEGAN)
    upstream.failed()
    upstream.succeeded(BEGAN)
    assert upstream.is_healthy(BEGAN)
    assert upstream.last_success == BEGAN
    assert upstream.statistics(active=0, pooled=0, stale=False, strategy=Strategy.ROUND_ROBIN).healthy


async def test_so_it_is_for_a_client_whose_call_it_has_answered(autojump_clock: MockClock) -> None:
    a, b = FakeServer("a"), FakeServer("b")
    async with calling(a, b) as client:
        a.crash()
        assert (await client.ask(task("1"))).endpoint_id == "b"
        assert [one.healthy for one in client.statistics()] == [False, True]
        a.restart()
        b.crash()
        assert (await client.ask(task("2"))).endpoint_id == "a"
        assert [one.healthy for one in client.statistics()] == [True, False]
        assert autojump_clock.current_time() == 0


async def test_one_that_was_lost_may_be_another_by_now(upstream: Upstream, mock_clock: MockClock) -> None:
    mock_clock.jump(BEGAN)
    upstream.learned("much", question=1, process=7)
    upstream.places_proven = 3
    assert (upstream.capabilities, upstream.capabilities_at, upstream.asks_anew) == ("much", BEGAN, False)
    assert upstream.news.is_set()
    upstream.failed()
    assert upstream.asks_anew
    assert upstream.places_proven == 0
    assert upstream.capabilities == "much", "believed until another answer"
    upstream.learned("less", question=2, process=8)
    assert (upstream.capabilities, upstream.asks_anew) == ("less", False)
    upstream.learned("much", question=1, process=7)
    assert (upstream.capabilities, upstream.told_by) == ("less", 8), "an earlier question was answered late"
