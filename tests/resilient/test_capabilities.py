"""Servers say what they can do, and calls go to those that can."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import hang, succeed, task
from trio_ipc import Call
from trio_ipc.daemoneye import (
    ASSUMED_CAPABILITIES,
    CAPABILITY_METADATA,
    CAPABILITY_TASK_PREFIX,
    DETECTION,
    PROBE_TASK_PREFIX,
    Capabilities,
    CapabilityGate,
    DetectionResult,
    DetectionTask,
    MonitoringDomain,
    TaskType,
    stated_capabilities,
)
from trio_ipc.errors import ContractError, NoEndpointError
from trio_ipc.resilient import BreakerState

from .support import A, FakeServer, calling, openings_of

PROCESS, NETWORK = MonitoringDomain.PROCESS, MonitoringDomain.NETWORK
NETWORK_TASK = DetectionTask(task_id="n", task_type=TaskType.MONITOR_NETWORK_CONNECTIONS)


class Able(FakeServer):
    """A server of these domains, which may be changed."""

    def __init__(self, name: str, *domains: int, **flags: bool) -> None:
        super().__init__(name, read_timeout_ms=1_000_000)
        self.gate = CapabilityGate[Call](self.work, Capabilities(domains, **flags))
        self.handler = self.gate
        self.worked: list[str] = []

    async def work(self, task: DetectionTask, call: Call) -> DetectionResult:
        self.worked.append(task.task_id)
        return await succeed(task, call)

    @property
    def negotiations(self) -> int:
        return sum(name.startswith(CAPABILITY_TASK_PREFIX) for name in self.asked)


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


async def test_where_nobody_can_the_refusal_of_a_healthy_one_is_the_answer(autojump_clock: MockClock) -> None:
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


async def test_a_server_is_asked_once_until_it_is_lost_or_the_answer_is_old(
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


async def test_they_are_refreshed_every_five_minutes_without_a_call(
    autojump_clock: MockClock,
) -> None:
    server = Able("a", PROCESS)
    async with calling(server, contract=DETECTION, idle_timeout_ms=10_000_000) as client:
        await client.call(task())
        server.gate.capabilities = Capabilities([NETWORK])
        await trio.sleep(299)
        assert client.statistics()[0].capabilities.domains == {PROCESS}
        await trio.sleep(2)
        assert client.statistics()[0].capabilities.domains == {NETWORK}
        assert client.statistics()[0].capabilities_at == pytest.approx(300)
        await trio.sleep(300)
        assert server.negotiations == 3
        assert client.metrics().tasks_sent_total == 1, "they are no tasks"


async def test_a_reconnection_postpones_the_refresh(autojump_clock: MockClock) -> None:
    server = Able("a", PROCESS)
    async with calling(server, contract=DETECTION, idle_timeout_ms=10_000_000) as client:
        await client.call(task())
        await trio.sleep(200)
        server.drop_connections()
        await client.call(task())
        await trio.sleep(250)
        assert server.negotiations == 2
        await trio.sleep(60)
        assert server.negotiations == 3


async def test_a_refresh_that_fails_counts_against_the_server_and_breaks_nothing(
    autojump_clock: MockClock,
) -> None:
    server = Able("a", PROCESS)
    async with calling(server, contract=DETECTION, idle_timeout_ms=10_000_000) as client:
        await client.call(task())
        server.handler = hang
        await trio.sleep(361)
        [said] = client.statistics()
        assert (said.healthy, said.failures, said.capabilities.domains) == (False, 1, {PROCESS})
        assert said.capabilities_stale
        server.handler = server.gate
        assert (await client.call(task())).success
        assert not client.statistics()[0].capabilities_stale


async def test_nothing_is_connected_for_a_refresh_alone(autojump_clock: MockClock) -> None:
    server = Able("a", PROCESS)
    async with calling(server, contract=DETECTION) as client:
        await client.call(task("1"))
        await trio.sleep(299)
        assert not client.statistics()[0].capabilities_stale
        await trio.sleep(10_000)
        assert (server.connections.total, server.negotiations) == (1, 1)
        [said] = client.statistics()
        assert (said.capabilities_stale, said.capabilities_at) == (True, 0)
        await client.call(task("2"))
        assert (server.connections.total, server.negotiations) == (2, 2), "the next connection asks"
        assert not client.statistics()[0].capabilities_stale


@pytest.mark.parametrize("max_in_flight", [1, 2])
async def test_a_refresh_does_not_keep_a_connection_from_being_idle(
    autojump_clock: MockClock, max_in_flight: int
) -> None:
    server = Able("a", PROCESS)
    settings = {"capabilities_refresh_ms": 100_000, "max_in_flight": max_in_flight}
    async with calling(server, contract=DETECTION, **settings) as client:  # type: ignore[arg-type]
        await client.call(task())
        await trio.sleep(299)
        assert (server.negotiations, server.connections.now) == (3, 1)
        await trio.sleep(2)
        assert (server.negotiations, server.connections.now) == (3, 0)


async def test_one_that_could_not_long_ago_is_asked_again_before_those_that_cannot(
    autojump_clock: MockClock,
) -> None:
    changed, unable = Able("changed", PROCESS), Able("unable", PROCESS)
    async with calling(changed, unable, contract=DETECTION, strategy="priority", priorities=[2, 1]) as client:
        await client.call(NETWORK_TASK)
        changed.gate.capabilities = Capabilities([PROCESS, NETWORK])
        assert not (await client.call(NETWORK_TASK)).success
        await trio.sleep(1_000)
        await client.call(task())  # unable says so again
        answer = await client.ask(NETWORK_TASK)
        assert (answer.endpoint_id, answer.response.success) == ("changed", True)
        assert changed.worked == ["n"]


@pytest.mark.parametrize("changed", [True, False])
async def test_what_a_call_needs_is_asked_for_again_where_the_answer_is_old(
    autojump_clock: MockClock, changed: bool
) -> None:
    server = Able("a", PROCESS)
    async with calling(server, contract=DETECTION) as client:

        async def kernel_level(name: str) -> DetectionResult:
            request = DetectionTask(task_id=name, task_type=NETWORK_TASK.task_type)
            return await client.call(request, needs=lambda capabilities: capabilities.kernel_level)

        await client.call(task())
        if changed:
            server.gate.capabilities = Capabilities([NETWORK], kernel_level=True)
        with pytest.raises(NoEndpointError):
            await kernel_level("too early")
        await trio.sleep(1_000)
        if changed:
            assert (await kernel_level("late")).success
        else:
            with pytest.raises(NoEndpointError):
                await kernel_level("late")
            assert server.worked == ["t"]
        assert server.negotiations == 2


async def test_what_a_server_says_instead_of_its_capabilities_is_not_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "trio_ipc")

    async def blurt(task: DetectionTask, call: Call) -> DetectionResult:
        return (
            await succeed(task, call) if trio.current_time() < 1 else DetectionResult(error_message="Xyzzy")
        )

    server = FakeServer("a", blurt, read_timeout_ms=10**9)
    async with calling(server, contract=DETECTION, idle_timeout_ms=10**9) as client:
        await client.call(task())
        await trio.sleep(301)
    [record] = [record for record in caplog.records if record.name == "trio_ipc.resilient"]
    assert record.getMessage() == "capabilities were not refreshed: ResponseMismatchError"
    assert record.__dict__["endpoint"] == A
    assert "Xyzzy" not in caplog.text


async def test_a_refresh_is_left_out_while_the_breaker_is_open(autojump_clock: MockClock) -> None:
    server = Able("a", PROCESS)
    async with calling(server, contract=DETECTION, breaker_reset_ms=10_000_000) as client:
        await client.call(task())
        for _ in range(5):
            client._upstreams["a"].breaker.admit().fail()  # type: ignore[union-attr]
        await trio.sleep(301)
        assert client.statistics()[0].breaker.state is BreakerState.OPEN
        assert server.negotiations == 1


async def test_a_removed_server_is_asked_no_more(autojump_clock: MockClock) -> None:
    server = Able("a", PROCESS)
    async with calling(server, contract=DETECTION) as client:
        await client.call(task())
        client.remove_endpoint("a")
        await trio.sleep(1000)
        assert server.negotiations == 1


async def test_one_that_accepts_and_does_not_answer_is_found_out_before_the_request_is_sent(
    autojump_clock: MockClock,
) -> None:
    stuck, well = FakeServer("stuck", hang, read_timeout_ms=1_000), Able("well", PROCESS)
    async with calling(stuck, well, contract=DETECTION) as client:
        assert (await client.ask(task("x"))).endpoint_id == "well"
        assert "x" not in stuck.asked


async def test_frames_too_small_to_ask_leave_open_what_a_server_can(
    autojump_clock: MockClock,
) -> None:
    tiny = FakeServer("tiny", max_frame_bytes=20)
    async with calling(tiny, contract=DETECTION) as client:
        assert (await client.call(NETWORK_TASK)).success
        assert client.statistics()[0].capabilities is None
        assert client.statistics()[0].failures == 0


class OurBugError(Exception):
    pass


def bug(*_: object) -> Any:
    raise OurBugError


@pytest.mark.parametrize("max_in_flight", [1, 4])
@pytest.mark.parametrize("where", ["needs", "ask", "learn", "can_do", "mismatch"])
async def test_an_error_of_the_users_own_functions_is_the_callers_and_leaves_nothing_behind(
    autojump_clock: MockClock, max_in_flight: int, where: str
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
        with pytest.raises(OurBugError):
            await client.call(task(), needs=bug if where == "needs" else None)
        await wait_all_tasks_blocked()
        assert client.metrics().active_connections_current == 0
        assert not openings_of(client)
        said = client.statistics()[0].breaker
        assert (said.failures, said.probing) == (0, False)


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


async def test_an_error_of_the_negotiations_own_functions_does_not_end_the_client(
    autojump_clock: MockClock,
) -> None:
    server = Able("a", PROCESS)
    asked = 0

    def learn(result: DetectionResult) -> Capabilities:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise OurBugError
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
