"""An alarm rings when the time is up, not before, and does not wake its task while it is set ever later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ipc.channel.alarm import Alarm


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Alarm, list[float]]]:
    rang: list[float] = []
    alarm = Alarm(lambda _: rang.append(trio.current_time()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarm.run)
        await wait_all_tasks_blocked()
        yield alarm, rang
        alarm.end()


async def test_it_rings_once_when_the_time_is_up(autojump_clock: MockClock) -> None:
    async with running() as (alarm, rang):
        alarm.set(5)
        await trio.sleep(4.9)
        assert rang == []
        await trio.sleep(100)
        assert rang == pytest.approx([5])


async def test_set_before_it_runs_it_rings_too(autojump_clock: MockClock) -> None:
    rang: list[float] = []
    alarm = Alarm(lambda _: rang.append(trio.current_time()))
    alarm.set(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarm.run)
        await trio.sleep(10)
        alarm.end()
    assert rang == pytest.approx([2])


async def test_cleared_it_does_not_ring(autojump_clock: MockClock) -> None:
    async with running() as (alarm, rang):
        alarm.set(5)
        alarm.clear()
        await trio.sleep(10)
        assert rang == []


@pytest.mark.parametrize(
    ("times", "rings"),
    [([5, 9], 9), ([9, 5], 5), ([5, 9, 7], 7), ([9, 5, 7], 7), ([5, 3, 8, 6], 6)],
)
async def test_the_last_time_that_was_set_counts(
    times: list[float], rings: float, autojump_clock: MockClock
) -> None:
    async with running() as (alarm, rang):
        for time in times:
            alarm.set(time)
        await trio.sleep(20)
        assert rang == pytest.approx([rings])


async def test_it_can_ring_again_and_again(autojump_clock: MockClock) -> None:
    async with running() as (alarm, rang):
        for _ in range(3):
            alarm.set(trio.current_time() + 2)
            await trio.sleep(3)
        assert rang == pytest.approx([2, 5, 8])


async def test_while_it_is_set_ever_later_its_task_wakes_once_for_each_length(mock_clock: MockClock) -> None:
    async with running() as (alarm, rang):
        deadlines = trio.lowlevel.current_statistics
        for step in range(99):
            alarm.set(step / 10 + 30)
            alarm.clear()
            mock_clock.jump(0.1)
            assert deadlines().seconds_to_next_deadline == pytest.approx(30 - (step + 1) / 10)
        assert rang == []


async def test_ended_before_it_ran_it_does_not_run() -> None:
    alarm = Alarm(lambda _: None)
    alarm.end()
    alarm.end()
    await alarm.run()


@pytest.mark.parametrize("what", [Alarm.clear, Alarm.end, lambda alarm: alarm.set(9)])
@pytest.mark.parametrize("nth", range(8))  # which of two tasks runs first is Trio's to throw a coin for
async def test_who_wakes_in_the_same_pass_may_still_keep_it_from_ringing(
    nth: int, what: Callable[[Alarm], None], autojump_clock: MockClock
) -> None:
    async with running() as (alarm, rang):
        alarm.set(5)
        await trio.sleep_until(5)
        what(alarm)
        await trio.sleep(3)
        assert rang == []
