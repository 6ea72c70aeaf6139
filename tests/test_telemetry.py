"""Nothing is counted twice or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import trio
from google.protobuf.descriptor_pb2 import UninterpretedOption
from trio.testing import MockClock

from tests.audits import (
    CONFIG,
    Handler,
    client_disagreements,
    disagreements,
)
from tests.support import (
    ME,
    MIB,
    MemoryEndpoint,
    frame,
    hang,
    read_to_end,
    serving,
    succeed,
    task,
)
from trio_ipc import (
    Call,
    Client,
    Contract,
    FramedChannel,
    IpcConfig,
    IpcError,
    open_client,
    serve_listener,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.transports import connect

# --- What was once miscounted -------------------------------------------------------------------------------


async def test_who_waits_when_the_server_is_cancelled_has_left(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(hang, endpoint) as server:
        for _ in range(3):
            await endpoint.connect().send_all(frame(task()))
        await trio.sleep(0.5)
        assert server.snapshot().connections_waiting == 1
    assert server.snapshot().connections_left == 1
    assert disagreements(server.snapshot()) == []


async def test_a_request_whose_handler_failed_and_whose_response_was_cut_off_failed_once(
    config: IpcConfig, autojump_clock: MockClock
) -> None:
    async def fail(_task: DetectionTask, _call: Call) -> DetectionResult:
        raise ValueError("x" * 900)

    config = config.replace(write_timeout_ms=60_000)
    async with serving(fail, config) as server, await connect(config.endpoint_path) as client:
        await client.send_all(frame(task()) * 4_000)  # and reads nothing
        await trio.sleep(1)
        server.stop()
        await server.wait_stopped()
        whole = server.snapshot()
    assert whole.requests_failed["handler"] == whole.requests > whole.frames_sent
    assert whole.requests_failed["cut_off"] == 0
    assert whole.connections_closed["cut_off"] == 1
    assert disagreements(whole) == []


async def test_a_response_that_cannot_be_delivered_is_a_failed_request(
    config: IpcConfig, autojump_clock: MockClock
) -> None:
    async def large(_task: DetectionTask, _call: Call) -> DetectionResult:
        return DetectionResult(task_id="t", error_message="x" * (MIB - 100))

    async with serving(large, config) as server, await connect(config.endpoint_path) as client:
        await client.send_all(frame(task()))
        await trio.sleep(11)
        whole = server.snapshot()
    assert (whole.requests, whole.requests_failed["response_undelivered"]) == (1, 1)
    assert (whole.timeouts["write"], whole.connections_closed["write_timeout"]) == (1, 1)


async def test_a_write_timeout_while_a_violator_is_told_counts_though_the_violation_ended_it(
    autojump_clock: MockClock,
) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    near, far = trio.testing.lockstep_stream_pair()
    async with serving(succeed, endpoint) as server:
        endpoint.offer(FramedChannel(far, CONFIG, endpoint="memory", peer=ME))
        await near.send_all(bytes(8))
        await trio.sleep(3)
        whole = server.snapshot()
    assert (whole.connections_closed["protocol_error"], whole.connections_closed["write_timeout"]) == (1, 0)
    assert whole.timeouts["write"] == 1


async def test_who_is_cut_off_while_being_told_of_a_violation_was_ended_by_the_violation(
    autojump_clock: MockClock,
) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    near, far = trio.testing.lockstep_stream_pair()
    async with serving(succeed, endpoint) as server:
        endpoint.offer(FramedChannel(far, CONFIG, endpoint="memory", peer=ME))
        await near.send_all(bytes(8))
        await trio.sleep(1)
    assert server.snapshot().connections_closed["protocol_error"] == 1
    assert disagreements(server.snapshot()) == []


async def test_a_response_after_the_handlers_time_is_a_timeout_even_if_it_cannot_be_encoded(
    autojump_clock: MockClock,
) -> None:
    incomplete = Contract(
        name="incomplete", request_type=DetectionTask, response_type=UninterpretedOption.NamePart
    )

    async def stubborn(_task: DetectionTask, _call: Call) -> UninterpretedOption.NamePart:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        return UninterpretedOption.NamePart()  # lacks what it requires

    endpoint = MemoryEndpoint(CONFIG)
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[Any]) -> None:
            await serve_listener(stubborn, incomplete, endpoint, CONFIG, task_status=task_status)

        server = await nursery.start(run)
        near = endpoint.connect()
        await near.send_all(frame(task()))
        assert await read_to_end(near) == b""
        assert server.snapshot().requests_failed["handler_timeout"] == 1
        assert server.snapshot().connections_closed["unanswerable"] == 1
        nursery.cancel_scope.cancel()


async def test_a_call_that_gets_no_turn_and_one_cancelled_while_it_waits_count(
    autojump_clock: MockClock,
) -> None:
    near, _far = trio.testing.memory_stream_pair()
    client = Client(FramedChannel(near, CONFIG, endpoint="memory", peer=ME), DETECTION, CONFIG)

    async def call(seconds: float) -> None:
        with trio.move_on_after(seconds):
            with contextlib.suppress(IpcError):
                await client.call(task())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, 100)  # until the read timeout of 3 s
        await trio.sleep(1)
        nursery.start_soon(call, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert client.snapshot().calls_in_flight == 2
    snapshot = client.snapshot()
    assert (snapshot.calls_failed["read_timeout"], snapshot.calls_failed["cancelled"]) == (1, 1)
    assert snapshot.timeouts["read"] == 1
    assert client_disagreements(snapshot) == []


# --- One thing at a time ------------------------------------------------------------------------------------


async def test_each_ending_of_a_connection_has_its_reason(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(Handler(), endpoint) as server:

        async def after(act: Callable[[trio.abc.HalfCloseableStream], Any]) -> str:
            before = server.snapshot().connections_closed
            near = endpoint.connect()
            await act(near)
            await read_to_end(near)
            await near.aclose()
            await trio.testing.wait_all_tasks_blocked()
            now = server.snapshot().connections_closed
            [reason] = [name for name in now if now[name] != before[name]]
            return reason

        async def be_idle(_: object) -> None:
            await trio.lowlevel.checkpoint()

        assert await after(be_idle) == "read_timeout"
        assert await after(lambda near: near.send_all(bytes(8))) == "protocol_error"
        assert await after(lambda near: near.send_eof()) == "peer_closed"

        async def be_stopped(_: object) -> None:
            await trio.testing.wait_all_tasks_blocked()
            server.stop()

        assert await after(be_stopped) == "stopped"


async def test_a_failure_that_no_response_can_tell_of_ends_the_connection_as_unanswerable() -> None:
    contract = Contract(name="silent", request_type=DetectionTask, response_type=DetectionResult)
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(Handler(), endpoint, contract) as server, endpoint.connect() as near:
        await near.send_all(frame(task("raise")))
        assert await read_to_end(near) == b""
        whole = server.snapshot()
    assert (whole.connections_closed["unanswerable"], whole.requests_failed["handler"]) == (1, 1)
    assert whole.contract == "silent"


async def test_a_channel_with_a_defect_is_an_internal_error(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint(CONFIG)

    class Mute(FramedChannel):
        def send_nowait(self, payloads: object) -> bool:
            raise RuntimeError("a defect")

    async with serving(succeed, endpoint) as server:
        near, far = trio.testing.memory_stream_pair()
        endpoint.offer(Mute(far, CONFIG, endpoint="memory", peer=ME))
        await near.send_all(frame(task()))
        assert await read_to_end(near) == b""
        whole = server.snapshot()
    assert (whole.connections_closed["internal_error"], whole.requests_failed["internal_error"]) == (1, 1)


@pytest.mark.parametrize("refusal", ["at once", "in the end"])
async def test_who_is_refused_by_the_limit_counts_as_a_timeout_only_after_a_wait(
    autojump_clock: MockClock, refusal: str
) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(hang, endpoint) as server:
        ends = [endpoint.connect() for _ in range(5 if refusal == "at once" else 3)]
        await trio.testing.wait_all_tasks_blocked()
        if refusal == "in the end":
            await trio.sleep(1.1)
        whole = server.snapshot()
        for end in ends:
            await end.aclose()
    assert whole.connections_refused["limit"] == 1
    assert whole.timeouts["accept"] == (refusal == "in the end")


async def test_a_connection_counts_for_the_transport_that_it_came_by(config: IpcConfig) -> None:
    config = config.replace(transport="interprocess")
    async with serving(Handler(), config) as server, open_client(DETECTION, config) as old:
        await old.call(task())
        await server.switch_transport("legacy")
        async with open_client(DETECTION, config) as new:
            await new.call(task("raise"))
            await old.call(task())
            whole = server.snapshot()
        assert whole.transport == "legacy"
        parts = whole.by_transport
        assert {name: part.connections_active for name, part in parts.items()} == {
            "interprocess": 1,
            "legacy": 1,
        }
        assert (parts["interprocess"].requests, parts["legacy"].requests) == (2, 1)
        assert (whole.requests, whole.requests_failed["handler"]) == (3, 1)
        assert whole.handler_seconds.count == 3
        assert disagreements(whole) == []
        await server.switch_transport("interprocess")
        await old.call(task())
        assert server.snapshot().by_transport["interprocess"].requests == 3, "it goes on counting"
