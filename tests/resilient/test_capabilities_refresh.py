"""When capabilities are asked for again."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.resilient.able import (
    NETWORK,
    NETWORK_TASK,
    PROCESS,
    Able,
)
from tests.support import hang, succeed, task
from trio_ipc import Call
from trio_ipc.daemoneye import (
    DETECTION,
    Capabilities,
    DetectionResult,
    DetectionTask,
)
from trio_ipc.errors import NoEndpointError
from trio_ipc.resilient import BreakerState

from .support import A, FakeServer, calling, open_breaker


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


@pytest.mark.parametrize(("idle_timeout_ms", "pooled"), [(300_000, 1), (10_000, 0)])
async def test_nothing_is_connected_for_a_refresh_alone(
    autojump_clock: MockClock, idle_timeout_ms: int, pooled: int
) -> None:
    server = Able("a", PROCESS)
    async with calling(server, contract=DETECTION, idle_timeout_ms=idle_timeout_ms) as client:
        await client.call(task("1"))
        await trio.sleep(299)
        [said] = client.statistics()
        assert (said.connections_pooled, said.capabilities_stale) == (pooled, False), "it is believed so long"
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
async def test_what_a_call_needs_is_asked_for_again_where_the_response_is_old(
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
        open_breaker(client, "a")
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
