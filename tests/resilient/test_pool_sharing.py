"""The pool: connections that calls share, and which connection a call gets."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.resilient.pooled import call_in_order, gated
from tests.support import success, task
from trio_ipc import PeerClosedError
from trio_ipc.errors import CallTimeoutError

from .support import (
    UNREPEATABLE,
    A,
    DetectionResilientClient,
    FakeServer,
    calling,
    connections_of,
    lanes_of,
)

# --- Sharing ------------------------------------------------------------------------------------------------


SHARED: dict[str, Any] = {"max_connections_per_endpoint": 1, "max_in_flight": 3}


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
async def test_when_the_last_caller_has_left_a_shared_connection_is_closed(
    autojump_clock: MockClock, order: tuple[int, int]
) -> None:
    """The next call is not behind responses that nobody waits for."""
    scopes = {number: trio.CancelScope() for number in order}

    async def leave(client: DetectionResilientClient, number: int) -> None:
        with scopes[number]:
            await client.call(task(str(number)))

    async with gated(**SHARED) as (gate, server, client), trio.open_nursery() as nursery:
        for number in 1, 2:
            nursery.start_soon(leave, client, number)
            await wait_all_tasks_blocked()
        scopes[order[0]].cancel()
        await wait_all_tasks_blocked()
        assert server.connections.now == 1, "there is one who waits"
        scopes[order[1]].cancel()
        await wait_all_tasks_blocked()
        assert server.connections.now == 0
        assert client.metrics().active_connections_current == 0
        [said] = client.statistics()
        assert (said.healthy, said.failures) == (True, 0), "which was not its fault"
        gate.open("next")
        assert await client.call(task("next"), timeout=1) == success("next")


async def test_a_shared_connection_is_closed_when_only_they_are_left_who_have_left(
    autojump_clock: MockClock,
) -> None:
    async with gated(**SHARED) as (gate, server, client), trio.open_nursery() as nursery:
        await call_in_order(nursery, client, "stays")
        with trio.move_on_after(1):
            await client.call(task("leaves"))
        gate.open("stays")
        await wait_all_tasks_blocked()
        assert server.connections.now == 0


async def test_a_shared_connection_is_not_closed_under_who_was_just_given_a_share(
    autojump_clock: MockClock,
) -> None:
    scope = trio.CancelScope()
    settings: dict[str, Any] = {**SHARED, "max_in_flight": 2, "contract": UNREPEATABLE}
    async with gated(**settings) as (gate, server, client), trio.open_nursery() as nursery:

        async def leave() -> None:
            with scope:
                await client.call(task("leaves"))

        await call_in_order(nursery, client, "1")
        nursery.start_soon(leave)
        await wait_all_tasks_blocked()
        await call_in_order(nursery, client, "waits for a share")
        release = client._pool.release

        def release_and_cancel(connection: Any, now: float, *, used: bool = True) -> None:
            release(
                connection, now, used=used
            )  # it gives the share, of which the waiter hears when its task runs
            scope.cancel()

        client._pool.release = release_and_cancel  # type: ignore[method-assign]
        gate.open("1", "leaves", "waits for a share")
    assert server.connections.total == 1


async def test_a_shared_connection_that_cannot_be_written_to_is_given_to_nobody(
    autojump_clock: MockClock,
) -> None:
    async with gated(max_connections_per_endpoint=2, max_in_flight=3) as (gate, server, client):
        async with trio.open_nursery() as nursery:
            await call_in_order(nursery, client, "1", "2")
            for connection in connections_of(client):
                connection._line._writing_ended_by = PeerClosedError("EPIPE")  # type: ignore[attr-defined]
            with pytest.raises(CallTimeoutError, match=f"waiting for a connection to {A}"):
                await client.call(task("3"), timeout=1)
            gate.open("1", "2", "4")
        await wait_all_tasks_blocked()
        assert await client.call(task("4")) == success("4")
        assert server.connections.total == 3


# --- Which connection ---------------------------------------------------------------------------------------


async def test_the_connection_used_last_is_used_first(autojump_clock: MockClock) -> None:
    async with gated() as (gate, server, client):
        async with trio.open_nursery() as nursery:
            await call_in_order(nursery, client, "1", "2", "3")
            for name in "2", "3", "1":
                gate.open(name)
                await wait_all_tasks_blocked()
        [lane] = lanes_of(client)
        first = lane.idle[-1]
        await trio.sleep(1)
        gate.open("4")
        await client.call(task("4"))
        assert first.idle_since == 1
        assert [c.idle_since for c in lane.idle] == [0, 0, 1]
    assert server.connections.total == 3


async def test_a_connection_that_the_server_closed_is_noticed_before_it_is_handed_out(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a")
    async with calling(server) as client:
        await client.call(task("1"))
        assert client.metrics().pooled_connections_current == 1
        server.drop_connections()
        assert client.metrics().pooled_connections_current == 0, "though nobody has looked for it yet"
        assert client.statistics()[0].connections_pooled == 0
        answer = await client.ask(task("2"))
        assert answer.attempts == ()
        assert server.connections.total == 2
        assert client.statistics()[0].failures == 0


async def test_a_connection_on_which_something_came_unsolicited_is_not_used_again(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a")
    async with calling(server) as client:
        await client.call(task("1"))
        [channel] = server.channels
        await channel.send(success("2").SerializeToString())
        await client.call(task("2"))
        assert server.asked == ["1", "2"], "the unsolicited response was nobody's"
        assert server.connections.total == 2


@pytest.mark.parametrize(("idle", "kept"), [(299, 1), (301, 0)])
async def test_a_connection_is_kept_for_five_minutes_without_use(
    autojump_clock: MockClock, idle: float, kept: int
) -> None:
    server = FakeServer("a", read_timeout_ms=10_000_000)
    async with calling(server) as client:
        await client.call(task("1"))
        await trio.sleep(idle)
        assert server.connections.now == kept, "nobody had to call for that"
        assert client.metrics().pooled_connections_current == kept


async def test_every_idle_connection_is_reaped_in_its_own_time(autojump_clock: MockClock) -> None:
    async with gated(takes_hours=True) as (gate, server, client):
        async with trio.open_nursery() as nursery:
            await call_in_order(nursery, client, "1", "2")
            gate.open("1")
            await trio.sleep(100)
            gate.open("2")
        await trio.sleep(201)
        assert server.connections.now == 1
        await trio.sleep(100)
        assert server.connections.now == 0


async def test_use_keeps_a_connection_but_not_for_longer_than_an_hour(autojump_clock: MockClock) -> None:
    server = FakeServer("a", read_timeout_ms=10_000_000)
    async with calling(server) as client:
        for number in range(12):
            await client.call(task(str(number)))
            await trio.sleep(299)
        assert server.connections.total == 1
        await trio.sleep(13)
        assert trio.current_time() > 3600
        assert server.connections.now == 0


async def test_one_that_comes_back_too_old_is_closed(autojump_clock: MockClock) -> None:
    async with gated(takes_hours=True) as (gate, server, client):
        async with trio.open_nursery() as nursery:
            await call_in_order(nursery, client, "1")
            await trio.sleep(3601)
            gate.open("1")
        await wait_all_tasks_blocked()
        assert server.connections.now == 0


async def test_a_shared_connection_that_is_always_in_use_is_given_up_at_its_age_too(
    autojump_clock: MockClock,
) -> None:
    shared = {"max_in_flight": 9, "max_connections_per_endpoint": 1}
    async with gated(takes_hours=True, **shared) as (gate, server, client):
        async with trio.open_nursery() as nursery:
            await call_in_order(nursery, client, "1", "2")
            await trio.sleep(3601)
            await call_in_order(nursery, client, "3")
            gate.open("1", "2", "3")
        assert server.connections.total == 2
        assert server.connections.most == 1


async def test_removing_an_endpoint_closes_what_is_unused_now_and_what_is_used_then(
    autojump_clock: MockClock,
) -> None:
    async with gated() as (gate, server, client):
        async with trio.open_nursery() as nursery:
            await call_in_order(nursery, client, "1", "2")
            gate.open("1")
            await wait_all_tasks_blocked()
            client.remove_endpoint("a")
            found = client.metrics()
            assert (found.active_connections_current, found.pooled_connections_current) == (1, 0), (
                "what is about to be closed is not kept"
            )
            await wait_all_tasks_blocked()
            assert server.connections.now == 1
            gate.open("2")
        await wait_all_tasks_blocked()
        assert server.connections.now == 0
