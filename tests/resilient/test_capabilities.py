"""Servers say what they can do, and calls go to those that can."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.resilient.able import (
    NETWORK,
    NETWORK_TASK,
    PROCESS,
    Able,
)
from tests.support import succeed, task
from trio_ipc import Call
from trio_ipc.daemoneye import (
    ASSUMED_CAPABILITIES,
    CAPABILITY_METADATA,
    CAPABILITY_TASK_PREFIX,
    DETECTION,
    PROBE_TASK_PREFIX,
    Capabilities,
    DetectionResult,
    DetectionTask,
    TaskType,
)
from trio_ipc.errors import NoEndpointError

from .support import FakeServer, calling


async def test_calls_go_to_those_that_can_from_the_very_first_on(autojump_clock: MockClock) -> None:
    a, b, c = Able("a", PROCESS), Able("b", NETWORK), Able("c", PROCESS, NETWORK)
    async with calling(a, b, c, contract=DETECTION) as client:
        for _ in range(4):
            assert (await client.call(NETWORK_TASK)).success
        for number in range(4):
            assert (await client.call(task(str(number)))).success
        assert a.worked == ["0", "2"]
        assert set(b.worked) == {"n"}
        assert set(c.worked) == {"n", "1", "3"}
        assert [one.failures for one in client.statistics()] == [0, 0, 0]


async def test_where_nobody_can_the_refusal_of_a_healthy_one_is_the_response(
    autojump_clock: MockClock,
) -> None:
    a, b = Able("a", PROCESS), Able("b", PROCESS)
    async with calling(a, b, contract=DETECTION) as client:
        for _ in range(3):
            result = await client.call(NETWORK_TASK)
            assert (result.success, result.error_message) == (False, "Network monitoring not supported")
        assert [one.healthy for one in client.statistics()] == [True, True]


async def test_an_old_server_is_taken_to_have_the_process_domain_alone(autojump_clock: MockClock) -> None:
    old, new = FakeServer("old", succeed), Able("new", NETWORK)
    async with calling(old, new, contract=DETECTION) as client:
        for _ in range(3):
            assert (await client.ask(NETWORK_TASK)).endpoint_id == "new"
            assert (await client.ask(task())).endpoint_id == "old"
        said = {one.endpoint.id: one.capabilities for one in client.statistics()}
        assert said["old"] == ASSUMED_CAPABILITIES
        assert not said["old"].stated
        assert said["new"] == Capabilities([NETWORK])


async def test_the_only_endpoint_may_lack_what_a_call_needs(autojump_clock: MockClock) -> None:
    async with calling(Able("plain", PROCESS), contract=DETECTION) as client:
        with pytest.raises(NoEndpointError, match="^the only endpoint has not what the call needs; see"):
            await client.call(task(), needs=lambda capabilities: capabilities.realtime)


async def test_advanced_capabilities_are_learnt_and_can_be_asked_for(autojump_clock: MockClock) -> None:
    plain, kernel = Able("plain", PROCESS), Able("kernel", PROCESS, kernel_level=True)
    async with calling(plain, kernel, contract=DETECTION, strategy="priority", priorities=[1, 2]) as client:
        assert (await client.ask(task())).endpoint_id == "plain"
        answer = await client.ask(task("k"), needs=lambda capabilities: capabilities.kernel_level)
        assert answer.endpoint_id == "kernel"
        with pytest.raises(NoEndpointError, match="none of the 2 endpoints has what the call needs"):
            await client.call(task("r"), needs=lambda capabilities: capabilities.realtime)
        assert "r" not in [*plain.asked, *kernel.asked]


async def test_the_first_connection_asks_and_so_does_the_first_to_a_server_that_was_lost(
    autojump_clock: MockClock,
) -> None:
    server = Able("a", PROCESS)
    async with calling(server, contract=DETECTION) as client:
        await client.call(task("1"))
        await client.call(task("2"))
        assert server.negotiations == 1
        server.gate.capabilities = Capabilities([PROCESS, NETWORK])
        server.drop_connections()
        await client.call(task("3"))
        assert server.negotiations == 2
        assert client.statistics()[0].capabilities.domains == {PROCESS, NETWORK}


class Old(FakeServer):
    """A server that does not know the marker: to be asked what it can do is a task like any other to it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__("old", self.work, **settings)

    async def work(self, task: DetectionTask, call: Call) -> DetectionResult:
        await trio.sleep(1)
        return await succeed(task, call)

    @property
    def negotiations(self) -> int:
        return sum(name.startswith(CAPABILITY_TASK_PREFIX) for name in self.asked)

    @property
    def probes(self) -> int:
        return sum(name.startswith(PROBE_TASK_PREFIX) for name in self.asked)


async def call_at_once(client: Any, count: int) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(client.call, task(str(number)))


async def test_a_server_is_asked_once_until_it_is_lost_or_the_response_is_old(
    autojump_clock: MockClock,
) -> None:
    server = Old()
    async with calling(server, contract=DETECTION, idle_timeout_ms=10_000) as client:
        await client.call(task())
        assert server.negotiations == 1
        for _ in range(10):
            await trio.sleep(20)
            assert server.connections.now == 0
            await client.call(task())
        assert (server.connections.total, server.negotiations) == (11, 1), "it was not lost"
        await trio.sleep(300)
        await client.call(task())
        assert server.negotiations == 2, "it is five minutes old"
        server.drop_connections()
        await client.call(task())
        assert server.negotiations == 3, "it was lost"


async def test_what_shows_its_places_is_probed_once(autojump_clock: MockClock) -> None:
    server = Old()
    async with calling(server, contract=DETECTION, idle_timeout_ms=10_000) as client:
        await call_at_once(client, 8)
        assert (server.connections.total, server.negotiations, server.probes) == (4, 1, 3)
        await trio.sleep(20)
        assert server.connections.now == 0
        await call_at_once(client, 8)
        assert (server.connections.total, server.negotiations, server.probes) == (8, 1, 3)


async def test_an_old_server_of_one_place_keeps_no_call_waiting(autojump_clock: MockClock) -> None:
    server = Old()
    async with calling(server, contract=DETECTION) as client:
        await client.call(task())
        server.closes = 3  # there is one place, so that the others are closed at once
        await call_at_once(client, 8)
        assert server.negotiations == 1
        [said] = client.statistics()
        assert (said.failures, said.healthy) == (0, True)
        assert client.metrics().tasks_failed_total == 0


async def test_one_who_asks_and_hangs_holds_up_the_others_for_a_while_only(autojump_clock: MockClock) -> None:
    server, hung = Old(), False

    async def hang_first(task: DetectionTask, call: Call) -> DetectionResult:
        nonlocal hung
        if not hung:
            hung = True
            await trio.sleep_forever()
        return await succeed(task, call)

    server.handler = hang_first
    async with calling(server, contract=DETECTION) as client:
        await call_at_once(client, 4)
        assert trio.current_time() == pytest.approx(1)


async def test_the_marker_on_the_wire_is_the_one_that_existing_peers_know(autojump_clock: MockClock) -> None:
    seen: list[DetectionTask] = []

    async def note(task: DetectionTask, call: Call) -> DetectionResult:
        seen.append(task)
        return await succeed(task, call)

    async with calling(FakeServer("a", note), contract=DETECTION) as client:
        await client.call(task())
    assert (seen[0].task_type, seen[0].metadata) == (TaskType.ENUMERATE_PROCESSES, CAPABILITY_METADATA)
    assert seen[0].task_id.startswith(CAPABILITY_TASK_PREFIX)
    assert seen[1] == task()
