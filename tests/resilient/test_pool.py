"""The pool, by the client that uses it and by its own methods."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import hang, success, task
from trio_ipc import Call, ChannelClosedError, PeerClosedError
from trio_ipc.daemoneye import DetectionResult, DetectionTask
from trio_ipc.errors import CallTimeoutError, PoolTimeoutError
from trio_ipc.resilient import ResilientConfig, open_resilient_client
from trio_ipc.resilient.connection import Connection
from trio_ipc.resilient.lanes import Lane, Opening

from .support import (
    PLAIN,
    UNREPEATABLE,
    A,
    B,
    DetectionResilientClient,
    FakeServer,
    Servers,
    calling,
    connections_of,
    lanes_of,
    openings_of,
    waiters_of,
    world_of,
)


class Gate:
    """A handler that answers each task when it is told to."""

    def __init__(self) -> None:
        self._opened: dict[str, trio.Event] = {}
        self.working: set[str] = set()
        self.most = 0

    def open(self, *task_ids: str) -> None:
        for task_id in task_ids:
            self._opened.setdefault(task_id, trio.Event()).set()

    async def __call__(self, task: DetectionTask, _: Call) -> DetectionResult:
        self.working.add(task.task_id)
        self.most = max(self.most, len(self.working))
        try:
            await self._opened.setdefault(task.task_id, trio.Event()).wait()
        finally:
            self.working.discard(task.task_id)
        return success(task.task_id)


async def call_in_order(
    nursery: trio.Nursery, client: DetectionResilientClient, *task_ids: str, done: list[str] | None = None
) -> None:
    """Start a call for each, one after the other, so that they come to the pool in this order."""

    async def one(task_id: str) -> None:
        assert await client.call(task(task_id)) == success(task_id)
        if done is not None:
            done.append(task_id)

    for task_id in task_ids:
        nursery.start_soon(one, task_id)
        await wait_all_tasks_blocked()


# --- Limits -------------------------------------------------------------------------------------------------


async def test_no_more_than_four_connections_go_to_one_endpoint_while_they_are_in_use(
    autojump_clock: MockClock,
) -> None:
    gate = Gate()
    server = FakeServer("a", gate)
    async with calling(server) as client, trio.open_nursery() as nursery:
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
    gate = Gate()
    server = FakeServer("a", gate)
    async with calling(server, max_connections_per_endpoint=1) as client, trio.open_nursery() as nursery:
        done: list[str] = []
        names = [str(number) for number in range(8)]
        await call_in_order(nursery, client, *names, done=done)
        for name in names:
            assert gate.working == {name}
            gate.open(name)
            await wait_all_tasks_blocked()
        assert done == names


async def test_a_newcomer_does_not_overtake_those_who_wait(autojump_clock: MockClock) -> None:
    gate = Gate()
    server = FakeServer("a", gate)
    async with calling(server, max_connections_per_endpoint=1) as client:
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


async def test_who_is_turned_away_keeps_its_place(autojump_clock: MockClock) -> None:
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


async def test_who_is_turned_away_or_goes_on_to_another_gets_no_more_time(autojump_clock: MockClock) -> None:
    a, b = (FakeServer(name, hang, read_timeout_ms=10**6) for name in "ab")
    settings: dict[str, Any] = {"max_connections_per_endpoint": 1, "pool_timeout_ms": 5_000}
    async with calling(a, b, **settings) as client, trio.open_nursery() as nursery:
        await call_in_order(nursery, client, "1", "2")

        async def turn_away() -> None:
            await trio.sleep(3)
            client._upstreams["a"].failed()

        nursery.start_soon(turn_away)
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


# --- Sharing ------------------------------------------------------------------------------------------------

SHARED: dict[str, Any] = {"max_connections_per_endpoint": 1, "max_in_flight": 3}


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
async def test_when_the_last_caller_has_left_a_shared_connection_is_closed(
    autojump_clock: MockClock, order: tuple[int, int]
) -> None:
    """Who comes next is not behind answers that nobody waits for."""
    gate = Gate()
    server = FakeServer("a", gate)
    scopes = {number: trio.CancelScope() for number in order}

    async def leave(client: DetectionResilientClient, number: int) -> None:
        with scopes[number]:
            await client.call(task(str(number)))

    async with calling(server, **SHARED) as client, trio.open_nursery() as nursery:
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
    gate = Gate()
    server = FakeServer("a", gate)
    async with calling(server, **SHARED) as client, trio.open_nursery() as nursery:
        await call_in_order(nursery, client, "stays")
        with trio.move_on_after(1):
            await client.call(task("leaves"))
        gate.open("stays")
        await wait_all_tasks_blocked()
        assert server.connections.now == 0


async def test_a_shared_connection_is_not_closed_under_who_was_just_given_a_share(
    autojump_clock: MockClock,
) -> None:
    gate = Gate()
    server = FakeServer("a", gate)
    scope = trio.CancelScope()
    settings: dict[str, Any] = {**SHARED, "max_in_flight": 2, "contract": UNREPEATABLE}
    async with calling(server, **settings) as client, trio.open_nursery() as nursery:

        async def leave() -> None:
            with scope:
                await client.call(task("leaves"))

        await call_in_order(nursery, client, "1")
        nursery.start_soon(leave)
        await wait_all_tasks_blocked()
        await call_in_order(nursery, client, "waits for a share")
        release = client._pool.release

        def release_and_cancel(connection: Any, *, used: bool = True) -> None:
            release(connection, used=used)  # it gives the share, of which the waiter hears when its task runs
            scope.cancel()

        client._pool.release = release_and_cancel  # type: ignore[method-assign]
        gate.open("1", "leaves", "waits for a share")
    assert server.connections.total == 1


async def test_a_shared_connection_that_cannot_be_written_to_is_given_to_nobody(
    autojump_clock: MockClock,
) -> None:
    gate = Gate()
    server = FakeServer("a", gate)
    async with calling(server, max_connections_per_endpoint=2, max_in_flight=3) as client:
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
    gate = Gate()
    server = FakeServer("a", gate)
    async with calling(server) as client:
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


async def test_a_connection_on_which_something_came_unasked_is_not_used_again(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("a")
    async with calling(server) as client:
        await client.call(task("1"))
        [channel] = server.channels
        await channel.send(success("2").SerializeToString())
        await client.call(task("2"))
        assert server.asked == ["1", "2"], "the unasked answer was nobody's"
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
    gate = Gate()
    server = FakeServer("a", gate, read_timeout_ms=10_000_000)
    async with calling(server, call_timeout_ms=10_000_000) as client:
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
    gate = Gate()
    server = FakeServer("a", gate, read_timeout_ms=10_000_000)
    async with calling(server, call_timeout_ms=10_000_000) as client:
        async with trio.open_nursery() as nursery:
            await call_in_order(nursery, client, "1")
            await trio.sleep(3601)
            gate.open("1")
        await wait_all_tasks_blocked()
        assert server.connections.now == 0


async def test_a_shared_connection_that_is_always_in_use_is_given_up_at_its_age_too(
    autojump_clock: MockClock,
) -> None:
    gate = Gate()
    server = FakeServer("a", gate, read_timeout_ms=10_000_000)
    settings: dict[str, Any] = {"max_in_flight": 9, "max_connections_per_endpoint": 1}
    async with calling(server, call_timeout_ms=10_000_000, **settings) as client:
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
    gate = Gate()
    server = FakeServer("a", gate)
    async with calling(server) as client:
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
