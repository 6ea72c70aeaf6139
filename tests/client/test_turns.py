"""Turns by themselves: their alarm, also where the nursery that it is kept in was cancelled."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from trio_ipc import CallTimeoutError, TurnTimeoutError
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


async def test_each_who_waits_has_a_deadline_of_its_own_and_one_alarm_keeps_them(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, scope = 0, trio.CancelScope
    ended: dict[float, list[tuple[float, type[BaseException]]]] = {}

    def counted(*, deadline: float = math.inf) -> trio.CancelScope:
        nonlocal made
        made += 1
        return scope(deadline=deadline)

    async def wait(deadline: float) -> None:
        with pytest.raises((CallTimeoutError, TurnTimeoutError)) as caught:
            await turns.wait(deadline=deadline)
        ended.setdefault(deadline, []).append((trio.current_time(), caught.type))

    async with trio.open_nursery() as nursery:
        turns = turns_in(nursery)
        async with trio.open_nursery() as waiting:
            for deadline in (0.75, 0.25, math.inf, 0.5, 2.0) * 20:
                waiting.start_soon(wait, deadline)
            monkeypatch.setattr(trio, "CancelScope", counted)
        nursery.cancel_scope.cancel()
    timed_out = {deadline: [(deadline, CallTimeoutError)] * 20 for deadline in (0.25, 0.5, 0.75)}
    assert ended == timed_out | {deadline: [(1.0, TurnTimeoutError)] * 20 for deadline in (math.inf, 2.0)}
    assert made <= 8, "one for each time at which it rings, and one for each time that it is set"


async def test_a_turn_that_comes_with_the_deadline_goes_to_the_next_one(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        turns = turns_in(nursery)

        async def give_back() -> None:
            await trio.sleep(0.5)
            turns.give_back()

        async def time_out() -> None:
            with pytest.raises(CallTimeoutError, match="nothing was sent"):
                await turns.wait(deadline=0.5)

        async with trio.open_nursery() as waiting:
            waiting.start_soon(give_back)
            waiting.start_soon(time_out)
            await trio.testing.wait_all_tasks_blocked()
            await turns.wait()
        assert trio.current_time() == 0.5
        nursery.cancel_scope.cancel()
