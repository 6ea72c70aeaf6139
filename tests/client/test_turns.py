"""Turns by themselves: their alarm, where the nursery that it is kept in was cancelled."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from trio_ipc import TurnTimeoutError
from trio_ipc.client.turns import Turns


def turns_in(nursery: trio.Nursery) -> Turns:
    turns = Turns(1, endpoint="memory", read_timeout_ms=1_000, nursery=nursery)
    assert turns.take_nowait()
    return turns


@pytest.mark.parametrize("cancelled_at", [0, 0.5])
async def test_a_wait_under_a_shield_ends_in_time_where_all_around_it_was_cancelled(
    autojump_clock: MockClock, cancelled_at: float
) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            turns = turns_in(nursery)
            scope.deadline = cancelled_at
            with trio.fail_after(10, shield=True):
                for number in (1, 2):
                    with pytest.raises(TurnTimeoutError):
                        await turns.wait()
                    assert trio.current_time() == number
    assert trio.current_time() == 2


async def test_the_alarm_of_a_cancelled_nursery_ends_with_the_last_who_waits(
    autojump_clock: MockClock,
) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            turns = turns_in(nursery)

            async def use_it() -> None:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.5)
                    turns.give_back()

            async def wait(*, shield: bool) -> None:
                with trio.fail_after(10, shield=shield):
                    await turns.wait()
                    turns.give_back()

            nursery.start_soon(use_it)
            nursery.start_soon(lambda: wait(shield=True))
            nursery.start_soon(lambda: wait(shield=False))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert trio.current_time() == 0.5
    assert turns.take_nowait()


async def test_a_wait_ends_in_time_where_the_nursery_was_closed(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        turns = turns_in(nursery)
    with pytest.raises(TurnTimeoutError):
        await turns.wait()
    assert trio.current_time() == 1
    turns.give_back()
    assert turns.take_nowait()
