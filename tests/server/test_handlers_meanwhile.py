"""Handlers, their turns, what the client does meanwhile, and logging that fails."""

from __future__ import annotations

import functools
import gc
import logging
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.server.handling import CONFIG, Panic, answering
from tests.support import (
    DetectionServer,
    MemoryEndpoint,
    frame,
    hang,
    read_results,
    results_in,
    serving,
    success,
    task,
)
from trio_ipc import Call
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.server.outbox import Outbox
from trio_ipc.testing import MemoryEndpoint as BoundedEndpoint
from trio_ipc.testing import MemoryStream, open_server

# --- Fairness -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("greedy", [1, 4])
async def test_who_sends_ahead_holds_the_others_up_for_a_millisecond_at_a_time(
    greedy: int, mock_clock: MockClock
) -> None:
    async def busy(request: DetectionTask, _: Call) -> DetectionResult:
        mock_clock.jump(0.001)  # a millisecond of work in which nobody else runs
        return success(request.task_id)

    endpoint = MemoryEndpoint(CONFIG)
    async with serving(busy, endpoint) as server:
        for _ in range(greedy):
            await endpoint.connect().send_all(frame(task("ahead")) * 500)
        await trio.lowlevel.checkpoint()
        client = endpoint.client()
        for _ in range(5):
            began = trio.current_time()
            await client.call(task("other"))
            assert trio.current_time() - began < 0.001 * (4 * greedy + 8)
        async with trio.open_nursery() as nursery:  # accepting and stopping do not wait either
            nursery.start_soon(server.wait_stopped)
            began = trio.current_time()
            late = endpoint.client()
            await late.call(task("late"))
            assert trio.current_time() - began < 0.001 * (4 * greedy + 12)
            nursery.cancel_scope.cancel()


async def test_what_was_answered_in_a_turn_is_sent_at_its_end(mock_clock: MockClock) -> None:
    async def busy(request: DetectionTask, _: Call) -> DetectionResult:
        mock_clock.jump(0.001)
        return success(request.task_id)

    endpoint = MemoryEndpoint(CONFIG)
    async with serving(busy, endpoint):
        near = endpoint.connect()
        await near.send_all(frame(task()) * 50)
        assert len(results_in(bytes(await near.receive_some()))) < 50


async def test_what_was_answered_is_sent_while_the_next_handler_waits(autojump_clock: MockClock) -> None:
    async def handler(request: DetectionTask, _: Call) -> DetectionResult:
        if request.task_id == "slow":
            await trio.sleep(5)
        return success(request.task_id)

    endpoint = MemoryEndpoint(CONFIG)
    async with serving(handler, endpoint):
        near = endpoint.connect()
        await near.send_all(frame(task("first")) + frame(task("slow")))
        assert results_in(bytes(await near.receive_some())) == [success("first")]
        assert trio.current_time() == 0


async def test_what_was_answered_while_the_client_made_no_room_waits_for_no_further_handler(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: DetectionTask, _: Call) -> DetectionResult:
        if request.task_id == "large":
            return DetectionResult(task_id="x" * 20_000, success=True)
        await trio.sleep(5) if request.task_id == "slow" else await trio.lowlevel.checkpoint()
        return success(request.task_id)

    endpoint = BoundedEndpoint(buffer_bytes=10_000)
    async with open_server(handler, DETECTION, endpoint) as server:
        client = await endpoint.connect()
        await client.send_all(b"".join(frame(task(name)) for name in ("large", "quick", "slow")))
        await wait_all_tasks_blocked()
        assert (await read_results(client, 2))[1] == success("quick")
        assert trio.current_time() == 0
        await wait_all_tasks_blocked()
        assert server.snapshot().requests_answered == 2


async def test_a_handlers_time_ends_with_it(autojump_clock: MockClock) -> None:
    async def wait(request: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep(1)
        return success(request.task_id)

    endpoint = MemoryEndpoint(CONFIG.replace(handler_timeout_ms=5_000, read_timeout_ms=30_000))
    async with serving(wait, endpoint) as server:
        client = endpoint.client()
        for _ in range(3):
            assert await client.call(task()) == success()
            await trio.sleep(20)
        assert server.snapshot().timeouts == dict.fromkeys(server.snapshot().timeouts, 0)


# --- What the client does meanwhile -------------------------------------------------------------------------


async def test_a_write_timeout_while_a_handler_runs_counts_as_a_write_timeout(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def handler(request: DetectionTask, call: Call) -> DetectionResult:
        if request.task_id == "slow":
            return await hang(request, call)
        return DetectionResult(task_id="x" * 20_000, success=True)

    endpoint = BoundedEndpoint(buffer_bytes=10_000)
    async with open_server(handler, DETECTION, endpoint, write_timeout_ms=2_000) as server:
        client = await endpoint.connect()
        await client.send_all(frame(task("large")) + frame(task("slow")))
        await trio.sleep(3)
        counters = server.snapshot()
        assert counters.timeouts["write"] == 1
        assert counters.connections_closed["write_timeout"] == 1
        assert counters.requests_failed["client_gone"] == 0
        assert counters.requests_failed["response_undelivered"] == 2
    assert "closed: timed out handing over a message" in caplog.text


async def test_a_connection_whose_responses_could_not_be_sent_is_let_go_at_once(
    autojump_clock: MockClock,
) -> None:
    """The error knows the frames that hold the responses, and must not wait for the garbage collector."""

    async def handler(request: DetectionTask, call: Call) -> DetectionResult:
        if request.task_id == "slow":
            return await hang(request, call)
        return DetectionResult(task_id="x" * 20_000, success=True)

    def outboxes() -> int:
        return sum(isinstance(thing, Outbox) for thing in gc.get_objects())

    endpoint = BoundedEndpoint(buffer_bytes=10_000)
    async with open_server(handler, DETECTION, endpoint, write_timeout_ms=2_000) as server:
        gc.collect()
        before = outboxes()
        gc.disable()
        try:
            client = await endpoint.connect()
            await client.send_all(frame(task("large")) + frame(task("slow")))
            await trio.sleep(3)
            assert server.snapshot().connections_closed["write_timeout"] == 1
            assert outboxes() <= before
        finally:
            gc.enable()


@asynccontextmanager
async def first_response_half_sent() -> AsyncIterator[tuple[DetectionServer, MemoryStream]]:
    """A server with two responses for a client that has taken nothing, and room for half of the first one.

    The second was made while the first was being sent.
    """
    done = trio.Event()

    async def handler(request: DetectionTask, _: Call) -> DetectionResult:
        if request.task_id == "slow":
            await done.wait()
        return DetectionResult(task_id=request.task_id, success=True, error_message="x" * 20_000)

    endpoint = BoundedEndpoint(buffer_bytes=10_000)
    async with open_server(handler, DETECTION, endpoint) as server:
        client = await endpoint.connect()
        await client.send_all(frame(task("first")) + frame(task("slow")))
        await wait_all_tasks_blocked()
        done.set()
        await wait_all_tasks_blocked()
        yield server, client


async def test_a_response_made_while_an_earlier_one_is_sent_counts_once_it_was_handed_over_itself(
    autojump_clock: MockClock,
) -> None:
    async with first_response_half_sent() as (server, client):
        came = 0
        while came <= 20_000:  # the first one, and not all of the second
            came += len(await client.receive_some(5_000))
            await wait_all_tasks_blocked()
        assert server.snapshot().requests_answered == 1
        assert server.snapshot().requests_in_flight == 1
        await client.aclose()
        await wait_all_tasks_blocked()
        counters = server.snapshot()
        assert counters.requests_answered == 1
        assert counters.requests_failed["response_undelivered"] == 1
        assert counters.requests_in_flight == 0


async def test_a_client_that_leaves_once_its_handler_was_done_had_no_handler_cancelled(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with first_response_half_sent() as (server, client):
        await client.aclose()
        await wait_all_tasks_blocked()
        counters = server.snapshot()
        assert counters.requests_failed["response_undelivered"] == 2
        assert counters.requests_answered == counters.requests_in_flight == 0
        assert counters.connections_closed["peer_closed"] == 1
    assert "closed: the peer closed the connection before it took the whole message" in caplog.text
    assert "handler was cancelled" not in caplog.text


async def test_a_client_that_leaves_has_its_handler_cancelled_soon(autojump_clock: MockClock) -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(hang, endpoint) as server:
        near = endpoint.connect()
        await near.send_all(frame(task()) * 2)
        await trio.sleep(10)
        await near.aclose()
        await trio.sleep(0.11)
        assert server.snapshot().requests_failed["client_gone"] == 1
        assert server.snapshot().connections_active == 0


@pytest.mark.parametrize("nth", range(5))
async def test_a_handler_that_is_done_when_a_stopped_process_goes_on_has_answered_in_time(
    nth: int, mock_clock: MockClock
) -> None:
    async def handler(request: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep(1)
        return success(request.task_id)

    async with (
        answering(handler, CONFIG.replace(handler_timeout_ms=5_000)) as (server, client),
        trio.open_nursery() as nursery,
    ):

        @nursery.start_soon
        async def be_stopped() -> None:
            await wait_all_tasks_blocked()
            mock_clock.jump(20)

        assert await client.call(task()) == success()
        assert server.snapshot().timeouts["handler"] == 0


# --- Logging cannot hurt ------------------------------------------------------------------------------------


@contextmanager
def record_factory(factory: Any) -> Iterator[None]:
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(factory)
    try:
        yield
    finally:
        logging.setLogRecordFactory(before)


def with_our_fields(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = logging.LogRecord(*args, **kwargs)
    record.endpoint = record.connection = record.peer = record.reason = "somebody else's"
    return record


def broken(*_args: Any, **_kwargs: Any) -> Any:
    raise RuntimeError("a broken record factory")


class BrokenFilter(logging.Filter):
    def filter(self, _record: logging.LogRecord) -> bool:
        raise RuntimeError("a broken filter")


class PanickingFilter(logging.Filter):
    def filter(self, _record: logging.LogRecord) -> bool:
        raise Panic("a broken filter")


class BrokenFormatter(logging.Handler):
    def emit(self, _record: logging.LogRecord) -> None:
        raise RuntimeError("a broken formatter")


class PanickingHandler(logging.Handler):
    def emit(self, _record: logging.LogRecord) -> None:
        raise BaseExceptionGroup("two", [Panic("a broken handler"), ValueError()])


def panicking(*_args: Any, **_kwargs: Any) -> Any:
    raise Panic("a broken record factory")


LOGGING: dict[str, Any] = {
    "fields": with_our_fields,
    "factory": broken,
    "panicking factory": panicking,
    "filter": BrokenFilter(),
    "panicking filter": PanickingFilter(),
    "formatter": BrokenFormatter(),
    "panicking handler": PanickingHandler(),
}


@pytest.mark.parametrize("kind", LOGGING)
async def test_logging_that_raises_costs_a_line_and_nothing_else(
    kind: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, "trio_ipc")
    logger = logging.getLogger("trio_ipc.server")
    added = LOGGING[kind]
    factory = logging.getLogRecordFactory()
    if isinstance(added, logging.Filter):
        logger.addFilter(added)
    elif isinstance(added, logging.Handler):
        logger.addHandler(added)
    else:
        factory = added

    async def handler(request: DetectionTask, _: Call) -> DetectionResult:
        if request.task_id == "bad":
            raise ValueError("no")
        return success(request.task_id)

    try:
        with record_factory(factory):
            async with answering(handler) as (server, client):
                assert (await client.call(task("bad"))).error_message == "the handler failed: ValueError: no"
                assert await client.call(task()) == success()
                assert server.snapshot().connections_closed["internal_error"] == 0
    finally:
        logger.removeFilter(added)
        logger.removeHandler(added)
    if kind == "fields":
        assert "the handler failed" in caplog.text, "the line is there, without fields"
    else:
        assert ": a broken" in capsys.readouterr().err, "where logging tells such things"


class Later:
    """What can be awaited and is no coroutine, as compiled functions and wrappers return."""

    def __init__(self, coroutine: Coroutine[Any, Any, DetectionResult]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, DetectionResult]:
        return self._coroutine.__await__()


@pytest.mark.parametrize("waits", [False, True])
async def test_what_a_handler_returns_may_be_anything_that_can_be_awaited(waits: bool) -> None:
    async def answer(request: DetectionTask, _: Call) -> DetectionResult:
        if waits:
            await trio.lowlevel.checkpoint()
        return success(request.task_id)

    @functools.wraps(answer)
    def handler(request: DetectionTask, call: Call) -> Later:
        return Later(answer(request, call))

    endpoint = MemoryEndpoint(CONFIG)
    async with serving(handler, endpoint):
        assert await endpoint.client().call(task()) == success()
