"""The timeout of a call, and a process that was stopped."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import frame, success, task
from trio_ipc.client.turns import Turns
from trio_ipc.daemoneye import DetectionResult
from trio_ipc.errors import TurnTimeoutError
from trio_ipc.testing import memory_streams

from .support import (
    BOTH_LINES,
    client_over,
)


@BOTH_LINES
@pytest.mark.parametrize("size", [0, 50_000, 200_000])
async def test_what_has_come_while_this_process_was_stopped_is_returned(
    mock_clock: MockClock, max_in_flight: int, size: int
) -> None:
    """The clock jumps, as it does for a process that is continued, and the response is there."""
    near, far = memory_streams()
    answer = DetectionResult(task_id="t", success=True, error_message="x" * size)
    async with client_over(near, max_in_flight) as client, trio.open_nursery() as nursery:
        answers = []

        async def call() -> None:
            answers.append(await client.call(task(), timeout=1))

        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        far.write(frame(answer))
        mock_clock.jump(10)
        await wait_all_tasks_blocked()
        assert answers == [answer]
        assert not client.is_broken


async def test_answers_ahead_are_taken_first_by_a_process_that_was_stopped(mock_clock: MockClock) -> None:
    near, far = memory_streams()
    requests = [task(str(number)) for number in range(9)]
    large = [DetectionResult(task_id=asked.task_id, error_message="x" * 20_000) for asked in requests]
    async with client_over(near, 10) as client, trio.open_nursery() as nursery:
        answers = []

        async def call() -> None:
            answers.append(await client.call(task("mine"), timeout=1))

        nursery.start_soon(client.call_many, requests)
        await wait_all_tasks_blocked()
        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        far.write(b"".join(map(frame, [*large, success("mine")])))
        mock_clock.jump(10)
        await wait_all_tasks_blocked()
        assert answers == [success("mine")]


@BOTH_LINES
async def test_many_answers_that_have_come_meanwhile_are_returned_too(
    mock_clock: MockClock, max_in_flight: int
) -> None:
    near, far = memory_streams()
    requests = [task(str(number)) for number in range(max_in_flight)]
    async with client_over(near, max_in_flight) as client, trio.open_nursery() as nursery:
        answers = []

        async def call() -> None:
            answers.extend(await client.call_many(requests, timeout=1))

        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        far.write(b"".join(frame(success(asked.task_id)) for asked in requests))
        mock_clock.jump(10)
        await wait_all_tasks_blocked()
        assert [answer.task_id for answer in answers] == [asked.task_id for asked in requests]


async def test_who_waits_for_a_turn_in_a_process_that_was_stopped_waits_on(mock_clock: MockClock) -> None:
    """It was not the calls ahead that took too long."""
    near, far = memory_streams()
    async with client_over(near) as client, trio.open_nursery() as nursery:
        for name in ("1", "2"):
            nursery.start_soon(client.call, task(name))
            await wait_all_tasks_blocked()
        far.write(frame(success("1")))
        mock_clock.jump(100)
        await wait_all_tasks_blocked()
        assert far.read(100) == frame(task("1")) + frame(task("2"))
        far.write(frame(success("2")))
        await wait_all_tasks_blocked()
        assert client.snapshot().calls_answered == 2


async def test_who_waits_for_a_turn_when_the_process_goes_on_has_its_time_once_more(
    mock_clock: MockClock,
) -> None:
    async def pass_some_time(seconds: float) -> None:
        mock_clock.jump(seconds)
        for _ in range(50):  # and no wait for all tasks: one that never rests would not be waited out
            await trio.lowlevel.checkpoint()

    errors: list[TurnTimeoutError] = []
    async with trio.open_nursery() as nursery:
        turns = Turns(1, endpoint="here", read_timeout_ms=10_000, nursery=nursery)
        assert turns.take_nowait()

        async def wait() -> None:
            with pytest.raises(TurnTimeoutError) as caught:
                await turns.wait()
            errors.append(caught.value)

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        await pass_some_time(100)
        assert not errors, "it was this process that was stopped"
        await pass_some_time(9.9)
        assert not errors
        await pass_some_time(0.15)
        assert len(errors) == 1
        nursery.cancel_scope.cancel()
