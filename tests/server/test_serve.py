from __future__ import annotations

import errno
import logging
import os

import pytest
import trio
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from trio.testing import MockClock

from tests.platforms import NOBODY, exists, fails_under_wine, unix_only
from tests.server.support import (
    CONFIG,
    Gate,
)
from tests.support import (
    IN_MEMORY,
    ME,
    DetectionServer,
    MemoryEndpoint,
    frame,
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
    Contract,
    EndpointError,
    EndpointInUseError,
    FramedChannel,
    IpcConfig,
    PeerClosedError,
    PeerCredentials,
    PeerPolicy,
    open_client,
    serve,
    serve_listener,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.transports import connect

# --- Answering ----------------------------------------------------------------------------------------------


async def test_requests_are_answered_over_a_real_socket(config: IpcConfig) -> None:
    async with serving(succeed, config) as server, open_client(DETECTION, config) as client:
        assert server.endpoint == config.endpoint_path
        for number in range(3):
            assert await client.call(task(f"t{number}")) == success(f"t{number}")


async def test_any_pair_of_protobuf_messages_can_be_served(config: IpcConfig) -> None:
    contract = Contract(name="length", request_type=StringValue, response_type=Int64Value)

    async def length(request: StringValue, _: Call) -> Int64Value:
        return Int64Value(value=len(request.value))

    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[object]) -> None:
            await serve(length, contract, config, task_status=task_status)

        await nursery.start(run)
        async with open_client(contract, config) as client:
            assert await client.call(StringValue(value="four")) == Int64Value(value=4)
        nursery.cancel_scope.cancel()


async def test_a_handler_sees_whom_it_serves_and_until_when(
    config: IpcConfig, autojump_clock: MockClock
) -> None:
    seen: list[Call] = []

    async def look(task: DetectionTask, call: Call) -> DetectionResult:
        seen.append(call)
        return success(task.task_id)

    config = config.replace(handler_timeout_ms=7_000)
    async with (
        serving(look, config),
        open_client(DETECTION, config) as first,
        open_client(DETECTION, config) as second,
    ):
        await first.call(task())
        await second.call(task())
    assert [call.peer for call in seen] == [ME, ME]
    assert [call.connection for call in seen] == [1, 2]
    assert seen[0].deadline == pytest.approx(trio.current_time() + 7, abs=1)


async def test_requests_sent_ahead_are_answered_in_their_order(endpoint: MemoryEndpoint) -> None:
    async with serving(succeed, endpoint), endpoint.connect() as client:
        await client.send_all(b"".join(frame(task(str(number))) for number in range(50)))
        results = await read_results(client, 50)
    assert [result.task_id for result in results] == [str(number) for number in range(50)]


async def test_connections_are_served_at_the_same_time(endpoint: MemoryEndpoint) -> None:
    gate = Gate()

    async def handler(task: DetectionTask, call: Call) -> DetectionResult:
        return await (gate if task.task_id == "slow" else succeed)(task, call)

    async with serving(handler, endpoint), trio.open_nursery() as nursery:
        slow, quick = endpoint.client(), endpoint.client()
        nursery.start_soon(slow.call, task("slow"))
        await gate.entered.wait()
        assert await quick.call(task("quick")) == success("quick")
        gate.open.set()


@unix_only  # a pipe is closed whole
async def test_a_half_closed_client_still_gets_the_response_of_a_slow_handler(
    config: IpcConfig, autojump_clock: MockClock
) -> None:
    async def slow(task: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep(5)
        return success(task.task_id)

    async with serving(slow, config), await connect(config.endpoint_path) as client:
        await client.send_all(frame(task()))
        await client.send_eof()
        assert results_in(await read_to_end(client)) == [success()]


# --- The listener's bad days --------------------------------------------------------------------------------


async def test_a_system_out_of_descriptors_is_waited_out(
    endpoint: MemoryEndpoint, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(succeed, endpoint):
        for code in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            endpoint.fail(OSError(code, os.strerror(code)))
        assert await endpoint.client().call(task()) == success()
        assert trio.current_time() == pytest.approx(0.3)
    assert "cannot accept: Too many open files; trying again in 0.1 s" in caplog.text


@pytest.mark.parametrize(
    "exc", [OSError(errno.EINVAL, "Invalid argument"), trio.ClosedResourceError("closed by somebody else")]
)
async def test_a_listener_that_fails_ends_the_server_with_one_error_and_its_cause(
    endpoint: MemoryEndpoint, exc: Exception
) -> None:
    endpoint.fail(exc)
    with pytest.raises(EndpointError, match=f"{IN_MEMORY}: the listener failed: .*start it again") as caught:
        await serve_listener(succeed, DETECTION, endpoint, CONFIG)
    assert caught.value.__cause__ is exc


@fails_under_wine("FILE_FLAG_FIRST_PIPE_INSTANCE is ignored", versions=[8, 10], run=False)
async def test_an_endpoint_in_use_is_a_bare_error(config: IpcConfig) -> None:
    async with serving(succeed, config):
        with pytest.raises(EndpointInUseError, match=f"in use by process {os.getpid()}"):
            await serve(succeed, DETECTION, config)


async def test_a_defect_on_one_connection_costs_no_other(
    endpoint: MemoryEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    class Defective(FramedChannel):
        async def fill(self, deadline: float | None = None) -> bool:
            raise RuntimeError("a defect")

    _, far = trio.testing.memory_stream_pair()
    async with serving(succeed, endpoint) as server:
        endpoint.offer(Defective(far, CONFIG, endpoint="memory", peer=ME))
        assert await endpoint.client().call(task()) == success()
        await trio.testing.wait_all_tasks_blocked()
        assert server.snapshot().connections_served == 2
    assert "closed by an internal error" in caplog.text


async def test_a_defect_that_comes_with_the_servers_cancellation_does_not_leave_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Defective(FramedChannel):
        async def fill(self, deadline: float | None = None) -> bool:
            try:
                await trio.sleep_forever()
            finally:
                raise RuntimeError("a defect")

    endpoint = MemoryEndpoint(CONFIG)
    _, far = trio.testing.memory_stream_pair()
    async with serving(succeed, endpoint) as server:
        endpoint.offer(Defective(far, CONFIG, endpoint="memory", peer=ME))
        await trio.testing.wait_all_tasks_blocked()
    assert server.snapshot().connections_closed["internal_error"] == 1
    assert "closed by an internal error" in caplog.text


# --- Who may come -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", [PeerCredentials(pid=9, uid=12_345), None])
async def test_a_peer_that_is_not_allowed_is_closed_counted_and_logged(
    peer: PeerCredentials | None, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = MemoryEndpoint(CONFIG, peer)
    async with serving(succeed, endpoint) as server, endpoint.connect() as client:
        assert await read_to_end(client) == b""
        assert server.snapshot().connections_refused["credentials"] == 1
        assert server.snapshot().connections_served == 0
    assert (
        f"connection 1 refused: {peer} is not allowed, allowed is {PeerPolicy.own_user_and_root()}"
        in caplog.text
    )


async def test_the_policy_is_the_callers_to_set(config: IpcConfig) -> None:
    refuse = PeerPolicy.users([NOBODY])
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[DetectionServer]) -> None:
            await serve(succeed, DETECTION, config, peers=refuse, task_status=task_status)

        await nursery.start(run)
        async with open_client(DETECTION, config) as client:
            with pytest.raises(PeerClosedError):
                await client.call(task())
        nursery.cancel_scope.cancel()


async def test_a_policy_that_is_none_is_refused_before_there_is_an_endpoint(config: IpcConfig) -> None:
    with pytest.raises(TypeError, match="peers is a set, must be a PeerPolicy"):
        await serve(succeed, DETECTION, config, peers={0})  # type: ignore[arg-type]
    assert not exists(config.endpoint_path)


# --- What can be seen ---------------------------------------------------------------------------------------


async def test_a_snapshot_says_what_happened_until_it_was_taken(config: IpcConfig) -> None:
    async with serving(succeed, config) as server, open_client(DETECTION, config) as client:
        await client.call(task())
        # The response may be here before the server's task hears that it was taken.
        await trio.testing.wait_all_tasks_blocked()
        counters = server.snapshot()
        assert counters.transport == config.transport
        assert (counters.connections_accepted, counters.connections_served) == (1, 1)
        assert (counters.requests, counters.frames_received, counters.frames_sent) == (1, 1, 1)
        assert counters.bytes_received == len(frame(task())) == client.snapshot().bytes_sent
        assert counters.bytes_sent == len(frame(success())) == client.snapshot().bytes_received
        await client.call(task())
        assert counters.requests == 1


async def test_a_connection_is_one_line_when_opened_and_one_when_closed(
    config: IpcConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ipc")
    async with serving(succeed, config) as server:
        async with open_client(DETECTION, config) as client:
            await client.call(task())
        server.stop()
        await server.wait_stopped()
    lines = [record for record in caplog.records if record.name == "trio_ipc.server"]
    assert [record.getMessage() for record in lines] == [
        f"listening at {config.endpoint_path}",
        f"connection 1 opened by {ME}",
        "connection 1 closed: the peer closed the connection",
    ]
    assert lines[1].__dict__["endpoint"] == config.endpoint_path
    assert lines[1].__dict__["peer"] == str(ME)


async def test_without_a_configuration_the_environment_is_asked(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_IPC_ENDPOINT_PATH", config.endpoint_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, succeed, DETECTION)
        async with open_client(DETECTION) as client:
            assert client.endpoint == config.endpoint_path
            assert await client.call(task()) == success()
        nursery.cancel_scope.cancel()
