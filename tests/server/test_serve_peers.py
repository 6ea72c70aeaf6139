"""Clients that leave, break the protocol, take their time or send ahead."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair

from tests.platforms import unix_only
from tests.server.support import (
    CONFIG,
    SILENT,
    Gate,
    returning,
)
from tests.support import (
    ME,
    MIB,
    MemoryEndpoint,
    frame,
    hang,
    read_results,
    read_to_end,
    results_in,
    serving,
    succeed,
    success,
    task,
)
from trio_ipc import (
    Call,
    FramedChannel,
    IpcConfig,
    open_client,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.transports import connect

# --- A client that leaves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, 3])
async def test_a_client_that_leaves_cancels_its_handler(config: IpcConfig, ahead: int) -> None:
    gate = Gate()
    async with serving(gate, config) as server:
        async with await connect(config.endpoint_path) as client:
            await client.send_all(frame(task()) * (1 + ahead))
            await gate.entered.wait()
        await gate.left.wait()
        assert gate.cancelled
        server.stop()
        await server.wait_stopped()
        assert server.snapshot().requests_failed["client_gone"] == 1
        assert server.snapshot().connections_active == 0


async def test_a_client_that_leaves_before_its_response_changes_nothing_for_others(config: IpcConfig) -> None:
    async with serving(succeed, config), open_client(DETECTION, config) as honest:
        for _ in range(20):
            async with await connect(config.endpoint_path) as client:
                await client.send_all(frame(task()))
            assert await honest.call(task()) == success()


# --- A peer that breaks the protocol ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (bytes(8), "protocol violation: a frame announces an invalid length of 0 bytes"),
        (b"GET / HTTP/1.1\r\n\r\n", "protocol violation: a frame of 542393671 bytes is too large"),
        (frame(task())[:-1] + b"x", "protocol violation: checksum mismatch"),
        (
            bytes.fromhex("040000007fc95c840a02fffe"),
            "protocol violation: a payload of 4 bytes does not decode",
        ),
    ],
)
async def test_a_violation_is_named_in_one_failed_response_and_ends_the_connection(
    config: IpcConfig, data: bytes, said: str
) -> None:
    async with serving(succeed, config) as server, open_client(DETECTION, config) as honest:
        async with await connect(config.endpoint_path) as client:
            await client.send_all(frame(task()) + data + frame(task()))
            answer, complaint = results_in(await read_to_end(client))
        assert answer == success()
        assert (complaint.task_id, complaint.success) == ("", False)
        assert complaint.error_message.startswith(said)
        assert await honest.call(task()) == success()
        assert server.snapshot().connections_closed["protocol_error"] == 1


@unix_only  # a pipe takes no bytes without a wait, in which the server may tell
async def test_a_violator_that_is_gone_cannot_be_told_and_that_is_all(
    config: IpcConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "trio_ipc")
    async with serving(succeed, config) as server, open_client(DETECTION, config) as honest:
        client = await connect(config.endpoint_path)
        assert client.write(bytes(8)) == 8
        client.close()  # in the same step: the server has had no turn
        assert await honest.call(task()) == success()
        server.stop()
        await server.wait_stopped()
    assert "the peer could not be told" in caplog.text


async def test_a_contract_without_failures_closes_on_a_violation(endpoint: MemoryEndpoint) -> None:
    async with serving(succeed, endpoint, SILENT), endpoint.connect() as client:
        await client.send_all(bytes(8))
        assert await read_to_end(client) == b""


# --- Deadlines and limits -----------------------------------------------------------------------------------


async def test_an_idle_connection_is_closed_after_the_read_timeout(
    endpoint: MemoryEndpoint, autojump_clock: MockClock
) -> None:
    async with serving(succeed, endpoint) as server, endpoint.connect() as client:
        assert await read_to_end(client) == b""
        assert trio.current_time() == pytest.approx(30)
        assert server.snapshot().timeouts["read"] == 1


async def test_a_client_that_does_not_read_is_let_go_after_the_write_timeout(
    config: IpcConfig, autojump_clock: MockClock
) -> None:
    large = DetectionResult(task_id="t", error_message="x" * (MIB - 100))
    async with serving(returning(large), config) as server:
        async with await connect(config.endpoint_path) as client:
            await client.send_all(frame(task()))
            await trio.sleep(11)
            assert server.snapshot().timeouts["write"] == 1
            assert server.snapshot().connections_active == 0


async def test_at_most_max_connections_are_served_and_the_next_waits_for_a_place(
    endpoint: MemoryEndpoint, autojump_clock: MockClock
) -> None:
    gate = Gate()
    async with serving(gate, endpoint) as server, trio.open_nursery() as nursery:
        clients = [endpoint.client() for _ in range(3)]
        for client in clients:
            nursery.start_soon(client.call, task())
        await trio.sleep(1)
        assert server.snapshot().connections_active == CONFIG.max_connections == 2
        gate.open.set()
        await trio.sleep(1)
        assert server.snapshot().requests == 2
        for client in clients[:2]:
            await client.aclose()
        await trio.sleep(1)
        assert server.snapshot().requests == 3
        assert server.snapshot().connections_refused["limit"] == 0


async def test_who_finds_no_place_within_the_accept_timeout_is_closed(
    endpoint: MemoryEndpoint, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(succeed, endpoint) as server, endpoint.connect(), endpoint.connect():
        await trio.testing.wait_all_tasks_blocked()
        async with endpoint.connect() as third:
            assert await read_to_end(third) == b""
        assert trio.current_time() == pytest.approx(5)
        assert server.snapshot().connections_refused["limit"] == 1
    assert "connection 3 refused: the limit max_connections is 2" in caplog.text


async def test_who_leaves_the_queue_keeps_nobody_else_out(
    endpoint: MemoryEndpoint, autojump_clock: MockClock
) -> None:
    async with serving(succeed, endpoint) as server, endpoint.connect() as first, endpoint.connect():
        for _ in range(5):
            async with endpoint.connect(), endpoint.connect():
                await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(0.2)  # the server looks every 100 ms
        assert server.snapshot().connections_left == 10
        waiting = endpoint.client()
        await trio.testing.wait_all_tasks_blocked()
        await first.aclose()
        assert await waiting.call(task()) == success()
        assert trio.current_time() == pytest.approx(1)
        assert server.snapshot().connections_refused["limit"] == 0


async def test_a_request_sent_while_waiting_for_a_place_is_kept(
    endpoint: MemoryEndpoint, autojump_clock: MockClock
) -> None:
    async with serving(succeed, endpoint), endpoint.connect() as first, endpoint.connect():
        await trio.testing.wait_all_tasks_blocked()
        async with endpoint.connect() as waiting:
            await waiting.send_all(frame(task("early")))
            await trio.testing.wait_all_tasks_blocked()
            await first.aclose()
            assert await read_results(waiting, 1) == [success("early")]


async def test_no_more_than_max_connections_wait_and_the_rest_is_closed_at_once(
    endpoint: MemoryEndpoint, autojump_clock: MockClock
) -> None:
    async with serving(succeed, endpoint) as server:
        streams = [endpoint.connect() for _ in range(10)]
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == 0
        counters = server.snapshot()
        assert (counters.connections_active, counters.connections_refused["limit"]) == (2, 6)
        for stream in streams:
            await stream.aclose()


async def test_a_flood_of_connections_does_not_keep_a_patient_client_out(config: IpcConfig) -> None:
    config = config.replace(max_connections=2)
    async with serving(succeed, config) as server:
        flood = [await connect(config.endpoint_path) for _ in range(60)]
        for stream in flood:
            await stream.aclose()
        async with open_client(DETECTION, config) as client:
            assert await client.call(task()) == success()
        assert server.snapshot().connections_accepted >= 60


# --- Requests sent ahead ------------------------------------------------------------------------------------


async def test_a_response_does_not_wait_for_a_slow_handler_behind_it(endpoint: MemoryEndpoint) -> None:
    gate = Gate()

    async def quick_then_slow(asked: DetectionTask, call: Call) -> DetectionResult:
        return await (gate if asked.task_id == "slow" else succeed)(asked, call)

    async with serving(quick_then_slow, endpoint) as server:
        async with endpoint.connect() as client:
            await client.send_all(b"".join(frame(task(name)) for name in ("a", "b", "slow", "c")))
            assert [result.task_id for result in await read_results(client, 2)] == ["a", "b"]
            await gate.entered.wait()
            assert server.snapshot().requests == 3
            gate.open.set()
            assert [result.task_id for result in await read_results(client, 2)] == ["slow", "c"]


async def test_however_many_come_at_a_time_each_is_answered(endpoint: MemoryEndpoint) -> None:
    async with serving(succeed, endpoint) as server:
        async with endpoint.connect() as client:
            names = [str(number) for number in range(1_000)]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send_all, b"".join(frame(task(name)) for name in names))
                assert [result.task_id for result in await read_results(client, 1_000)] == names
            assert server.snapshot().requests == server.snapshot().frames_sent == 1_000


async def test_what_was_answered_before_a_broken_frame_is_sent_and_then_the_reason(
    endpoint: MemoryEndpoint,
) -> None:
    async with serving(succeed, endpoint):
        async with endpoint.connect() as client:
            await client.send_all(frame(task("a")) + frame(task("b")) + bytes(8))
            a, b, why = results_in(await read_to_end(client))
            assert (a.task_id, b.task_id) == ("a", "b")
            assert not why.success
            assert "protocol violation" in why.error_message


async def test_a_handler_that_runs_out_of_time_costs_its_neighbours_nothing(
    autojump_clock: MockClock,
) -> None:
    endpoint = MemoryEndpoint(CONFIG.replace(handler_timeout_ms=100))

    async def some_hang(asked: DetectionTask, call: Call) -> DetectionResult:
        return await (hang if asked.task_id == "hang" else succeed)(asked, call)

    async with serving(some_hang, endpoint) as server:
        client = endpoint.connect()
        await client.send_all(b"".join(frame(task(name)) for name in ("a", "hang", "b")))
        results = await read_results(client, 3)
        assert [(result.task_id, result.success) for result in results] == [
            ("a", True),
            ("hang", False),
            ("b", True),
        ]
        assert server.snapshot().requests_failed["handler_timeout"] == 1


async def test_answers_that_nobody_reads_count_as_cut_off(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    near, far = lockstep_stream_pair()
    endpoint.offer(FramedChannel(far, CONFIG, endpoint="memory", peer=ME))
    async with serving(succeed, endpoint) as server:
        await near.send_all(frame(task("a")) + frame(task("b")) + frame(task("c")))
        await trio.testing.wait_all_tasks_blocked()
        server.stop()
        await server.wait_stopped()
        assert server.snapshot().requests == server.snapshot().requests_failed["cut_off"] == 3


async def test_a_handler_has_no_longer_because_a_response_ahead_of_it_is_not_taken(
    autojump_clock: MockClock,
) -> None:
    """What is sent early waits for a peer that does not read; the handler's deadline rings all the same."""
    config = CONFIG.replace(handler_timeout_ms=1_000, write_timeout_ms=10_000)
    endpoint = MemoryEndpoint(config)
    gate = Gate()

    async def first_then_hang(asked: DetectionTask, call: Call) -> DetectionResult:
        return await (gate if asked.task_id == "hangs" else succeed)(asked, call)

    near, far = lockstep_stream_pair()
    endpoint.offer(FramedChannel(far, config, endpoint="memory", peer=ME))
    async with serving(first_then_hang, endpoint) as server:
        await near.send_all(frame(task("a")) + frame(task("hangs")))
        await gate.left.wait()
        assert gate.cancelled
        assert trio.current_time() == 1
        [answered, late] = await read_results(near, 2)
        assert (answered.task_id, answered.success) == ("a", True)
        assert (late.task_id, late.success) == ("hangs", False)
        assert server.snapshot().requests_failed["handler_timeout"] == 1
