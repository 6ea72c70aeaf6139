"""The timeout of a call whose request is not sent, or not all of it: the error says how far it has come."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from tests.support import ME, Ends, frame, success, task
from trio_ipc import CallTimeoutError, Channel, FramedChannel, TransportType

from .pipelines import line
from .support import BOTH_LINES, CONFIG, answering, client_over, counts_are_whole, narrow_streams

#: More than a connection takes before its other end is read.
LARGE = task("x" * 900_000)


def unread(ends: Ends) -> Channel:
    """A connection whose server does not read."""
    if ends.transport is TransportType.INTERPROCESS:
        return FramedChannel(narrow_streams()[0], CONFIG, endpoint="memory", peer=ME)
    return ends.raw(CONFIG)[1]


def said(caught: pytest.ExceptionInfo[CallTimeoutError]) -> str:
    return str(caught.value).partition("; the limit timeout is 2 s; ")[0]


async def test_of_many_calls_that_wait_behind_another_nothing_was_sent(
    ends: Ends, autojump_clock: MockClock
) -> None:
    async with client_over(unread(ends), 4) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.call, LARGE)
        await wait_all_tasks_blocked()
        with pytest.raises(
            CallTimeoutError, match="s; see whether the server is stuck: it does not"
        ) as caught:
            await client.call_many([task("1"), task("2"), task("3")], timeout=2)
        assert said(caught) == "memory: the call timed out before request 1 of 3 was sent"
        counts_are_whole(client)
        nursery.cancel_scope.cancel()


@BOTH_LINES
async def test_a_request_that_is_half_sent_is_not_waited_for_yet(
    ends: Ends, autojump_clock: MockClock, max_in_flight: int
) -> None:
    async with client_over(unread(ends), max_in_flight) as client:
        with pytest.raises(
            CallTimeoutError, match="s; see whether the server is stuck: it does not"
        ) as caught:
            await client.call(LARGE, timeout=2)
        assert said(caught) == "memory: the call timed out while the request was sent"


@BOTH_LINES
async def test_nor_is_one_of_many(ends: Ends, autojump_clock: MockClock, max_in_flight: int) -> None:
    async with client_over(unread(ends), max_in_flight) as client:
        with pytest.raises(CallTimeoutError) as caught:
            await client.call_many([LARGE, LARGE], timeout=2)
        assert said(caught) == "memory: the call timed out while request 1 of 2 was sent"


async def test_nor_is_one_of_many_after_some_answers(autojump_clock: MockClock) -> None:
    near, far = narrow_streams(200_000)
    async with client_over(near, 3) as client, answering(far, frame(success("1"))):
        with pytest.raises(CallTimeoutError) as caught:
            await client.call_many([task("1"), LARGE, task("3")], timeout=2)
        assert said(caught) == "memory: the call timed out while request 2 of 3 was sent"
        assert caught.value.responses == (success("1"),)
        counts_are_whole(client)


async def test_nor_is_one_that_the_server_did_not_take_before_it_read_no_more(
    autojump_clock: MockClock,
) -> None:
    near, far = memory_stream_pair()
    async with line((near, far)) as subject:
        subject.call("1")
        await wait_all_tasks_blocked()
        far.receive_stream.close()
        with pytest.raises(CallTimeoutError, match="timed out while the request was sent; see whether"):
            await subject.pipeline.call(task("2"), deadline=2)


async def test_a_request_whose_turn_has_not_come_after_all_others_were_answered_was_not_sent(
    ends: Ends, autojump_clock: MockClock
) -> None:
    far, near = ends.raw(CONFIG)
    async with client_over(near, 2) as client, trio.open_nursery() as nursery:

        async def call_many() -> None:
            with pytest.raises(CallTimeoutError, match="s; open more clients, or make fewer calls") as caught:
                await client.call_many([task("mine"), task("late")], timeout=2)
            assert said(caught) == (
                "memory: the call timed out waiting for a turn for request 2 of 2; it was not sent"
            )
            assert caught.value.responses == (success("mine"),)

        async def call_and_wait(*names: str) -> None:
            for name in names:
                nursery.start_soon(client.call, task(name))
                await wait_all_tasks_blocked()

        await call_and_wait("1", "2", "3")
        nursery.start_soon(call_many)
        await wait_all_tasks_blocked()
        await call_and_wait("4", "5")
        for name in ("1", "2", "3", "mine"):
            await far.send_all(frame(success(name)))
            await wait_all_tasks_blocked()
        await trio.sleep(2)
        await far.send_all(frame(success("4")) + frame(success("5")))
