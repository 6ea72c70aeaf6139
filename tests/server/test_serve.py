from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator

import pytest
import trio
from google.protobuf.descriptor_pb2 import UninterpretedOption
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from trio.testing import MockClock, lockstep_stream_pair

from tests.platforms import NOBODY, exists, fails_under_wine, unix_only
from tests.support import (
    IN_MEMORY,
    ME,
    MIB,
    DetectionServer,
    Handler,
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
    RESPONSE_TOO_LARGE,
    Call,
    Channel,
    Client,
    Contract,
    EndpointError,
    EndpointInUseError,
    FramedChannel,
    IpcConfig,
    PeerClosedError,
    PeerCredentials,
    PeerPolicy,
    ServerNotFoundError,
    TransportType,
    open_client,
    serve,
    serve_listener,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.transports import connect

CONFIG = IpcConfig(endpoint_path=IN_MEMORY, max_connections=2)
SILENT = Contract(name="silent", request_type=DetectionTask, response_type=DetectionResult)


@pytest.fixture
def endpoint(transport: TransportType) -> Iterator[MemoryEndpoint]:
    made = MemoryEndpoint(CONFIG.replace(transport=transport))
    yield made
    made.ends.close()


def raising(exc: BaseException) -> Handler:
    async def handler(_task: DetectionTask, _call: Call) -> DetectionResult:
        raise exc

    return handler


def returning(response: DetectionResult) -> Handler:
    async def handler(_task: DetectionTask, _call: Call) -> DetectionResult:
        await trio.lowlevel.checkpoint()
        return response

    return handler


class Gate:
    """A handler that stays inside until it is let go, and tells what became of it."""

    def __init__(self) -> None:
        self.entered = trio.Event()
        self.open = trio.Event()
        self.left = trio.Event()
        self.cancelled = False

    async def __call__(self, task: DetectionTask, _: Call) -> DetectionResult:
        self.entered.set()
        try:
            await self.open.wait()
        except trio.Cancelled:
            self.cancelled = True
            raise
        finally:
            self.left.set()
        return success(task.task_id)


# --- Answering ----------------------------------------------------------------------


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
async def test_a_half_closed_client_still_gets_the_answer_of_a_slow_handler(
    config: IpcConfig, autojump_clock: MockClock
) -> None:
    async def slow(task: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep(5)
        return success(task.task_id)

    async with serving(slow, config), await connect(config.endpoint_path) as client:
        await client.send_all(frame(task()))
        await client.send_eof()
        assert results_in(await read_to_end(client)) == [success()]


# --- A handler's failure --------------------------------------------------------------


@pytest.mark.parametrize(
    ("exc", "said"),
    [
        (ValueError("no such thing"), "the handler failed: ValueError: no such thing"),
        (trio.TooSlowError(), "the handler failed: TooSlowError: "),
        (ExceptionGroup("two", [OSError("a"), OSError("b")]), "the handler failed: OSError: a; OSError: b"),
    ],
)
async def test_a_handler_that_raises_is_one_failed_response_and_a_traceback_in_the_log(
    endpoint: MemoryEndpoint, caplog: pytest.LogCaptureFixture, exc: Exception, said: str
) -> None:
    async with serving(raising(exc), endpoint) as server:
        client = endpoint.client()
        for task_id in ("one", "two"):
            result = await client.call(task(task_id))
            assert (result.task_id, result.success) == (task_id, False)
            assert result.error_message.startswith(said)
        assert server.snapshot().requests_failed["handler"] == 2
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].name == "trio_ipc.server"
    assert caplog.records[0].__dict__["connection"] == 1


async def test_a_very_long_reason_is_cut(endpoint: MemoryEndpoint) -> None:
    async with serving(raising(ValueError("x" * MIB)), endpoint):
        result = await endpoint.client().call(task())
    assert len(result.error_message) == 1_000


@pytest.mark.parametrize(("settings", "limit"), [({}, 30), ({"handler_timeout_ms": 5}, 0.005)])
async def test_a_handler_that_runs_out_of_time_is_one_failed_response(
    settings: dict[str, int], limit: float, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = MemoryEndpoint(CONFIG.replace(read_timeout_ms=30_000, **settings))

    async def sometimes(task: DetectionTask, call: Call) -> DetectionResult:
        return await (hang if task.task_id == "slow" else succeed)(task, call)

    async with serving(sometimes, endpoint) as server, endpoint.connect() as client:
        for task_id in ("slow", "quick", "slow"):
            start = trio.current_time()
            await client.send_all(frame(task(task_id)))
            [result] = await read_results(client, 1)
            assert result.task_id == task_id
            if task_id == "slow":
                assert trio.current_time() - start == pytest.approx(limit)
                assert (
                    result.error_message == f"the handler ran out of time, the limit is {limit * 1000:.0f} ms"
                )
        assert server.snapshot().requests_failed["handler_timeout"] == 2
        assert server.snapshot().requests_failed["handler"] == 0
    assert "the handler ran out of time" in caplog.text
    assert "in hang" in caplog.text  # the traceback says where it was


@pytest.mark.parametrize("ending", ["returns", "raises"])
async def test_what_a_handler_says_after_its_time_is_not_heard(
    endpoint: MemoryEndpoint, autojump_clock: MockClock, ending: str
) -> None:
    async def stubborn(task: DetectionTask, _: Call) -> DetectionResult:
        with trio.CancelScope(shield=True):
            await trio.sleep(60)
        if ending == "raises":
            raise ValueError("too late")
        return success(task.task_id)

    async with serving(stubborn, endpoint) as server, endpoint.connect() as client:
        await client.send_all(frame(task()))
        [result] = await read_results(client, 1)
        assert result.error_message.startswith("the handler ran out of time")
        assert server.snapshot().requests_failed["handler_timeout"] == 1
        assert server.snapshot().requests_failed["handler"] == 0


async def fail_in_cleanup(_task: DetectionTask, _call: Call) -> DetectionResult:
    """Raises a group that holds both a Cancelled and an error of its own."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cleanup failed")


@pytest.mark.parametrize("reason", ["time", "client gone", "grace", "cancelled"])
async def test_a_handler_whose_cleanup_fails_is_cancelled_all_the_same_and_the_failure_is_logged(
    config: IpcConfig, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    async with serving(fail_in_cleanup, config) as server:
        async with await connect(config.endpoint_path) as client:
            await client.send_all(frame(task()))
            await trio.sleep(1)
            if reason == "time":
                [result] = await read_results(client, 1)
                assert result.error_message.startswith("the handler ran out of time")
            elif reason == "grace":
                server.stop()
                assert await read_to_end(client) == b""
            elif reason == "cancelled":
                return
        server.stop()
        await server.wait_stopped()
        counters = server.snapshot()
        assert counters.requests_failed["handler"] == 0
        assert counters.requests_failed["handler_timeout"] == (reason == "time")
        assert counters.requests_failed["client_gone"] == (reason == "client gone")
        assert counters.requests_failed["cut_off"] == (reason == "grace")
    assert "ValueError: cleanup failed" in caplog.text


async def test_an_exception_without_a_text_is_named_by_its_type(endpoint: MemoryEndpoint) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    async with serving(raising(MuteError()), endpoint):
        result = await endpoint.client().call(task())
    assert result.error_message == "the handler failed: MuteError (its text cannot be made)"


async def test_many_short_calls_and_then_a_long_one_are_watched_alike(
    endpoint: MemoryEndpoint, autojump_clock: MockClock
) -> None:
    """The alarm that a short handler leaves behind must not ring for the next, nor fail to."""

    async def by_name(task: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep(float(task.task_id))
        return success(task.task_id)

    async with serving(by_name, endpoint):
        client = endpoint.client()
        for seconds in ("0", "0.004", "0.009", "0.009", "0.011", "3", "0.001", "0.02", "29", "0"):
            assert (await client.call(task(seconds))).success, seconds
        with pytest.raises(trio.TooSlowError), trio.fail_after(29.5):
            await client.call(task("31"))


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (DetectionResult(), "encodes to no bytes"),
        (DetectionResult(task_id="x" * MIB), f"{RESPONSE_TOO_LARGE}: {MIB + 4} bytes, the limit .* is {MIB}"),
        (DetectionTask(task_id="t"), "the handler returned DetectionTask, must be DetectionResult"),
        (None, "the handler returned NoneType, must be DetectionResult"),
    ],
)
async def test_a_response_that_cannot_be_sent_is_a_failed_one_that_says_so(
    endpoint: MemoryEndpoint, response: DetectionResult, said: str
) -> None:
    async with serving(returning(response), endpoint):
        client = endpoint.client()
        for _ in range(2):
            result = await client.call(task())
            assert not result.success
            with pytest.raises(AssertionError, match=said):
                raise AssertionError(result.error_message)


async def test_a_failed_response_that_does_not_fit_either_ends_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint = MemoryEndpoint(CONFIG.replace(max_frame_bytes=8))
    async with serving(raising(ValueError("a long story")), endpoint):
        with pytest.raises(PeerClosedError):
            await endpoint.client().call(task())
    assert "a failed response cannot be sent" in caplog.text


@pytest.mark.parametrize("handler", [raising(ValueError("x")), hang, returning(DetectionResult())])
async def test_a_contract_without_failures_closes_the_connection_instead(
    endpoint: MemoryEndpoint, autojump_clock: MockClock, handler: Handler
) -> None:
    async with serving(handler, endpoint, SILENT), endpoint.connect() as client:
        await client.send_all(frame(task()))
        assert await read_to_end(client) == b""


async def test_a_keyboard_interrupt_is_no_response(endpoint: MemoryEndpoint) -> None:
    """It goes through the server even where all else is being cancelled at the same time."""

    async def interrupted() -> None:
        async with serving(raising(KeyboardInterrupt()), endpoint), endpoint.connect() as client:
            await client.send_all(frame(task()))
            assert await read_to_end(client) == b""

    with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True):
        await interrupted()


async def test_a_keyboard_interrupt_leaves_serve_as_it_is(endpoint: MemoryEndpoint) -> None:
    async with endpoint.connect() as client:
        await client.send_all(frame(task()))
        with pytest.raises(KeyboardInterrupt):
            await serve_listener(raising(KeyboardInterrupt()), DETECTION, endpoint, CONFIG)


async def test_a_handlers_system_exit_ends_the_server_and_leaves_serve_as_it_is(
    endpoint: MemoryEndpoint,
) -> None:
    async with endpoint.connect() as client:
        await client.send_all(frame(task()))
        with pytest.raises(SystemExit, match="3"):
            await serve_listener(raising(SystemExit(3)), DETECTION, endpoint, CONFIG)


async def test_what_ends_a_program_leaves_serve_without_the_group_that_it_came_in(
    endpoint: MemoryEndpoint,
) -> None:
    both = BaseExceptionGroup("two", [ValueError(), BaseExceptionGroup("one", [SystemExit(3)])])
    async with endpoint.connect() as client:
        await client.send_all(frame(task()))
        with pytest.raises(SystemExit, match="3") as raised:
            await serve_listener(raising(both), DETECTION, endpoint, CONFIG)
    assert raised.value.__cause__ is both


async def test_a_reason_that_is_no_unicode_is_told_all_the_same(endpoint: MemoryEndpoint) -> None:
    async with serving(raising(ValueError("bad \udc80 name")), endpoint):
        result = await endpoint.client().call(task())
    assert result.error_message == "the handler failed: ValueError: bad ? name"


async def test_a_contract_that_fails_to_report_a_failure_costs_one_connection(
    endpoint: MemoryEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    def failure(request: DetectionTask | None, reason: str) -> DetectionResult:
        raise ZeroDivisionError

    broken = Contract(
        name="broken", request_type=DetectionTask, response_type=DetectionResult, failure=failure
    )
    async with serving(raising(ValueError("x")), endpoint, broken), endpoint.connect() as client:
        await client.send_all(frame(task()))
        assert await read_to_end(client) == b""
    assert "the contract made no failed response of: the handler failed: ValueError: x" in caplog.text


async def test_a_response_that_lacks_a_required_field_is_a_failure() -> None:
    """Only proto2 has such fields; the wire does not mind."""
    contract = Contract(
        name="proto2",
        request_type=DetectionTask,
        response_type=UninterpretedOption.NamePart,
        failure=lambda _, reason: UninterpretedOption.NamePart(name_part=reason, is_extension=False),
    )

    async def incomplete(_task: DetectionTask, _call: Call) -> UninterpretedOption.NamePart:
        return UninterpretedOption.NamePart(name_part="x")

    endpoint = MemoryEndpoint(CONFIG)
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[object]) -> None:
            await serve_listener(incomplete, contract, endpoint, CONFIG, task_status=task_status)

        await nursery.start(run)
        client = Client(
            FramedChannel(endpoint.connect(), CONFIG, endpoint="memory", peer=ME), contract, CONFIG
        )
        assert (await client.call(task())).name_part.startswith(
            "the handler's response cannot be sent: the NameP"
        )
        nursery.cancel_scope.cancel()


async def test_an_idle_connection_holds_no_message(endpoint: MemoryEndpoint) -> None:
    seen: list[DetectionTask | DetectionResult] = []

    async def remember(task: DetectionTask, _: Call) -> DetectionResult:
        seen.extend([task, success(task.task_id)])
        return seen[1]  # type: ignore[return-value]

    async with serving(remember, endpoint):
        assert await endpoint.client().call(task()) == success()
        await trio.testing.wait_all_tasks_blocked()
        # The list's reference, and the one that getrefcount() itself holds.
        assert [sys.getrefcount(seen[index]) for index in (0, 1)] == [2, 2]


# --- A client that leaves -------------------------------------------------------------


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


async def test_a_client_that_leaves_before_its_answer_changes_nothing_for_others(config: IpcConfig) -> None:
    async with serving(succeed, config), open_client(DETECTION, config) as honest:
        for _ in range(20):
            async with await connect(config.endpoint_path) as client:
                await client.send_all(frame(task()))
            assert await honest.call(task()) == success()


# --- A peer that breaks the protocol -----------------------------------------------------


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


async def test_a_violator_that_is_gone_cannot_be_told_and_that_is_all(
    config: IpcConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "trio_ipc")
    async with serving(succeed, config) as server, open_client(DETECTION, config) as honest:
        async with await connect(config.endpoint_path) as client:
            await client.send_all(bytes(8))
        assert await honest.call(task()) == success()
        server.stop()
        await server.wait_stopped()
    assert "the peer could not be told" in caplog.text


async def test_a_contract_without_failures_closes_on_a_violation(endpoint: MemoryEndpoint) -> None:
    async with serving(succeed, endpoint, SILENT), endpoint.connect() as client:
        await client.send_all(bytes(8))
        assert await read_to_end(client) == b""


# --- Deadlines and limits -----------------------------------------------------------------


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


# --- Stopping -----------------------------------------------------------------------------


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
    assert "1 requests were cut off, the limit shutdown_grace_ms is 5000" in caplog.text


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


# --- The listener's bad days ------------------------------------------------------------------


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


# --- Who may come -----------------------------------------------------------------------------


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


# --- What can be seen ---------------------------------------------------------------------------


async def test_a_snapshot_says_what_happened_until_it_was_taken(config: IpcConfig) -> None:
    async with serving(succeed, config) as server, open_client(DETECTION, config) as client:
        await client.call(task())
        # The answer may be here before the server's task hears that it was taken.
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


# --- Requests sent ahead ----------------------------------------------------------------------------------


async def test_an_answer_does_not_wait_for_a_slow_handler_behind_it(endpoint: MemoryEndpoint) -> None:
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


async def test_a_handler_has_no_longer_because_an_answer_ahead_of_it_is_not_taken(
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
