"""Code is cancelled at each of its waits, one after another, and nothing else is."""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from trio_ipc.testing import Moment, cancel_everywhere


@pytest.mark.parametrize("moment", Moment, ids=str)
async def test_each_wait_of_the_block_is_cancelled_once(moment: Moment) -> None:
    reached = []
    for attempt in cancel_everywhere([moment]):
        steps = 0
        await trio.lowlevel.checkpoint()  # not counted, nor cancelled
        with attempt:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                steps += 1
        await trio.lowlevel.checkpoint()
        reached.append((attempt.number, steps, attempt.hit, attempt.cancelled))
    cut = [reached[0], *(one for one in reached if one[3])]
    assert reached[0] == (0, 0, True, True), "first before the block"
    assert {steps for _, steps, _, _ in cut} == {0, 1, 2}, "each of the three, and none is left out"
    assert reached[-1][1:] == (3, False, False), "the last one is not reached any more"
    assert [number for number, *_ in reached] == list(range(len(reached)))


async def test_all_three_moments_are_tried_one_after_another() -> None:
    moments = []
    for attempt in cancel_everywhere():
        with attempt:
            await trio.lowlevel.checkpoint()
        moments.append(attempt.moment)
    assert list(dict.fromkeys(moments)) == list(Moment)


async def test_the_waits_of_tasks_that_the_block_starts_are_counted_and_no_others() -> None:
    reached: set[str] = set()

    async def child() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(grandchild)

    async def grandchild() -> None:
        await trio.lowlevel.checkpoint()
        reached.add("grandchild slept")

    async def busy_stranger() -> None:
        while True:
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as strangers:
        strangers.start_soon(busy_stranger)
        places = []
        for attempt in cancel_everywhere([Moment.WAITING]):
            with attempt:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(child)
            places.append(attempt.where)
        strangers.cancel_scope.cancel()
    assert any("grandchild" in place for place in places)
    assert not any("stranger" in place for place in places)
    assert attempt.number < 20
    assert reached


async def test_one_that_is_woken_keeps_what_it_waited_for_or_loses_it_as_the_code_says() -> None:
    """What WAITING cannot show: the cancellation comes when the wait is over."""
    taken = []
    for attempt in cancel_everywhere([Moment.WOKEN]):
        send, receive = trio.open_memory_channel[str](1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send.send, "one")
            with attempt:
                taken.append(await receive.receive())
            if attempt.cancelled:
                taken.append(await receive.receive())
        send.close()
        receive.close()
    assert set(taken) == {"one"}
    assert len(taken) == attempt.number + 1


async def test_a_deadline_is_one_also_on_a_mock_clock(autojump_clock: MockClock) -> None:
    for attempt in cancel_everywhere([Moment.DEADLINE]):
        before = trio.current_time()
        with attempt:
            await trio.sleep(5)
        assert trio.current_time() == before + (0 if attempt.cancelled else 5)
    assert attempt.number == 2


async def test_an_exception_of_the_block_says_where_it_was_cancelled() -> None:
    async def badly() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise KeyError("lost its temper") from None

    async def attempts() -> None:
        for attempt in cancel_everywhere(["waiting"]):
            with attempt:
                await trio.lowlevel.checkpoint()
                await badly()

    with pytest.raises(KeyError) as caught:
        await attempts()
    [note] = caught.value.__notes__
    assert note.startswith("<cancelled at wait ")
    assert ", waiting, in " in note
    assert "badly" in note


async def test_a_block_that_waits_nowhere_is_tried_before_it_and_once_more() -> None:
    numbers = []
    for attempt in cancel_everywhere([Moment.WAITING]):
        with attempt:
            pass
        numbers.append((attempt.number, attempt.hit, attempt.cancelled))
    assert numbers == [(0, True, False), (1, False, False)]
    assert repr(attempt) == "<cancelled at wait 1, waiting, not reached>"


async def test_a_loop_without_its_block_is_an_error_and_no_endless_loop() -> None:
    attempts = cancel_everywhere()
    next(attempts)
    with pytest.raises(RuntimeError, match="did not enter `with attempt:`"):
        next(attempts)


async def test_an_attempt_is_for_one_block() -> None:
    for attempt in cancel_everywhere([Moment.WAITING]):
        with attempt:
            await trio.lowlevel.checkpoint()
        with pytest.raises(RuntimeError, match="take the next one"):
            with attempt:
                await trio.lowlevel.checkpoint()
