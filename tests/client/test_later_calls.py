"""From its second call on a client's deadlines are kept by a task of its own: they are the same as before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import DetectionClient, Ends, frame, serving, succeed, success, task
from trio_ipc import (
    CallTimeoutError,
    ChannelClosedError,
    IpcConfig,
    PeerClosedError,
    ReadTimeoutError,
    TransportType,
    open_client,
)
from trio_ipc.channel import Channel
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import Delay, Faults, Stall, at_frame, memory_streams

from .support import BOTH_LINES, CONFIG, Then, answering, client_over, expect_broken_by, is_good


@asynccontextmanager
async def in_use(
    far: trio.abc.HalfCloseableStream, near: trio.abc.Stream | Channel, max_in_flight: int
) -> AsyncIterator[DetectionClient]:
    """A client that has made its first calls."""
    async with client_over(near, max_in_flight) as client:
        for number in range(2):
            await is_good(client, far, str(number))
        yield client


@BOTH_LINES
async def test_no_response_in_time_is_told_at_its_time(
    ends: Ends, autojump_clock: MockClock, max_in_flight: int
) -> None:
    far, near = ends.raw(CONFIG)
    async with in_use(far, near, max_in_flight) as client:
        await trio.sleep(12)
        with pytest.raises(ReadTimeoutError, match=r"for a frame to begin, .*read_timeout_ms is 30000"):
            await client.call(task())
        assert trio.current_time() == pytest.approx(42)
        await expect_broken_by(client, ReadTimeoutError)


@BOTH_LINES
@pytest.mark.parametrize("seconds", [0.5, 7])
async def test_the_timeout_of_a_call_is_kept(
    ends: Ends, autojump_clock: MockClock, max_in_flight: int, seconds: float
) -> None:
    far, near = ends.raw(CONFIG)
    async with in_use(far, near, max_in_flight) as client:
        await trio.sleep(1)
        with pytest.raises(CallTimeoutError, match=rf"the limit timeout is {seconds} s"):
            await client.call(task(), timeout=seconds)
        assert trio.current_time() == pytest.approx(1 + seconds)


@BOTH_LINES
async def test_so_are_those_of_many_calls(ends: Ends, autojump_clock: MockClock, max_in_flight: int) -> None:
    far, near = ends.raw(CONFIG)
    async with in_use(far, near, max_in_flight) as client, answering(far, frame(success("a"))):
        with pytest.raises(CallTimeoutError, match="response 2 of 2") as caught:
            await client.call_many([task("a"), task("b")], timeout=3)
        assert caught.value.responses == (success("a"),)
        assert trio.current_time() == pytest.approx(3)


@BOTH_LINES
async def test_a_frame_that_drips_has_one_budget(
    ends: Ends, autojump_clock: MockClock, max_in_flight: int
) -> None:
    far, near = ends.raw(CONFIG)

    async def drip() -> None:
        await trio.sleep(20)
        for number in range(10):
            await far.send_all(frame(success())[number : number + 1])
            await trio.sleep(4)

    async with in_use(far, near, max_in_flight) as client, trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        with pytest.raises(ReadTimeoutError, match="for the rest of a frame"):
            await client.call(task())
        assert trio.current_time() == pytest.approx(50)
        nursery.cancel_scope.cancel()


@BOTH_LINES
async def test_what_has_come_while_this_process_was_stopped_is_returned(
    mock_clock: MockClock, max_in_flight: int
) -> None:
    near, far = memory_streams()
    async with in_use(far, near, max_in_flight) as client, trio.open_nursery() as nursery:
        answers = []

        async def call() -> None:
            answers.append(await client.call(task("late")))

        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        far.write(frame(success("late")))
        mock_clock.jump(1_000)
        await wait_all_tasks_blocked()
        assert answers == [success("late")]


@BOTH_LINES
async def test_the_server_closing_at_the_deadline_is_no_timeout(
    mock_clock: MockClock, max_in_flight: int
) -> None:
    near, far = memory_streams()
    async with in_use(far, near, max_in_flight) as client, trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(PeerClosedError, match="the peer closed the connection"):
                await client.call(task("late"))

        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        far.close()
        mock_clock.jump(1_000)


@BOTH_LINES
@pytest.mark.parametrize("fault", [Stall(), Delay(1_000)], ids=["stall", "delay"])
async def test_a_server_that_is_seen_to_be_gone_is_waited_for_no_longer_than_that(
    fault: Stall | Delay, autojump_clock: MockClock, max_in_flight: int
) -> None:
    """As it is where what it said before is held up on its way, and so is its end."""
    near, far = memory_streams()
    held_up = Faults(receiving=[at_frame(3, fault)]).wrap(near)
    async with in_use(far, held_up, max_in_flight) as client, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def answer_and_leave() -> None:
            await wait_all_tasks_blocked()
            far.write(frame(success()))
            far.close()

        with trio.move_on_after(500), pytest.raises(ReadTimeoutError):
            await client.call(task())
        assert trio.current_time() == pytest.approx(30, abs=0.2)


@BOTH_LINES
async def test_an_idle_client_is_good_for_as_long_as_it_is_idle(
    ends: Ends, autojump_clock: MockClock, max_in_flight: int
) -> None:
    far, near = ends.raw(CONFIG)
    async with in_use(far, near, max_in_flight) as client:
        await trio.sleep(10_000)
        await is_good(client, far)


@BOTH_LINES
async def test_a_cancelled_call_leaves_no_deadline_behind(
    ends: Ends, autojump_clock: MockClock, max_in_flight: int
) -> None:
    far, near = ends.raw(CONFIG)
    async with in_use(far, near, max_in_flight) as client:
        with trio.move_on_after(1):
            await client.call(task("mine"))
        await trio.sleep(100)
        if max_in_flight == 1:
            await expect_broken_by(client, trio.Cancelled)


async def test_a_call_under_a_shield_keeps_its_deadline_when_the_client_is_cancelled(
    ends: Ends, autojump_clock: MockClock
) -> None:
    far, near = ends.raw(CONFIG)
    with trio.CancelScope(deadline=1) as outer:
        async with in_use(far, near, 1) as client:
            with trio.move_on_after(500, shield=True):
                with pytest.raises(CallTimeoutError):
                    await client.call(task("goodbye"), timeout=5)
                assert trio.current_time() == pytest.approx(5)
            assert trio.current_time() == pytest.approx(5)
            await trio.sleep_forever()
    assert outer.cancelled_caught
    assert trio.current_time() == pytest.approx(5)


async def test_it_is_answered_in_time_and_the_client_then_ends_at_once(
    ends: Ends, autojump_clock: MockClock
) -> None:
    far, near = ends.raw(CONFIG)
    with trio.CancelScope(deadline=1):
        async with in_use(far, near, 1) as client, trio.open_nursery() as nursery:
            with trio.CancelScope(shield=True):

                async def answer_late() -> None:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(2)
                        await far.send_all(frame(success("goodbye")))

                nursery.start_soon(answer_late)
                assert await client.call(task("goodbye"), timeout=5) == success("goodbye")
    assert trio.current_time() == pytest.approx(2)


@BOTH_LINES
async def test_who_waits_without_a_shield_is_cancelled_at_once(
    ends: Ends, autojump_clock: MockClock, max_in_flight: int
) -> None:
    for _ in range(8):  # the call and the keeper of its deadline are cancelled in either order
        far, near = ends.raw(CONFIG)
        began = trio.current_time()
        with trio.move_on_after(1):
            async with in_use(far, near, max_in_flight) as client:
                await client.call(task("mine"))
        assert trio.current_time() == pytest.approx(began + 1)


@BOTH_LINES
async def test_its_task_ends_with_the_connection(ends: Ends, config: IpcConfig, max_in_flight: int) -> None:
    far, near = ends.raw(CONFIG)
    tasks = trio.lowlevel.current_statistics
    before = tasks().tasks_living
    async with in_use(far, near, max_in_flight) as client:
        if max_in_flight > 1 or config.transport is TransportType.INTERPROCESS:
            assert tasks().tasks_living > before
        async with answering(far, Then.CLOSE):
            with pytest.raises(PeerClosedError):
                await client.call(task())
        await wait_all_tasks_blocked()
        assert tasks().tasks_living == before
    assert tasks().tasks_living == before


async def call_without_end(client: DetectionClient) -> None:
    while True:
        await client.call(task())


async def test_a_call_beside_the_end_of_the_block_is_told_that_the_client_is_closed(
    config: IpcConfig,
) -> None:
    async def call_on(client: DetectionClient, task_status: trio.TaskStatus[None]) -> None:
        await client.call(task())
        task_status.started()
        with pytest.raises(ChannelClosedError):
            await call_without_end(client)

    async with (
        serving(succeed, config),
        trio.open_nursery() as nursery,
        open_client(DETECTION, config) as client,
    ):
        await nursery.start(call_on, client)
