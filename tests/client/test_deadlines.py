"""The timeout of a call: one deadline for its turn, its request and its response."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import DetectionClient, Ends, frame, success, task
from trio_ipc import CallTimeoutError, ReadTimeoutError, TurnTimeoutError
from trio_ipc.testing import memory_streams

from .support import (
    BOTH_LINES,
    CONFIG,
    answering,
    client_over,
    counts_are_whole,
    expect_broken_by,
    is_good,
    narrow_streams,
)


@BOTH_LINES
@pytest.mark.parametrize("seconds", [-1, -0.001, math.nan, -math.inf])
async def test_a_timeout_below_zero_is_refused_and_is_no_call(seconds: float, max_in_flight: int) -> None:
    async with client_over(memory_streams()[0], max_in_flight) as client:
        with pytest.raises(ValueError, match=f"timeout is {seconds}, must be 0 or more seconds, or None"):
            await client.call(task(), timeout=seconds)
        with pytest.raises(ValueError, match=f"timeout is {seconds}, must be 0 or more seconds, or None"):
            await client.call_many([task()], timeout=seconds)
        assert client.snapshot().calls == 0


@pytest.mark.parametrize("seconds", [10**400, 10**5_000, -(10**5_000)], ids=["large", "huge", "huge below 0"])
async def test_a_timeout_beyond_all_floats_is_a_short_error(seconds: int) -> None:
    async with client_over(memory_streams()[0]) as client:
        with pytest.raises(ValueError, match=r"timeout is .*, must be .*or None for no limit") as caught:
            await client.call(task(), timeout=seconds)
        assert len(str(caught.value)) < 250
        assert client.snapshot().calls == 0


@pytest.mark.parametrize("seconds", [True, "5", b"5", [5], task])
async def test_a_timeout_that_is_no_number_is_refused(seconds: Any) -> None:
    async with client_over(memory_streams()[0]) as client:
        with pytest.raises(TypeError, match=r"timeout is .*, must be a number of seconds or None"):
            await client.call(task(), timeout=seconds)
        with pytest.raises(TypeError, match=r"timeout is .*, must be a number of seconds or None"):
            await client.call_many([task()], timeout=seconds)


@BOTH_LINES
@pytest.mark.parametrize("seconds", [5, 0.5, math.inf, None])
async def test_a_response_in_time_is_returned(ends: Ends, seconds: float | None, max_in_flight: int) -> None:
    far, near = ends.raw(CONFIG)
    async with client_over(near, max_in_flight) as client:
        async with answering(far, frame(success()), frame(success()) + frame(success())):
            assert await client.call(task(), timeout=seconds) == success()
            assert await client.call_many([task(), task()], timeout=seconds) == [success(), success()]
        assert client.is_reusable()


@BOTH_LINES
@pytest.mark.parametrize("seconds", [0, 0.0])
async def test_no_time_at_all_sends_nothing(ends: Ends, seconds: float, max_in_flight: int) -> None:
    far, near = ends.raw(CONFIG)
    async with client_over(near, max_in_flight) as client:
        with pytest.raises(
            CallTimeoutError, match="^memory: the call timed out before .*the limit timeout is 0"
        ):
            await client.call(task(), timeout=seconds)
        with pytest.raises(
            CallTimeoutError, match="^memory: the call timed out before .*the limit timeout is 0"
        ):
            await client.call_many([task()], timeout=seconds)
        assert client.snapshot().frames_sent == 0
        assert dict(client.snapshot().timeouts)["call"] == 2
        await is_good(client, far)


async def test_without_a_response_the_call_ends_and_so_does_the_connection_where_it_was_the_only_one(
    ends: Ends, autojump_clock: MockClock
) -> None:
    far, near = ends.raw(CONFIG)
    async with client_over(near) as client:
        with pytest.raises(CallTimeoutError) as caught:
            await client.call(task(), timeout=2.5)
        assert trio.current_time() == pytest.approx(2.5)
        assert str(caught.value) == (
            "memory: the call timed out waiting for the response; whether the server did the work is not "
            "known; the limit timeout is 2.5 s; see what the server does, or allow more time"
        )
        assert caught.value.attempts == ()
        await expect_broken_by(client, CallTimeoutError, "timed out waiting for the response")
        assert client.snapshot().calls_failed["call_timeout"] == 1
        assert await far.receive_some() == frame(task())
        assert await far.receive_some() == b"", "the connection is closed"


async def test_where_several_are_in_flight_the_place_is_kept_and_the_response_dropped(
    ends: Ends, autojump_clock: MockClock
) -> None:
    far, near = ends.raw(CONFIG)
    async with client_over(near, 2) as client, trio.open_nursery() as nursery:
        with pytest.raises(CallTimeoutError, match="waiting for the response.*; the limit timeout is 1 s"):
            await client.call(task("late"), timeout=1)
        nursery.start_soon(client.call, task("in time"))
        await wait_all_tasks_blocked()
        with pytest.raises(CallTimeoutError, match="waiting for a turn behind 2 calls; nothing was sent"):
            await client.call(task("no place"), timeout=1)
        assert await far.receive_some() == frame(task("late")) + frame(task("in time"))
        await far.send_all(frame(success("late")) + frame(success("in time")))
        await wait_all_tasks_blocked()
        await is_good(client, far)
        said = client.snapshot()
        assert (said.calls_answered, said.calls_failed["call_timeout"], said.frames_received) == (2, 2, 3)


@BOTH_LINES
async def test_the_wait_for_a_turn_is_part_of_it_and_sends_nothing(
    ends: Ends, autojump_clock: MockClock, max_in_flight: int
) -> None:
    far, near = ends.raw(CONFIG)
    ahead = "1 call" if max_in_flight == 1 else f"{max_in_flight} calls"
    async with client_over(near, max_in_flight) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(max_in_flight):
                nursery.start_soon(client.call, task("ahead"))
            await wait_all_tasks_blocked()
            for call in (client.call(task(), timeout=3), client.call_many([task(), task()], timeout=3)):
                with pytest.raises(
                    CallTimeoutError,
                    match=f"^memory: the call timed out waiting for a turn behind {ahead}; "
                    "nothing was sent; the limit timeout is 3 s; open more clients",
                ):
                    await call
            assert trio.current_time() == pytest.approx(6)
            await far.receive_some()
            await far.send_all(max_in_flight * frame(success("ahead")))
        await is_good(client, far)
        assert client.snapshot().frames_sent == max_in_flight + 1


@BOTH_LINES
async def test_sending_is_part_of_it(autojump_clock: MockClock, max_in_flight: int) -> None:
    near, far = narrow_streams()
    async with client_over(near, max_in_flight) as client:
        with pytest.raises(
            CallTimeoutError, match="^memory: the call timed out .*the limit timeout is 3 s; "
        ):
            await client.call(task(), timeout=3)
        assert trio.current_time() == pytest.approx(3)
        if max_in_flight == 1:
            await expect_broken_by(client, CallTimeoutError, "while the request was sent")
        else:
            # It can be sent still, for the others.
            async with answering(far, frame(success()), frame(success("after"))):
                assert await client.call(task("after")) == success("after")


async def test_a_request_that_waits_behind_one_that_nobody_reads_is_withdrawn(
    autojump_clock: MockClock,
) -> None:
    near, far = narrow_streams()
    async with client_over(near, 3) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.call, task("ahead"))
        await wait_all_tasks_blocked()
        with pytest.raises(CallTimeoutError, match="before the request was sent; .*it does not read"):
            await client.call(task("gone"), timeout=3)
        async with answering(far, frame(success("ahead")), frame(success("after"))):
            assert await client.call(task("after")) == success("after")
        assert client.snapshot().frames_sent == 2


@BOTH_LINES
async def test_many_calls_have_one_deadline_and_keep_what_was_answered(
    ends: Ends, autojump_clock: MockClock, max_in_flight: int
) -> None:
    far, near = ends.raw(CONFIG)
    requests = [task(str(number)) for number in range(5)]
    async with client_over(near, max_in_flight) as client:
        async with answering(far, frame(success("0")) + frame(success("1"))):
            with pytest.raises(CallTimeoutError) as caught:
                await client.call_many(requests, timeout=2)
        assert trio.current_time() == pytest.approx(2)
        assert "the call timed out waiting for response 3 of 5; whether" in str(caught.value)
        assert "; the limit timeout is 2 s; " in str(caught.value)
        assert caught.value.responses == (success("0"), success("1"))
        counts_are_whole(client)
        assert client.snapshot().calls_failed["call_timeout"] == 3
        assert client.is_broken == (max_in_flight == 1)
        if max_in_flight > 1:
            await far.send_all(b"".join(frame(success(str(number))) for number in (2, 3, 4)))
            await wait_all_tasks_blocked()
            # Of the last two only what had a place was sent.
            assert client.snapshot().frames_sent == client.snapshot().frames_received == 5


@BOTH_LINES
async def test_many_calls_that_cannot_be_written_have_their_deadline_too(
    autojump_clock: MockClock, max_in_flight: int
) -> None:
    near, _ = narrow_streams()
    async with client_over(near, max_in_flight) as client:
        with pytest.raises(CallTimeoutError, match="the call timed out .* of 2.*; the limit timeout is 2 s"):
            await client.call_many([task("1"), task("2")], timeout=2)
        assert trio.current_time() == pytest.approx(2)
        counts_are_whole(client)


# --- The caller's own scope, which stays as it is -----------------------------------------------------------


async def test_a_call_cancelled_part_way_closes_the_connection_and_the_next_says_so(
    ends: Ends, autojump_clock: MockClock
) -> None:
    far, near = ends.raw(CONFIG)
    async with client_over(near) as client:
        with trio.move_on_after(1):
            await client.call(task("mine"))
        await expect_broken_by(client, trio.Cancelled, "it was cancelled")
        assert await far.receive_some() == frame(task("mine"))
        assert await far.receive_some() == b""


@BOTH_LINES
async def test_the_nearer_of_two_deadlines_counts(
    ends: Ends, autojump_clock: MockClock, max_in_flight: int
) -> None:
    _, near = ends.raw(CONFIG)
    async with client_over(near, max_in_flight) as client:
        with trio.move_on_after(1) as scope:
            await client.call(task("mine"), timeout=2)
        assert scope.cancelled_caught
    _, near = ends.raw(CONFIG)
    async with client_over(near, max_in_flight) as client:
        with pytest.raises(CallTimeoutError), trio.move_on_after(2):
            await client.call(task("mine"), timeout=1)


@BOTH_LINES
async def test_the_limits_of_the_settings_hold_beside_a_longer_timeout(
    ends: Ends, autojump_clock: MockClock, max_in_flight: int
) -> None:
    _, near = ends.raw(CONFIG)
    async with client_over(near, max_in_flight) as client:
        with pytest.raises(ReadTimeoutError, match="read_timeout_ms is 30000"):
            await client.call(task(), timeout=1_000)
        assert trio.current_time() == pytest.approx(30)


# --- Turns --------------------------------------------------------------------------------------------------


@BOTH_LINES
async def test_each_who_waits_for_a_turn_has_all_of_its_time(
    ends: Ends, autojump_clock: MockClock, max_in_flight: int
) -> None:
    _, near = ends.raw(CONFIG.replace(read_timeout_ms=1_000_000))
    given_up: dict[float, float] = {}

    async def wait(client: DetectionClient, seconds: float) -> None:
        await trio.sleep(seconds)
        with pytest.raises(TurnTimeoutError, match="behind .* calls?, the limit read_timeout_ms is 30000"):
            await client.call(task())
        given_up[seconds] = trio.current_time()

    async with client_over(near, max_in_flight) as client, trio.open_nursery() as nursery:
        for _ in range(max_in_flight):
            nursery.start_soon(client.call, task())
        async with trio.open_nursery() as waiting:
            for seconds in (1, 2, 2.5, 20):
                waiting.start_soon(wait, client, seconds)
        nursery.cancel_scope.cancel()
    assert given_up == pytest.approx({1: 31, 2: 32, 2.5: 32.5, 20: 50})


@BOTH_LINES
async def test_who_is_cancelled_in_the_line_takes_no_turn_and_the_others_have_their_time(
    ends: Ends, autojump_clock: MockClock, max_in_flight: int
) -> None:
    _, near = ends.raw(CONFIG.replace(read_timeout_ms=1_000_000))
    async with client_over(near, max_in_flight) as client, trio.open_nursery() as nursery:
        for _ in range(max_in_flight):
            nursery.start_soon(client.call, task())
        await wait_all_tasks_blocked()
        with trio.move_on_after(1) as first:
            await client.call(task())
        assert first.cancelled_caught
        with pytest.raises(TurnTimeoutError):
            await client.call(task())
        assert trio.current_time() == pytest.approx(31)
        nursery.cancel_scope.cancel()
    counts_are_whole(client)


@BOTH_LINES
async def test_a_turn_that_was_late_because_this_process_was_stopped_is_waited_for_anew(
    mock_clock: MockClock, max_in_flight: int
) -> None:
    near, far = memory_streams()
    answers = []

    async def call(client: DetectionClient, name: str) -> None:
        answers.append((await client.call(task(name))).task_id)

    async with client_over(near, max_in_flight) as client, trio.open_nursery() as nursery:
        for number in range(max_in_flight):
            nursery.start_soon(call, client, str(number))
            await wait_all_tasks_blocked()
        nursery.start_soon(call, client, "late")
        await wait_all_tasks_blocked()
        for number in range(max_in_flight):
            far.write(frame(success(str(number))))
        mock_clock.jump(1_000)
        await wait_all_tasks_blocked()
        far.write(frame(success("late")))
    assert answers[-1] == "late"


async def test_turns_come_in_the_order_of_the_calls(ends: Ends) -> None:
    far, near = ends.raw(CONFIG)
    order = []

    async def call(client: DetectionClient, number: int) -> None:
        await client.call(task(str(number)), timeout=60 if number % 2 else None)
        order.append(number)

    async with client_over(near) as client, trio.open_nursery() as nursery:
        for number in range(9):
            nursery.start_soon(call, client, number)
            await wait_all_tasks_blocked()
        async with answering(far, *[frame(success(str(number))) for number in range(9)]):
            while len(order) < 9:
                await trio.lowlevel.checkpoint()
    assert order == list(range(9))
