"""A server is asked once what it can do, however many connections lead to it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import serving, succeed, success, task
from trio_ipc import Call, Contract, IpcConfig, ResponseMismatchError
from trio_ipc.daemoneye import (
    DETECTION,
    Capabilities,
    CapabilityGate,
    DetectionResult,
    DetectionTask,
    MonitoringDomain,
    is_capability_negotiation,
    is_connection_probe,
)
from trio_ipc.errors import ContractError
from trio_ipc.resilient import Endpoint, open_resilient_client
from trio_ipc.testing import simulate_reference, temporary_endpoint

from .support import DetectionResilientClient, FakeServer, calling, connections_of

NEGOTIATION: Any = DETECTION.negotiation
WITHOUT_PROBE = attrs.evolve(DETECTION, negotiation=attrs.evolve(NEGOTIATION, probe=None))


class Collector:
    """A handler that counts what it is asked, and answers calls only when so many are with it at a time.

    Attributes:
        together: how many that are.
        asked: what it was asked, by kind.
    """

    def __init__(self, together: int = 1) -> None:
        self.together = together
        self.asked: Counter[str] = Counter()
        self._here = 0
        self._all_here = trio.Event()

    async def __call__(self, request: DetectionTask, _: Call) -> DetectionResult:
        if is_capability_negotiation(request):
            self.asked["markers"] += 1
        elif is_connection_probe(request):
            self.asked["probes"] += 1
            return DetectionResult(task_id=request.task_id, error_message="Unknown task type: 2147483647")
        else:
            self.asked["tasks"] += 1
            self._here += 1
            if self._here == self.together:
                self._here = 0
                self._all_here.set()
                self._all_here = trio.Event()
            else:
                await self._all_here.wait()
        return success(request.task_id)


async def call_together(client: DetectionResilientClient, count: int) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(client.call, task(str(number)))


async def test_a_real_server_is_asked_once_for_all_connections_and_again_when_it_was_restarted(
    config: IpcConfig,
) -> None:
    collector = Collector(together=4)
    async with open_resilient_client(DETECTION, [Endpoint(config)]) as client:
        for round_ in (1, 2):
            async with serving(collector, config):
                for _ in range(3):
                    await call_together(client, 4)
                [said] = client.statistics()
                assert said.connections_pooled == 4
                assert collector.asked["markers"] == round_
                assert collector.asked["probes"] == 3 * round_, "once for each place that is not shown yet"
            assert client.metrics().tasks_failed_total == 0


async def test_a_real_server_whose_health_was_checked_is_not_asked_again_for_a_further_connection(
    config: IpcConfig,
) -> None:
    collector = Collector(together=4)
    async with (
        serving(collector, config),
        open_resilient_client(DETECTION, [Endpoint(config, id="a")]) as client,
    ):
        for checks in (1, 2):
            assert (await client.check_health("a")).healthy
            assert collector.asked["markers"] == checks
        await call_together(client, 4)
        assert collector.asked == {"markers": 2, "probes": 3, "tasks": 4}


async def test_a_connection_that_was_only_probed_does_not_say_that_the_server_is_well(
    autojump_clock: MockClock,
) -> None:
    collector = Collector(together=2)
    server = FakeServer("a", collector)
    async with calling(server, contract=DETECTION) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.call, task("1"))
        await wait_all_tasks_blocked()
        assert collector.asked == {"markers": 1, "tasks": 1}
        assert (await client.check_health("a")).healthy
        assert collector.asked == {"markers": 2, "probes": 1, "tasks": 1}, "by a further connection"
        await client.call(task("2"))


async def test_a_gate_is_asked_once_too_and_its_handler_sees_neither_question_nor_probe(
    config: IpcConfig,
) -> None:
    collector = Collector(together=4)
    gate = CapabilityGate[Call](collector, Capabilities([MonitoringDomain.PROCESS]))
    seen: list[DetectionTask] = []

    async def handle(request: DetectionTask, call: Call) -> DetectionResult:
        seen.append(request)
        return await gate(request, call)

    async with (
        serving(handle, config),
        open_resilient_client(DETECTION, [Endpoint(config)]) as client,
    ):
        await call_together(client, 4)
        assert client.statistics()[0].capabilities == gate.capabilities
    assert collector.asked == {"tasks": 4}
    assert sum(map(is_capability_negotiation, seen)) == 1


async def test_the_reference_with_one_place_is_asked_once() -> None:
    with temporary_endpoint() as endpoint:
        async with simulate_reference(endpoint=endpoint) as collector:
            where = Endpoint(collector.config)
            async with open_resilient_client(DETECTION, [where]) as client:
                await call_together(client, 8)
                assert client.metrics().tasks_failed_total == 0
            assert collector.negotiations == 1
            assert len(collector.asked) == 8


async def test_the_reference_with_places_is_asked_once() -> None:
    with temporary_endpoint() as endpoint:
        async with simulate_reference(endpoint=endpoint, places=4) as collector:
            async with open_resilient_client(DETECTION, [Endpoint(collector.config)]) as client:
                for _ in range(5):
                    await call_together(client, 8)
                assert client.metrics().tasks_failed_total == 0
            assert collector.negotiations == 1
            assert collector.probes <= 3
            assert len(collector.asked) == 40


async def test_once_in_each_interval_also_while_connections_come_and_go(autojump_clock: MockClock) -> None:
    collector = Collector()
    server = FakeServer("a", collector)
    settings: dict[str, Any] = {"lifetime_ms": 7_000, "max_connections_per_endpoint": 2}
    async with calling(server, contract=DETECTION, **settings) as client:
        for number in range(900):
            await client.call(task(str(number)))
            await trio.sleep(1)
        assert server.connections.total > 100
        assert collector.asked["markers"] == 3


async def test_a_connection_that_is_opened_when_a_refresh_is_due_leaves_the_question_to_that(
    autojump_clock: MockClock,
) -> None:
    collector = Collector()
    server = FakeServer("a", collector, read_timeout_ms=10**9)
    async with calling(server, contract=DETECTION, call_timeout_ms=10**9, idle_timeout_ms=10**9) as client:
        await client.call(task("first"))
        collector.together = 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, task("long"))
            await trio.sleep(301)  # so that the refresh waits for the one connection that there is
            await client.call(task("other"))
        await wait_all_tasks_blocked()
        assert len(connections_of(client)) > 1
        assert collector.asked["markers"] == 2


async def test_who_asks_and_gets_no_response_holds_up_nobody_and_the_question_is_asked_after_all(
    autojump_clock: MockClock,
) -> None:
    """As at a server that keeps that very connection in its queue."""
    collector, held = Collector(), trio.Event()

    async def hold_the_first(request: DetectionTask, call: Call) -> DetectionResult:
        if is_capability_negotiation(request) and not collector.asked["markers"]:
            collector.asked["markers"] += 1
            held.set()
            await trio.sleep_forever()
        return await collector(request, call)

    server = FakeServer("a", hold_the_first, read_timeout_ms=20_000)
    async with calling(server, contract=DETECTION) as client:
        await call_together(client, 4)
        assert trio.current_time() == pytest.approx(1)
        assert held.is_set()
        assert client.statistics()[0].capabilities is None
        await trio.sleep(30)
        assert client.statistics()[0].capabilities is not None
        assert collector.asked["markers"] == 2


async def test_a_response_that_takes_long_is_waited_for_by_nobody_and_used_when_it_comes(
    autojump_clock: MockClock,
) -> None:
    collector = Collector()

    async def slow_to_say(request: DetectionTask, call: Call) -> DetectionResult:
        if is_capability_negotiation(request):
            await trio.sleep(10)
        return await collector(request, call)

    async with calling(FakeServer("a", slow_to_say), contract=DETECTION) as client:
        await call_together(client, 4)
        assert trio.current_time() == pytest.approx(1)
        await trio.sleep(20)
        assert client.statistics()[0].capabilities is not None
        assert collector.asked["markers"] == 1


async def test_without_a_probe_each_place_is_shown_by_the_question(autojump_clock: MockClock) -> None:
    collector = Collector(together=4)
    async with calling(FakeServer("a", collector), contract=WITHOUT_PROBE) as client:
        await call_together(client, 4)
        await call_together(client, 4)
    assert collector.asked == {"markers": 4, "tasks": 8}


async def test_what_may_not_be_repeated_is_not_sent_before_a_probe_was_answered(
    autojump_clock: MockClock,
) -> None:
    collector = Collector(together=4)
    once = attrs.evolve(DETECTION, repeatable=False)
    async with calling(FakeServer("a", collector), contract=once, idle_timeout_ms=1_000) as client:
        for _ in range(2):
            await call_together(client, 4)
            await trio.sleep(10)
        assert collector.asked == {"markers": 1, "probes": 7, "tasks": 8}, "not even where places were shown"


async def test_a_probe_that_is_answered_by_somebody_elses_answer_is_the_servers_failure(
    autojump_clock: MockClock,
) -> None:
    collector = Collector(together=2)

    async def confused(request: DetectionTask, call: Call) -> DetectionResult:
        return success("another") if is_connection_probe(request) else await collector(request, call)

    server = FakeServer("a", confused)
    async with calling(server, contract=DETECTION) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.call, task("1"))
        await wait_all_tasks_blocked()
        with pytest.raises(ResponseMismatchError, match="the response has task_id 'another'"):
            await client.call(task("2"))
        collector.together = 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("made", [None, success()], ids=["none", "response"])
async def test_a_probe_of_another_type_is_the_contracts_own_error(
    autojump_clock: MockClock, made: Any
) -> None:
    contract: Contract[DetectionTask, DetectionResult] = attrs.evolve(
        DETECTION, negotiation=attrs.evolve(NEGOTIATION, probe=lambda: made)
    )
    server = FakeServer("a", Collector(together=2))
    async with calling(server, contract=contract) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.call, task("1"))
        await wait_all_tasks_blocked()
        with pytest.raises(ContractError, match=r"probe of the contract .* returned"):
            await client.call(task("2"))
        assert client.statistics()[0].failures == 0
        nursery.cancel_scope.cancel()


async def test_frames_too_small_for_a_probe_leave_it_out(autojump_clock: MockClock) -> None:
    asked: list[str] = []

    async def note(request: DetectionTask, call: Call) -> DetectionResult:
        asked.append(request.task_id)
        return await succeed(request, call)

    async with calling(FakeServer("a", note, max_frame_bytes=20), contract=DETECTION) as client:
        await call_together(client, 8)
    assert sorted(asked) == sorted(map(str, range(8)))


async def test_what_grows_old_while_a_probe_is_in_progress_is_asked_for_after_it(
    autojump_clock: MockClock,
) -> None:
    collector = Collector()

    async def slow_to_probes(request: DetectionTask, call: Call) -> DetectionResult:
        if is_connection_probe(request):
            await trio.sleep(1)
        return await collector(request, call)

    server = FakeServer("a", slow_to_probes, read_timeout_ms=10**9)
    async with calling(server, contract=DETECTION, idle_timeout_ms=60_000) as client:
        await client.call(task())
        await trio.sleep(299.5)
        assert connections_of(client) == []
        await call_together(client, 2)
        await wait_all_tasks_blocked()
        assert collector.asked == {"markers": 2, "probes": 2, "tasks": 3}, "nobody else would ask"
        await trio.sleep(59)
        assert collector.asked["markers"] == 2
