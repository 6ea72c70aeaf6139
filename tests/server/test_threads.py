"""Handlers that are synchronous functions, in threads."""

from __future__ import annotations

import functools
import threading
import unittest.mock
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from tests.support import serving, succeed, success, task
from trio_ipc import Call, IpcConfig, in_threads, open_client
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask


async def test_each_request_is_handled_in_a_thread(config: IpcConfig) -> None:
    async with serving(in_threads(in_another_thread), config), open_client(DETECTION, config) as client:
        assert await client.call(task("1")) == success("1")
        answer = await client.call(task("wrong"))
        assert "the handler failed: ValueError: no such process" in answer.error_message


def in_another_thread(request: DetectionTask, call: Call) -> DetectionResult:
    assert threading.current_thread() is not threading.main_thread()
    assert call.connection == 1
    if request.task_id == "wrong":
        raise ValueError("no such process")
    return success(request.task_id)


async def test_a_limiter_says_how_many_there_are_at_a_time(config: IpcConfig) -> None:
    limiter = trio.CapacityLimiter(2)
    together = threading.Barrier(2)
    most = 0

    def handle(request: DetectionTask, _: Call) -> DetectionResult:
        nonlocal most
        together.wait(10)
        most = max(most, limiter_borrowed())
        return success(request.task_id)

    def limiter_borrowed() -> int:
        return trio.from_thread.run_sync(lambda: limiter.borrowed_tokens)

    async def ask(name: str) -> None:
        async with open_client(DETECTION, config) as client:
            assert await client.call(task(name)) == success(name)

    async with serving(in_threads(handle, limiter), config), trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(ask, str(number))
    assert most == 2


async def test_anyios_limiter_will_do(config: IpcConfig) -> None:
    limiter = anyio.CapacityLimiter(1)
    seen = []

    def handle(request: DetectionTask, _: Call) -> DetectionResult:
        seen.append(trio.from_thread.run_sync(lambda: limiter.borrowed_tokens))
        return success(request.task_id)

    async with serving(in_threads(handle, limiter), config), open_client(DETECTION, config) as client:
        assert await client.call(task("1")) == success("1")
        assert await client.call(task("2")) == success("2")
    assert seen == [1, 1]


async def test_a_mock_of_an_async_function_is_one(config: IpcConfig) -> None:
    mock = unittest.mock.AsyncMock(return_value=success("1"))
    async with serving(mock, config), open_client(DETECTION, config) as client:
        assert await client.call(task("1")) == success("1")
    assert mock.await_count == 1
    with pytest.raises(TypeError, match="which is async"):
        in_threads(mock)


async def test_a_thread_is_told_that_its_time_is_up_and_waited_for(
    config: IpcConfig, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1  # as any other, until it jumps
    config = config.replace(handler_timeout_ms=10_000)
    told, go_on = threading.Event(), threading.Event()

    def handle(request: DetectionTask, _: Call) -> DetectionResult:
        if request.task_id == "1":
            try:
                trio.from_thread.run_sync(mock_clock.jump, 10)
                while not go_on.wait(0.01):
                    trio.from_thread.check_cancelled()
            except BaseException:
                told.set()
                raise
        return success(request.task_id)

    async with serving(in_threads(handle), config), open_client(DETECTION, config) as client:
        answer = await client.call(task("1"))
        assert "the handler ran out of time, the limit is 10000 ms" in answer.error_message
        assert told.is_set()
        assert await client.call(task("2")) == success("2")


async def test_what_a_thread_returns_too_late_is_dropped_and_no_thread_goes_on_after_the_server(
    config: IpcConfig,
) -> None:
    config = config.replace(handler_timeout_ms=50)
    running = threading.Event()
    past = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def handle(request: DetectionTask, call: Call) -> DetectionResult:
        running.set()
        trio.from_thread.run(trio.sleep_until, call.deadline + 0.01, trio_token=token)
        token.run_sync_soon(past.set)
        running.clear()
        return success(request.task_id)

    async with serving(in_threads(handle), config), open_client(DETECTION, config) as client:
        answer = await client.call(task())
        assert "the handler ran out of time" in answer.error_message
        assert past.is_set(), "it is told only then"
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.call, task())
                while not running.is_set():
                    await trio.lowlevel.checkpoint()
                scope.cancel()
    assert not running.is_set()


async def test_what_is_no_synchronous_function_is_refused() -> None:
    wrong: Any = succeed
    with pytest.raises(TypeError, match=r"which is async: give it to serve\(\) itself"):
        in_threads(wrong)
    with pytest.raises(TypeError, match="which is async"):
        in_threads(functools.partial(wrong))
    wrong = "handle"
    with pytest.raises(TypeError, match="handler is 'handle', which cannot be called"):
        in_threads(wrong)
    with pytest.raises(TypeError, match="limiter is 3, must be a CapacityLimiter of trio or anyio, or None"):
        in_threads(in_another_thread, 3)  # type: ignore[arg-type]
