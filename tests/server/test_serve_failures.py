"""A handler's failure is one failed response, and never a lost server."""

from __future__ import annotations

import sys

import pytest
import trio
from google.protobuf.descriptor_pb2 import UninterpretedOption
from trio.testing import MockClock

from tests.server.support import (
    CONFIG,
    SILENT,
    returning,
)
from tests.support import (
    ME,
    MIB,
    Handler,
    MemoryEndpoint,
    frame,
    hang,
    read_results,
    read_to_end,
    serving,
    succeed,
    success,
    task,
)
from trio_ipc import (
    RESPONSE_TOO_LARGE,
    Call,
    Client,
    Contract,
    FramedChannel,
    IpcConfig,
    PeerClosedError,
    serve_listener,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.transports import connect


def raising(exc: BaseException) -> Handler:
    async def handler(_task: DetectionTask, _call: Call) -> DetectionResult:
        raise exc

    return handler


# --- A handler's failure ------------------------------------------------------------------------------------


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
