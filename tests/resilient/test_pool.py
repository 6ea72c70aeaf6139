"""The pool, by the client that uses it and by its own methods."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.resilient.pooled import Gate, call_in_order, gated
from tests.support import hang, task
from trio_ipc import ChannelClosedError
from trio_ipc.errors import CallTimeoutError, PoolTimeoutError
from trio_ipc.resilient import ResilientConfig, open_resilient_client
from trio_ipc.resilient.connection import Connection
from trio_ipc.resilient.lanes import Lane, Opening

from .support import (
    PLAIN,
    A,
    B,
    FakeServer,
    Servers,
    calling,
    connections_of,
    openings_of,
    waiters_of,
    world_of,
)

# --- Limits -------------------------------------------------------------------------------------------------


async def test_no_more_than_four_connections_go_to_one_endpoint_while_they_are_in_use(
    autojump_clock: MockClock,
) -> None:
    async with gated() as (gate, server, client), trio.open_nursery() as nursery:
        names = [str(number) for number in range(10)]
        await call_in_order(nursery, client, *names)
        assert len(gate.working) == 4
        assert client.metrics().active_connections_current == 4
        gate.open(*names)
    assert (server.connections.most, server.connections.total) == (4, 4)


async def test_the_limit_over_all_endpoints_holds_while_connections_are_in_use(
    autojump_clock: MockClock,
) -> None:
    gates = [Gate() for _ in range(3)]
    servers = [FakeServer(name, gate) for name, gate in zip("abc", gates, strict=True)]
    async with calling(*servers, max_connections=5) as client, trio.open_nursery() as nursery:
        names = [str(number) for number in range(12)]
        await call_in_order(nursery, client, *names)
        assert sum(len(gate.working) for gate in gates) == 5
        assert sum(server.connections.now for server in servers) == 5
        for gate in gates:
            gate.open(*names)


async def test_connections_being_opened_count(autojump_clock: MockClock) -> None:
    server = FakeServer("a")
    server.connecting = trio.sleep_forever
    async with calling(server) as client, trio.open_nursery() as nursery:
        for number in range(9):
            nursery.start_soon(client.call, task(str(number)))
        await wait_all_tasks_blocked()
        assert server.tries == 4
        assert client.metrics().connection_attempts_total == 4
        nursery.cancel_scope.cancel()


async def test_an_unused_connection_makes_room_for_one_to_another_endpoint(
    autojump_clock: MockClock,
) -> None:
    a, b = FakeServer("a"), FakeServer("b")
    async with calling(a, b, max_connections=1, strategy="priority", priorities=[1, 2]) as client:
        await client.call(task("1"))
        client._upstreams["a"].failed()
        await client.call(task("2"))
        assert (a.asked, b.asked) == (["1"], ["2"])
        assert (a.connections.now, b.connections.now) == (0, 1)
        assert client.metrics().pooled_connections_current == 1


# --- Waiting ------------------------------------------------------------------------------------------------


async def test_who_waits_is_served_in_order(autojump_clock: MockClock) -> None:
    async with (
        gated(max_connections_per_endpoint=1) as (gate, _, client),
        trio.open_nursery() as nursery,
    ):
        done: list[str] = []
        names = [str(number) for number in range(8)]
        await call_in_order(nursery, client, *names, done=done)
        for name in names:
            assert gate.working == {name}
            gate.open(name)
            await wait_all_tasks_blocked()
        assert done == names


async def test_a_newcomer_does_not_overtake_those_who_wait(autojump_clock: MockClock) -> None:
    async with gated(max_connections_per_endpoint=1) as (gate, server, client):
        async with trio.open_nursery() as nursery:
            await call_in_order(nursery, client, "first", "second")
            gate.open("first", "second", "newcomer")

            async def newcomer() -> None:
                while "second" not in server.asked:
                    await trio.lowlevel.checkpoint()
                    if server.asked == ["first"] and not gate.working:
                        break  # the connection is free this very moment
                await client.call(task("newcomer"))

            nursery.start_soon(newcomer)
        assert server.asked == ["first", "second", "newcomer"]


async def test_who_waits_for_one_endpoint_does_not_hold_up_others(autojump_clock: MockClock) -> None:
    a, b = FakeServer("a", hang), FakeServer("b")
    async with calling(a, max_connections_per_endpoint=1) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.call, task("1"))
        await wait_all_tasks_blocked()
        nursery.start_soon(client.call, task("waits"))
        await wait_all_tasks_blocked()
        world_of(client).add(b)
        await nursery.start(b.serve)
        client.remove_endpoint("a")
        client.add_endpoint(b.endpoint())
        await client.call(task("2"))
        assert "2" in b.asked
        nursery.cancel_scope.cancel()


async def test_waiting_for_a_connection_has_a_deadline_that_tells_the_limits(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a", hang, read_timeout_ms=100_000)
    async with calling(server, max_connections_per_endpoint=1, pool_timeout_ms=3_000) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, task("1"))
            await wait_all_tasks_blocked()
            with pytest.raises(
                PoolTimeoutError, match="pool_timeout_ms is 3000; in use are 1 of 1 .* and 1 of 16 in all"
            ):
                await client.call(task("2"))
            assert trio.current_time() == pytest.approx(3)
            assert client.statistics()[0].failures == 0, "it is the client that was short"
            nursery.cancel_scope.cancel()


async def test_the_calls_own_deadline_holds_while_it_waits_and_blames_nobody(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a", hang, read_timeout_ms=100_000)
    async with calling(server, max_connections_per_endpoint=1) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, task("1"))
            await wait_all_tasks_blocked()
            with pytest.raises(
                CallTimeoutError,
                match=f"^{A}: .*2000 ms; it was waiting for a connection to {A}; make fewer calls at a time",
            ):
                await client.call(task("2"), timeout=2)
            assert trio.current_time() == pytest.approx(2)
            assert client.statistics()[0].failures == 0
            nursery.cancel_scope.cancel()


async def test_who_is_refused_keeps_its_place(autojump_clock: MockClock) -> None:
    gate = Gate()
    a, b = FakeServer("a", hang, read_timeout_ms=2_000), FakeServer("b", gate, read_timeout_ms=10**6)
    async with calling(a, b, max_connections_per_endpoint=1) as client, trio.open_nursery() as nursery:
        # By turns: the third and the fifth wait for a, the fourth for b.
        await call_in_order(nursery, client, "1 at a", "2 at b", "3 at a", "4 at b", "5 at a")
        await trio.sleep(2)  # a fails, and those who waited for it go to b
        await wait_all_tasks_blocked()
        names = ["2 at b", "3 at a", "4 at b", "5 at a", "1 at a"]
        for name in names:
            gate.open(name)
            await wait_all_tasks_blocked()
    assert b.asked == names, "who had its turn at a comes last"


async def test_who_is_refused_or_goes_on_to_another_gets_no_more_time(autojump_clock: MockClock) -> None:
    a, b = (FakeServer(name, hang, read_timeout_ms=10**6) for name in "ab")
    settings: dict[str, Any] = {"max_connections_per_endpoint": 1, "pool_timeout_ms": 5_000}
    async with calling(a, b, **settings) as client, trio.open_nursery() as nursery:
        await call_in_order(nursery, client, "1", "2")

        async def send_elsewhere() -> None:
            await trio.sleep(3)
            client._upstreams["a"].failed()

        nursery.start_soon(send_elsewhere)
        with pytest.raises(PoolTimeoutError, match=f"to any of 2 endpoints: {B}: .*; {A}: ") as caught:
            await client.call(task("waits"))
        assert trio.current_time() == pytest.approx(5)
        assert [error.endpoint for error in caught.value.attempts] == [B, A]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("first", ["served", "cancelled"])
@pytest.mark.parametrize("given", ["connection", "opening", "opening with a victim"])
async def test_a_waiter_cancelled_at_the_moment_it_is_served_loses_nothing(
    autojump_clock: MockClock, given: str, first: str
) -> None:
    gate = Gate()
    a, b = FakeServer("a", gate), FakeServer("b", gate)
    servers = [a] if given == "opening" else [a, b]
    ranks = [1, 2][: len(servers)]
    async with calling(*servers, priorities=ranks, max_connections=1, strategy="priority") as client:
        pool = client._pool
        leaver = trio.CancelScope()

        async def leave() -> None:
            with leaver:
                await client.call(task("leaver"))

        async with trio.open_nursery() as nursery:
            await call_in_order(nursery, client, "holder")
            if given == "opening with a victim":
                client._upstreams["a"].failed()  # so that the leaver waits for b
            nursery.start_soon(leave)
            await wait_all_tasks_blocked()
            [waiter] = waiters_of(client)
            serve = pool._serve
            given_to_it: list[Connection | Opening] = []

            def serve_and_cancel(lane: Lane) -> None:
                if first == "cancelled":
                    leaver.cancel()  # takes effect when its task runs, which is after this
                serve(lane)
                if waiter.connection or waiter.opening:
                    given_to_it.extend(filter(None, [waiter.connection, waiter.opening]))
                    leaver.cancel()

            pool._serve = serve_and_cancel  # type: ignore[method-assign]
            if given == "opening":
                a.drop_connections()  # the holder's connection ends, and another one may be opened
            else:
                gate.open("holder")
            await wait_all_tasks_blocked()
            assert leaver.cancelled_caught
            assert isinstance(given_to_it[0], Connection if given == "connection" else Opening)
            has_victim = getattr(given_to_it[0], "victim", None) is not None
            assert has_victim == (given == "opening with a victim")
            gate.open("holder", "next")
            await client.call(task("next"), timeout=1)
        assert "leaver" not in [*a.asked, *b.asked]
        assert not waiters_of(client)
        assert not openings_of(client)
        assert pool._lanes.taken == len(connections_of(client)) == 1


async def test_a_victim_whose_endpoint_was_removed_when_its_waiter_left_is_closed(
    autojump_clock: MockClock,
) -> None:
    """All in one moment: the victim is found, its waiter is cancelled, and its endpoint is removed."""
    gate = Gate()
    a, b = FakeServer("a", gate), FakeServer("b")
    leaver = trio.CancelScope()
    async with calling(a, b, max_connections=1) as client, trio.open_nursery() as nursery:
        await call_in_order(nursery, client, "holder")
        client._upstreams["a"].failed()  # so that the leaver waits for b

        async def leave() -> None:
            with leaver:
                await client.call(task("leaver"))

        nursery.start_soon(leave)
        await wait_all_tasks_blocked()
        [waiter] = waiters_of(client)
        serve = client._pool._serve
        openings: list[Opening] = []

        def all_at_once(lane: Lane) -> None:
            leaver.cancel()  # takes effect when its task runs, which is after this
            serve(lane)
            if waiter.opening and waiter.opening.victim and "a" in client._upstreams:
                openings.append(waiter.opening)
                client.remove_endpoint("a")

        client._pool._serve = all_at_once  # type: ignore[method-assign]
        gate.open("holder")
        await wait_all_tasks_blocked()
        assert leaver.cancelled_caught
        assert openings
        assert a.connections.now == 0
        assert client._pool._lanes.taken == 0
        client._pool._serve = serve  # type: ignore[method-assign]
        await client.call(task("next"), timeout=1)


# --- Closing ------------------------------------------------------------------------------------------------


async def test_closing_the_client_ends_who_waits_who_connects_and_who_is_answered(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a", hang)
    world = Servers(server)
    ended: list[str] = []
    may_connect = trio.Event()
    async with trio.open_nursery() as servers, trio.open_nursery() as nursery:
        await servers.start(server.serve)
        settings = ResilientConfig(max_connections_per_endpoint=2)
        async with open_resilient_client(
            PLAIN, [server.endpoint()], settings, connect=world.connect
        ) as client:

            async def call(name: str) -> None:
                with pytest.raises(ChannelClosedError):
                    await client.call(task(name))
                ended.append(name)

            nursery.start_soon(call, "answered")
            await wait_all_tasks_blocked()
            server.connecting = may_connect.wait
            nursery.start_soon(call, "connects")
            await wait_all_tasks_blocked()
            nursery.start_soon(call, "waits")
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert sorted(ended) == ["answered", "connects", "waits"]
        assert (server.connections.now, server.connections.total) == (0, 1)
        servers.cancel_scope.cancel()
    with pytest.raises(ChannelClosedError, match="this client was closed"):
        await client.call(task())


async def test_the_reaper_is_not_woken_by_every_call(autojump_clock: MockClock) -> None:
    async with calling(FakeServer("a")) as client:
        await client.call(task("first"))
        await client.call(task("second"))
        await wait_all_tasks_blocked()
        sleeping = client._pool._kept._reap_sooner
        for number in range(20):
            await client.call(task(str(number)))
            await wait_all_tasks_blocked()
        assert client._pool._kept._reap_sooner is sleeping


async def test_the_reaper_sleeps_as_long_as_there_is_nothing_to_reap(mock_clock: MockClock) -> None:
    async with calling(FakeServer("a")) as client:
        await wait_all_tasks_blocked()
        assert client._pool._kept._reap_at == math.inf
