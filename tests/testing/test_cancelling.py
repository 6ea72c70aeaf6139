"""Code is cancelled at each of its waits, one after another, and nothing else is."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio._core._run
import trio.lowlevel
from trio.testing import MockClock

import trio_ipc
from tests.platforms import unix_only
from trio_ipc.testing import Moment, cancel_everywhere

SOURCE = Path(trio_ipc.__file__).parent


@pytest.mark.parametrize("moment", Moment, ids=str)
async def test_each_wait_of_the_block_is_cancelled_once(moment: Moment) -> None:
    reached = []
    for attempt in cancel_everywhere([moment], schedules=1):
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
    assert len(taken) == 2 * (attempt.number + 1)


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
    for attempt in cancel_everywhere([Moment.WAITING], schedules=1):
        with attempt:
            pass
        numbers.append((attempt.number, attempt.hit, attempt.cancelled))
    assert numbers == [(0, True, False), (1, False, False)]
    assert repr(attempt) == "<cancelled at wait 1, waiting, not reached, schedule 0>"


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


# --- Several tasks ------------------------------------------------------------------------------------------


async def what_was_done_when_cancelled(tasks: int, *, schedules: int) -> set[frozenset[str]]:
    """Which of several tasks of two waits each were done, for all attempts in which some were not."""
    found = set()
    for attempt in cancel_everywhere(schedules=schedules):
        done: set[str] = set()

        async def work(name: str, done: set[str]) -> None:
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            done.add(name)

        with attempt:
            async with trio.open_nursery() as nursery:
                for name in "abc"[:tasks]:
                    nursery.start_soon(work, name, done)
        if attempt.cancelled:
            found.add(frozenset(done))
    return found


async def test_what_is_only_while_one_of_two_tasks_is_done_is_found_by_every_loop() -> None:
    for _ in range(30):
        found = await what_was_done_when_cancelled(2, schedules=2)
        assert {frozenset("a"), frozenset("b")} <= found


async def test_more_schedules_try_more_orders() -> None:
    found = await what_was_done_when_cancelled(3, schedules=2)
    assert frozenset("ac") not in found, "not in the order of creation, nor in the opposite"
    assert found < await what_was_done_when_cancelled(3, schedules=20)
    with pytest.raises(ValueError, match="schedules is 0, must be at least 1"):
        cancel_everywhere(schedules=0)


async def test_two_loops_are_one_like_the_other() -> None:
    async def places() -> list[str]:
        found = []
        for attempt in cancel_everywhere(schedules=4):

            async def work(waits: int) -> None:
                for _ in range(waits):
                    await trio.lowlevel.checkpoint()

            with attempt:
                async with trio.open_nursery() as nursery:
                    for waits in 1, 3, 2:
                        nursery.start_soon(work, waits, name=f"of {waits}")
            found.append(repr(attempt))
        return found

    first = await places()
    for _ in range(10):
        assert await places() == first


async def test_a_loop_leaves_the_scheduler_as_it_was() -> None:
    def now() -> tuple[object, object]:
        return trio._core._run._r, trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING

    before = now()
    assert type(before[0]) is random.Random
    for attempt in cancel_everywhere():
        assert now() != before
        with attempt:
            await trio.lowlevel.checkpoint()
    assert now() == before

    def abandoned() -> None:
        for _ in cancel_everywhere():
            raise KeyError

    with pytest.raises(KeyError):
        abandoned()
    assert now() == before


async def test_two_loops_at_the_same_time_leave_it_as_it_was_too() -> None:
    before = trio._core._run._r
    first, second = cancel_everywhere(), cancel_everywhere()
    for loop in first, second:
        with next(loop):
            pass
    first.close()  # type: ignore[attr-defined]
    second.close()  # type: ignore[attr-defined]
    assert trio._core._run._r is before


async def test_tasks_that_others_start_in_a_nursery_of_the_test_are_not_counted() -> None:
    async def passer_by() -> None:
        for _ in range(20):
            await trio.lowlevel.checkpoint()

    async def start(*nurseries: trio.Nursery) -> None:
        with suppress(RuntimeError):  # the block is over before they come
            for nursery in nurseries:
                nursery.start_soon(passer_by)

    for attempt in cancel_everywhere([Moment.WAITING]):
        async with trio.open_nursery() as around:
            with attempt:
                async with trio.open_nursery() as inside:
                    around.start_soon(start, around, inside)
                    around.start_soon(passer_by)
                    await trio.lowlevel.checkpoint()
            around.cancel_scope.cancel()
        assert "passer_by" not in attempt.where, attempt
    assert attempt.number < 10


@unix_only  # an embeddable Python of Windows takes no PYTHONPATH
def test_a_place_in_a_package_beside_trio_is_one(tmp_path: Path) -> None:
    """As it is where both are installed: site-packages/trio is how site-packages/trio_ipc begins."""
    installed = tmp_path / "site-packages"
    shutil.copytree(SOURCE, installed / "trio_ipc", ignore=shutil.ignore_patterns("__pycache__"))
    (installed / "trio").symlink_to(Path(trio.__file__).parent)
    code = """
import trio
from trio_ipc.testing import cancel_everywhere, memory_streams

async def main():
    for attempt in cancel_everywhere(["waiting"]):
        _, far = memory_streams()
        with trio.move_on_after(0), attempt:
            await far.wait_readable()
        print(attempt.where)

trio.run(main)
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "MemoryStream.wait_readable (memorystream.py:" in run.stdout


async def test_the_first_schedule_is_the_order_of_creation_and_the_second_the_opposite() -> None:
    orders = {}
    for attempt in cancel_everywhere([Moment.WAITING]):
        ran: list[str] = []

        async def work(name: str, ran: list[str]) -> None:
            ran.append(name)

        with attempt:
            async with trio.open_nursery() as nursery:
                for name in "abc":
                    nursery.start_soon(work, name, ran)
        if not attempt.cancelled:
            orders[attempt.schedule] = "".join(ran)
    assert orders == {0: "abc", 1: "cba"}


async def test_a_task_is_counted_until_nursery_start_has_moved_it_to_others() -> None:
    async def server(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.lowlevel.checkpoint()
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server_works)
            await server_works()

    async def server_works() -> None:
        for _ in range(20):
            await trio.lowlevel.checkpoint()

    places = []
    for attempt in cancel_everywhere([Moment.WAITING]):
        async with trio.open_nursery() as around:
            with attempt:
                await around.start(server)
                for _ in range(5):
                    await trio.lowlevel.checkpoint()
            around.cancel_scope.cancel()
        places.append(attempt.where)
    assert any(".server " in place for place in places), "while the block waits for its beginning"
    assert not any("server_works" in place for place in places)


async def test_a_loop_within_another_leaves_that_one_its_order() -> None:
    before = trio._core._run._r
    for attempt in cancel_everywhere([Moment.WAITING], schedules=1):
        order = trio._core._run._r
        for inner in cancel_everywhere([Moment.WAITING], schedules=1):
            assert trio._core._run._r is not order
            with inner:
                await trio.lowlevel.checkpoint()
        assert trio._core._run._r is order
        with attempt:
            await trio.lowlevel.checkpoint()
    assert trio._core._run._r is before


def test_a_loop_that_would_try_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="moments is empty, and nothing would be tried"):
        cancel_everywhere([])
    for one in Moment.WOKEN, "woken":
        with pytest.raises(TypeError, match=r"moments is 'woken', must be a list such as \[Moment.WOKEN\]"):
            cancel_everywhere(one)
    with pytest.raises(ValueError, match="'sleeping' is not a valid Moment"):
        cancel_everywhere(["sleeping"])
