"""Users' handlers, whatever they do: one failed response, a log entry that helps, and nobody else's loss."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
import trio
import trio.lowlevel
from google.protobuf.wrappers_pb2 import StringValue
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.hardening.record import Attack
from tests.server.handling import CONFIG, Panic, answering
from tests.support import (
    Handler,
    MemoryEndpoint,
    frame,
    serving,
    succeed,
    success,
    task,
)
from trio_ipc import Call, Contract, IpcConfig, serve, serve_listener
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask


def raising_once(exc: BaseException, *, after_a_wait: bool) -> Handler:
    raised = False

    async def handler(request: DetectionTask, _: Call) -> DetectionResult:
        nonlocal raised
        if after_a_wait:
            await trio.lowlevel.checkpoint()
        if not raised:
            raised = True
            raise exc
        return success(request.task_id)

    return handler


# --- What they raise ----------------------------------------------------------------------------------------


def somebody_elses_cancelled() -> trio.Cancelled:
    """What leaves another run, in a thread, say."""

    async def main() -> trio.Cancelled:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as exc:
                return exc
        raise AssertionError("unreachable")

    return trio.run(main)


class PanicInItsTextError(Exception):
    def __str__(self) -> str:
        raise Panic("at line 2")


def deep(leaf: BaseException) -> BaseException:
    """A group that is deeper than Python's stack."""
    for _ in range(5_000):
        leaf = BaseExceptionGroup("deep", [leaf])
    return leaf


RAISED: list[tuple[Callable[[], BaseException], str]] = [
    (lambda: ValueError("no"), "ValueError: no"),
    (lambda: asyncio.CancelledError("gone"), "CancelledError: gone"),
    (lambda: Panic("at line 1"), "Panic: at line 1"),
    (somebody_elses_cancelled, "Cancelled: "),
    (lambda: BaseExceptionGroup("two", [Panic("one"), ValueError("two")]), "Panic: one; ValueError: two"),
    (
        lambda: BaseExceptionGroup("deep", [ExceptionGroup("er", [KeyError("k")]), asyncio.CancelledError()]),
        "KeyError: 'k'; CancelledError: ",
    ),
    (lambda: ExceptionGroup("six", [OSError(str(n)) for n in range(6)]), "OSError: 3; and 2 more"),
    (lambda: StopAsyncIteration("early"), "StopAsyncIteration: early"),
    (lambda: GeneratorExit("its own"), "GeneratorExit: its own"),
    (lambda: BaseExceptionGroup("one", [GeneratorExit("its own")]), "GeneratorExit: its own"),
    (PanicInItsTextError, "PanicInItsTextError (its text cannot be made)"),
    (lambda: deep(ValueError("leaf")), "ValueError: leaf"),
]


@pytest.mark.parametrize("after_a_wait", [False, True])
@pytest.mark.parametrize(("make", "told"), RAISED, ids=[told for _, told in RAISED])
async def test_whatever_a_handler_raises_is_one_failed_response_and_a_log_entry(
    make: Callable[[], BaseException], told: str, after_a_wait: bool, caplog: pytest.LogCaptureFixture
) -> None:
    exc = await trio.to_thread.run_sync(make)
    async with answering(raising_once(exc, after_a_wait=after_a_wait)) as (server, client):
        failed = await client.call(task())
        assert (failed.success, failed.error_message[:19]) == (False, "the handler failed:")
        assert told in failed.error_message
        assert await client.call(task()) == success(), "the same connection goes on"
        assert server.snapshot().requests_failed["handler"] == 1
    [record] = [record for record in caplog.records if record.getMessage() == "the handler failed"]
    assert record.exc_info is not None
    assert record.exc_info[1] is exc


async def test_of_failed_handlers_ten_a_second_have_a_traceback_and_the_rest_a_number(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(_request: DetectionTask, _: Call) -> DetectionResult:
        raise ValueError

    async with answering(handler) as (server, client):
        for _ in range(300):
            await client.call(task())
        await trio.sleep(1.5)
        await client.call(task())
        assert server.snapshot().requests_failed["handler"] == 301
    lines = [record.getMessage() for record in caplog.records if record.name == "trio_ipc.server"]
    assert lines.count("the handler failed") == 11
    assert "more requests failed: 290" in lines


async def test_a_handler_that_was_cancelled_by_its_deadline_is_not_heard_whatever_it_raises(
    autojump_clock: MockClock,
) -> None:
    async def handler(_request: DetectionTask, _: Call) -> DetectionResult:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while it was cancelled")
        raise AssertionError("unreachable")

    async with answering(handler, CONFIG.replace(handler_timeout_ms=100)) as (server, client):
        result = await client.call(task())
        assert result.error_message == "the handler ran out of time, the limit is 100 ms"
        assert server.snapshot().requests_failed["handler_timeout"] == 1


async def test_a_group_of_cancellations_at_the_deadline_is_a_timeout(autojump_clock: MockClock) -> None:
    async def handler(_request: DetectionTask, _: Call) -> DetectionResult:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)
        raise AssertionError("unreachable")

    async with answering(handler, CONFIG.replace(handler_timeout_ms=100)) as (_, client):
        result = await client.call(task())
        assert result.error_message == "the handler ran out of time, the limit is 100 ms"


# --- What they are ------------------------------------------------------------------------------------------


def not_async(_request: DetectionTask, _call: Call) -> DetectionResult:
    return success()


class NotAsync:
    def __call__(self, _request: DetectionTask, _call: Call) -> DetectionResult:
        return success()


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (not_async, "which is not async: it must be an async function"),
        (NotAsync(), "which is not async"),
        (functools.partial(not_async), "which is not async"),
        (lambda _request, _call: None, "which is not async"),
        (None, "handler is None, which cannot be called"),
        (DETECTION, "which cannot be called"),
    ],
)
async def test_a_handler_that_is_not_async_is_refused_at_the_start(
    handler: Any, told: str, config: IpcConfig
) -> None:
    with pytest.raises(TypeError, match=told):
        await serve(handler, DETECTION, config)
    with pytest.raises(TypeError, match=told):
        await serve_listener(handler, DETECTION, MemoryEndpoint(CONFIG), CONFIG)


class Asynchronous:
    async def __call__(self, request: DetectionTask, _call: Call) -> DetectionResult:
        return success(request.task_id)

    async def method(self, request: DetectionTask, _call: Call) -> DetectionResult:
        return success(request.task_id)


def decorated(handler: Handler) -> Handler:
    @functools.wraps(handler)
    def wrapper(request: DetectionTask, call: Call) -> Any:
        return handler(request, call)

    return wrapper


async def with_more(_more: int, request: DetectionTask, _call: Call) -> DetectionResult:
    return success(request.task_id)


@pytest.mark.parametrize(
    "handler",
    [Asynchronous(), Asynchronous().method, functools.partial(with_more, 1), decorated(succeed)],
    ids=["object", "method", "partial", "decorated"],
)
async def test_whatever_is_async_may_be_a_handler(handler: Handler) -> None:
    async with answering(handler) as (_, client):
        assert await client.call(task()) == success()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((succeed, "detection"), "contract is 'detection', must be a Contract"),
        ((succeed, CONFIG), "must be a Contract"),
        ((succeed, DETECTION, "/run/x.sock"), "config is '/run/x.sock', must be an IpcConfig"),
        ((succeed, DETECTION, {}), "must be an IpcConfig"),
        ((DETECTION, succeed), "which cannot be called"),
    ],
)
async def test_a_wrong_argument_is_an_error_that_says_what_belongs_there(arguments: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        await serve(*arguments)


# --- What they leave behind ---------------------------------------------------------------------------------


MARK: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="nobody's")


@pytest.mark.parametrize("after_a_wait", [False, True])
async def test_each_request_begins_with_the_same_context(after_a_wait: bool) -> None:
    seen = []

    async def handler(request: DetectionTask, _: Call) -> DetectionResult:
        seen.append(MARK.get())
        MARK.set(request.task_id)
        if after_a_wait:
            await trio.lowlevel.checkpoint()
        assert MARK.get() == request.task_id
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inherit, request.task_id)
        assert await trio.to_thread.run_sync(MARK.get) == request.task_id
        return success(request.task_id)

    async def inherit(expected: str) -> None:
        assert MARK.get() == expected

    MARK.set("the server's")
    async with answering(handler) as (_, client):
        results = await client.call_many([task("a"), task("b")])
        results.append(await client.call(task("c")))
    assert [result.error_message for result in results] == ["", "", ""]
    assert seen == ["the server's"] * 3


async def test_a_contracts_failure_begins_with_the_same_context_each_time_and_leaves_none_behind() -> None:
    seen = []

    def failure(request: DetectionTask | None, reason: str) -> DetectionResult:
        seen.append(MARK.get())
        MARK.set("a failure's")
        return DetectionResult(task_id=request.task_id if request else "", error_message=reason)

    async def handler(_request: DetectionTask, _: Call) -> DetectionResult:
        seen.append(MARK.get())
        raise ValueError

    MARK.set("the server's")
    endpoint = MemoryEndpoint(CONFIG)
    contract = Contract(
        name="strange", request_type=DetectionTask, response_type=DetectionResult, failure=failure
    )
    async with serving(handler, endpoint, contract):
        await endpoint.client().call_many([task(), task()])
    assert seen == ["the server's"] * 4


async def test_a_handler_may_use_scopes_and_tokens_across_its_waits() -> None:
    async def handler(request: DetectionTask, _: Call) -> DetectionResult:
        token = MARK.set("inside")
        with trio.move_on_after(0.001) as scope:
            await trio.sleep_forever()
        assert scope.cancelled_caught
        MARK.reset(token)
        await trio.lowlevel.checkpoint()
        return success(request.task_id)

    async with answering(handler) as (_, client):
        assert await client.call(task()) == success()


# --- The contract's functions -------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [StringValue(value="no"), "no", None, object()])
async def test_a_contract_that_makes_no_failed_response_ends_the_connection_and_says_so(
    made: Any, caplog: pytest.LogCaptureFixture, attack: Attack
) -> None:
    contract = Contract(
        name="strange",
        request_type=DetectionTask,
        response_type=DetectionResult,
        failure=lambda _request, _reason: made,
    )
    endpoint = MemoryEndpoint(CONFIG)

    async def handler(_request: DetectionTask, _: Call) -> DetectionResult:
        raise ValueError

    async with serving(handler, endpoint, contract) as server:
        near = endpoint.connect()
        await near.send_all(frame(task()))
        assert await near.receive_some() == b""
        assert server.snapshot().connections_closed["unanswerable"] == 1
    assert f"failure of the contract strange returned {type(made).__name__}" in caplog.text
    attack(
        "a contract's `failure` returns another type",
        tried=1,
        outcome="never sent as a success: the connection closed, the log names the contract",
    )


@pytest.mark.parametrize(
    "exc",
    [ZeroDivisionError(), Panic("no"), asyncio.CancelledError(), ExceptionGroup("no", [ValueError()])],
    ids=lambda exc: type(exc).__name__,
)
async def test_whatever_a_contracts_failure_raises_ends_one_connection_and_no_server(
    exc: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def failure(_request: DetectionTask | None, _reason: str) -> DetectionResult:
        raise exc

    contract = Contract(
        name="strange", request_type=DetectionTask, response_type=DetectionResult, failure=failure
    )
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(raising_once(ValueError("bad"), after_a_wait=False), endpoint, contract) as server:
        near = endpoint.connect()
        await near.send_all(frame(task()))
        assert await near.receive_some() == b""
        assert await endpoint.client().call(task()) == success()
        assert server.snapshot().connections_closed["unanswerable"] == 1
    assert "the contract made no failed response of: the handler failed: ValueError: bad" in caplog.text


@pytest.mark.parametrize("raises", [False, True])
async def test_a_nursery_that_a_handler_has_left_open_costs_its_connection_and_no_server(
    raises: bool, caplog: pytest.LogCaptureFixture
) -> None:
    left_open = []

    async def numbers() -> AsyncGenerator[int, None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            yield 1

    async def handler(request: DetectionTask, _: Call) -> DetectionResult:
        if request.task_id == "leak":
            left_open.append(numbers())
            await left_open[-1].__anext__()
            if raises:
                raise ValueError
        return success(request.task_id)

    async with answering(handler) as (server, client):
        assert (await client.call(task("leak"))).success is not raises
        await client.aclose()
        await wait_all_tasks_blocked()
        assert server.snapshot().connections_closed["internal_error"] == 1
        server.stop()
        with trio.fail_after(5):
            await server.wait_stopped()
    assert "Cancel scope stack corrupted" in caplog.text
