"""How a server ends: stopped, cancelled, or both."""

from __future__ import annotations

import contextlib
import errno
import sys
import threading

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.adapters import DEADLINE
from tests.platforms import can_be_found, exists
from tests.server.support import (
    CONFIG,
    Gate,
)
from tests.support import (
    ME,
    DetectionServer,
    MemoryEndpoint,
    frame,
    hang,
    read_to_end,
    results_in,
    serving,
    succeed,
    success,
    task,
)
from trio_ipc import (
    Call,
    Channel,
    EndpointError,
    FramedChannel,
    IpcConfig,
    PeerClosedError,
    ServerNotFoundError,
    in_threads,
    open_client,
    serve,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.transports import connect


async def test_a_stop_closes_idle_connections_removes_the_endpoint_and_lets_serve_return(
    config: IpcConfig,
) -> None:
    async with trio.open_nursery() as nursery:
        server: DetectionServer = await nursery.start(serve, succeed, DETECTION, config)
        async with open_client(DETECTION, config) as client:
            assert await client.call(task()) == success()
            server.stop()
            server.stop()
            await server.wait_stopped()
            assert not exists(config.endpoint_path)
            with pytest.raises(PeerClosedError):
                await client.call(task())
    with pytest.raises(ServerNotFoundError):
        async with open_client(DETECTION, config):
            pass


async def test_a_request_in_flight_is_answered_before_the_stop(
    config: IpcConfig, autojump_clock: MockClock
) -> None:
    async def slow(task: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep(4)
        return success(task.task_id)

    async with trio.open_nursery() as nursery:
        server: DetectionServer = await nursery.start(serve, slow, DETECTION, config)
        async with await connect(config.endpoint_path) as client:
            await client.send_all(frame(task("one")))
            await trio.sleep(1)
            server.stop()
            await trio.testing.wait_all_tasks_blocked()
            # A pipe has its name for as long as there is a connection.
            assert exists(config.endpoint_path) == (sys.platform == "win32")
            assert results_in(await read_to_end(client)) == [success("one")]
    assert trio.current_time() == pytest.approx(4)


async def test_a_request_of_which_only_the_first_bytes_have_come_is_answered_too(
    endpoint: MemoryEndpoint,
) -> None:
    async with serving(succeed, endpoint) as server, endpoint.connect() as client:
        await client.send_all(frame(task())[:3])
        await trio.testing.wait_all_tasks_blocked()
        server.stop()
        await trio.testing.wait_all_tasks_blocked()
        await client.send_all(frame(task())[3:])
        assert results_in(await read_to_end(client)) == [success()]


async def test_what_is_not_done_when_the_grace_is_over_is_cut_off(
    endpoint: MemoryEndpoint, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(hang, endpoint) as server, endpoint.connect() as client:
        await client.send_all(frame(task()))
        await trio.sleep(1)
        server.stop()
        assert await read_to_end(client) == b""
        assert trio.current_time() == pytest.approx(1 + 5)
        await server.wait_stopped()
    assert "requests were cut off: 1, the limit shutdown_grace_ms is 5000" in caplog.text


async def test_who_waits_for_a_place_is_not_kept_waiting_by_a_stop(
    endpoint: MemoryEndpoint, autojump_clock: MockClock
) -> None:
    async with serving(hang, endpoint) as server:
        busy = [endpoint.connect() for _ in range(2)]
        for stream in busy:
            await stream.send_all(frame(task()))
        await trio.sleep(1)
        waiting = endpoint.connect()
        await trio.testing.wait_all_tasks_blocked()
        server.stop()
        assert await read_to_end(waiting) == b""
        assert trio.current_time() == pytest.approx(1)


class FailsAtOnce(MemoryEndpoint):
    """Once it is told to, fails and closes without ever letting another task run between."""

    failing = False

    async def accept(self) -> Channel:
        if self.failing:
            raise OSError(errno.EINVAL, "Invalid argument")
        self.failing = isinstance(channel := await super().accept(), LastChannel)
        return channel

    async def aclose(self) -> None:
        self._receive.close()


class LastChannel(FramedChannel):
    """Makes its listener fail after it."""


@pytest.mark.parametrize("places_taken", [0, 2])
async def test_a_connection_that_starts_after_the_stop_does_not_hang_it(
    autojump_clock: MockClock, places_taken: int
) -> None:
    endpoint = FailsAtOnce(CONFIG.replace(handler_timeout_ms=1_000, shutdown_grace_ms=60_000))
    with pytest.RaisesGroup(EndpointError):
        async with serving(hang, endpoint) as server:
            busy = [endpoint.connect() for _ in range(places_taken)]
            for stream in busy:
                await stream.send_all(frame(task()))
            await trio.testing.wait_all_tasks_blocked()
            near, far = trio.testing.memory_stream_pair()
            endpoint.offer(LastChannel(far, endpoint.config, endpoint="memory", peer=ME))
            with trio.CancelScope(shield=True):
                assert await read_to_end(near) == b""
                assert trio.current_time() == 0
                await server.wait_stopped()
            assert server.snapshot().connections_left == (1 if places_taken else 0)


async def test_a_stop_without_grace_and_without_requests_cuts_nothing_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint = MemoryEndpoint(CONFIG.replace(shutdown_grace_ms=0))
    async with serving(succeed, endpoint) as server:
        client = endpoint.client()
        await client.call(task())
        server.stop()
        await server.wait_stopped()
        assert server.snapshot().requests_failed["cut_off"] == 0
        assert server.snapshot().connections_closed["stopped"] == 1
    assert "cut off" not in caplog.text


async def test_requests_that_came_before_the_stop_are_answered_however_the_first_one_fares(
    config: IpcConfig, autojump_clock: MockClock
) -> None:
    async def by_name(task: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep(float(task.task_id))
        return success(task.task_id)

    for seconds in ("0.001", "1"):
        async with (
            serving(by_name, config) as server,
            await connect(config.endpoint_path) as client,
        ):
            await client.send_all(frame(task(seconds)))
            await trio.testing.wait_all_tasks_blocked()
            await client.send_all(frame(task("0")))
            server.stop()
            assert results_in(await read_to_end(client)) == [success(seconds), success("0")]


async def test_all_that_had_come_before_the_stop_is_answered(config: IpcConfig) -> None:
    """In one write, of which legacy takes one request at a time."""
    gate = Gate()
    names = [f"request {number}" for number in range(200)]
    async with serving(gate, config) as server, await connect(config.endpoint_path) as client:
        await client.send_all(b"".join(frame(task(name)) for name in names))
        await gate.entered.wait()
        server.stop()
        gate.open.set()
        assert [result.task_id for result in results_in(await read_to_end(client))] == names


@pytest.mark.parametrize("poll_attempts", [0, 75])
async def test_a_client_that_calls_on_and_on_does_not_hold_up_the_stop(
    config: IpcConfig, poll_attempts: int, mock_clock: MockClock
) -> None:
    calls = 0
    settings = config.replace(poll_attempts=poll_attempts)
    async with serving(succeed, settings) as server, open_client(DETECTION, settings) as client:
        with contextlib.suppress(PeerClosedError):
            while calls < 1_000:
                assert await client.call(task()) == success()
                calls += 1
                if calls == 50:
                    server.stop()
        await server.wait_stopped()
        assert server.snapshot().connections_closed["stopped"] == 1
    assert calls < 50 + 280, "as many as a socket holds"


async def test_a_client_that_sends_on_and_on_does_not_hold_up_the_stop(
    config: IpcConfig, mock_clock: MockClock
) -> None:
    """Taken is what a socket holds and one read, and no more: what was sent when cannot be told."""
    async with (
        serving(succeed, config) as server,
        await connect(config.endpoint_path) as client,
        trio.open_nursery() as nursery,
    ):

        async def send() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                for _ in range(1_000):  # an end, so that the test has one where the stop waits for it
                    await client.send_all(frame(task()) * 8)

        nursery.start_soon(send)
        nursery.start_soon(read_to_end, client)
        while server.snapshot().requests < 100:
            await trio.lowlevel.checkpoint()
        server.stop()
        taken = server.snapshot().requests
        await server.wait_stopped()
        assert server.snapshot().connections_closed["stopped"] == 1
        assert server.snapshot().requests - taken < 280 + 65_536 // len(frame(task()))


async def test_a_cancelled_server_ends_at_once_and_removes_its_endpoint(
    config: IpcConfig, autojump_clock: MockClock
) -> None:
    gate = Gate()
    async with serving(gate, config), await connect(config.endpoint_path) as client:
        await client.send_all(frame(task()))
        await gate.entered.wait()
    assert gate.cancelled
    assert not exists(config.endpoint_path)
    assert trio.current_time() == 0


async def test_a_server_cancelled_while_a_handler_is_watched_ends_at_once(
    config: IpcConfig, autojump_clock: MockClock
) -> None:
    """Handler and watch are cancelled in either order, so try both."""
    for _ in range(20):
        async with serving(hang, config), await connect(config.endpoint_path) as client:
            await client.send_all(frame(task()))
            await trio.sleep(1)  # by the mock clock: the handler is being watched


@pytest.mark.parametrize("ending", ["cancelled", "handler"])
async def test_the_endpoint_goes_at_once_though_a_handler_is_in_a_thread_that_goes_on(
    config: IpcConfig, ending: str
) -> None:
    go_on = threading.Event()
    begun = trio.Event()
    scope = trio.CancelScope()

    def handle(request: DetectionTask, _: Call) -> DetectionResult:
        if request.task_id == "end":
            raise SystemExit(3)
        trio.from_thread.run_sync(begun.set)
        assert go_on.wait(DEADLINE)
        return success(request.task_id)

    async def run(task_status: trio.TaskStatus[DetectionServer]) -> None:
        with pytest.raises(SystemExit) if ending == "handler" else scope:
            await serve(in_threads(handle), DETECTION, config, task_status=task_status)

    async def call(task_id: str) -> None:
        async with open_client(DETECTION, config) as client:
            with contextlib.suppress(PeerClosedError):  # what a thread has done may still be told
                await client.call(task(task_id))

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        nursery.start_soon(call, "1")
        await begun.wait()
        try:
            if ending == "handler":
                await call("end")
            scope.cancel()
            await wait_all_tasks_blocked()
            assert not can_be_found(config.endpoint_path)
        finally:
            go_on.set()
