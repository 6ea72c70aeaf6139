"""Calls that wait for their turn on a shared connection are posted in it, and no task is woken for that."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import ME, DetectionClient, frame, success, task
from trio_ipc import (
    CallTimeoutError,
    ChannelClosedError,
    Client,
    FramedChannel,
    IpcError,
    MessageTooLargeError,
    PeerClosedError,
    TurnTimeoutError,
)
from trio_ipc.client.pending import Pending
from trio_ipc.client.pipeline import Pipeline
from trio_ipc.client.turns import Turns
from trio_ipc.daemoneye import DETECTION
from trio_ipc.testing import memory_streams
from trio_ipc.wire import FrameDecoder

from .support import CONFIG, client_over, is_good


@asynccontextmanager
async def answering(far: trio.abc.Stream) -> AsyncIterator[list[str]]:
    """A server that answers each request in turn; gives their ids."""
    ids = list[str]()

    async def answer() -> None:
        decoder = FrameDecoder(1_000, CONFIG.crc32_variant)
        while True:
            decoder.feed(await far.receive_some())
            while (payload := decoder.next_payload()) is not None:
                ids.append(DETECTION.decode_request(payload).task_id)
                await far.send_all(frame(success(ids[-1])))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        yield ids
        nursery.cancel_scope.cancel()


class Steps(trio.abc.Instrument):
    """Counts the steps of each task, by its name."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    def before_task_step(self, step: trio.lowlevel.Task) -> None:
        self.of[step.name] += 1


async def noted(client: DetectionClient, name: str, ends: list[str], timeout: float | None = None) -> None:  # noqa: ASYNC109 - the client's
    try:
        response = await client.call(task(name), timeout=timeout)
        ends.append(response.task_id)
    except IpcError as exc:
        ends.append(f"{name}: {type(exc).__name__}")


async def begin_in_turn(
    nursery: trio.Nursery, client: DetectionClient, names: Iterable[str], ends: list[str]
) -> None:
    """Begin a call of each name, one after the other has come to wait."""
    for name in names:
        nursery.start_soon(noted, client, name, ends)
        await wait_all_tasks_blocked()


async def test_a_call_sleeps_once_however_long_it_waits_for_its_turn() -> None:
    near, far = memory_streams()
    names, steps = [str(number) for number in range(40)], Steps()
    async with client_over(near, max_in_flight=2) as client, trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(noted, client, name, [], name="call " + name)
        trio.lowlevel.add_instrument(steps)
        try:
            async with answering(far):
                await wait_all_tasks_blocked()
        finally:
            trio.lowlevel.remove_instrument(steps)
    calls = {name: number for name, number in steps.of.items() if name.startswith("call ")}
    assert set(calls.values()) == {2}, "one until it waits, and one with its response"
    assert len(calls) == 40


async def test_turns_are_taken_in_order_by_single_calls_and_those_of_batches() -> None:
    near, far = memory_streams()
    ends: list[str] = []
    async with client_over(near, max_in_flight=2) as client, trio.open_nursery() as nursery:
        await begin_in_turn(nursery, client, ("1", "2", "3"), ends)
        nursery.start_soon(client.call_many, [task("4"), task("5")])
        await wait_all_tasks_blocked()
        nursery.start_soon(noted, client, "6", ends)
        await wait_all_tasks_blocked()
        async with answering(far) as ids:
            await wait_all_tasks_blocked()
        # The batch has to wake for its turn, and asks for its next one behind the others.
        assert ids in (["1", "2", "3", "4", "6", "5"], ["1", "2", "3", "6", "4", "5"])
        assert sorted(ends) == ["1", "2", "3", "6"]


@pytest.mark.parametrize("timeout", [None, 5])
async def test_where_the_connection_ends_each_call_that_waits_hears_of_it_however_many_they_are(
    timeout: float | None,  # noqa: ASYNC109 - the client's
) -> None:
    near, far = memory_streams()
    ends: list[str] = []
    async with client_over(near, max_in_flight=1_000) as client:
        async with trio.open_nursery() as nursery:
            for number in range(4_000):
                nursery.start_soon(noted, client, str(number), ends, timeout)
            await wait_all_tasks_blocked()
            await far.aclose()
        assert len(ends) == 4_000
        kinds = Counter(end.partition(": ")[2] for end in ends)
        assert set(kinds) == {"PeerClosedError", "ChannelClosedError"}
        assert kinds["ChannelClosedError"] >= 3_000, "those that were not sent"
        assert client.snapshot().calls_in_flight == 0
        assert client._turns._free == 1_000


async def test_a_call_that_waits_says_by_which_error_the_connection_ended() -> None:
    near, far = memory_streams()
    async with client_over(near, max_in_flight=2) as client:
        async with trio.open_nursery() as nursery:
            await begin_in_turn(nursery, client, "12", [])
            nursery.start_soon(far.aclose)
            with pytest.raises(ChannelClosedError, match="broken by an earlier call") as caught:
                await client.call(task("3"))
        assert isinstance(caught.value.__cause__, PeerClosedError)


async def test_what_cannot_be_sent_leaves_its_turn_to_the_next_one() -> None:
    near, far = memory_streams()
    ends: list[str] = []
    async with client_over(near, 2, CONFIG.replace(max_frame_bytes=100)) as client:
        async with trio.open_nursery() as nursery:
            await begin_in_turn(nursery, client, ("1", "2", "x" * 101, "3"), ends)
            async with answering(far) as ids:
                await wait_all_tasks_blocked()
        assert ids == ["1", "2", "3"]
        assert sorted(ends) == ["1", "2", "3", "x" * 101 + ": MessageTooLargeError"]
        with pytest.raises(MessageTooLargeError, match="^memory: the message has"):
            await client.call(task("x" * 101))
        assert client._turns._free == 2
        await is_good(client, far)


async def test_what_waits_takes_no_more_than_its_request() -> None:
    near, _ = memory_streams()
    async with client_over(near, max_in_flight=2) as client, trio.open_nursery() as nursery:
        await begin_in_turn(nursery, client, "1234", [])
        waiting = [one for one in client._turns._waiting if isinstance(one, Pending)]
        assert [one.payload for one in waiting] == [b"", b""]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("end", ["turn", "timeout", "closed"])
async def test_a_call_that_has_failed_keeps_nothing(mock_clock: MockClock, end: str) -> None:
    """Not until the garbage collector comes: many large requests may fail at a time."""
    near, far = memory_streams()
    ends: list[str] = []
    gc.collect()
    gc.disable()
    try:
        async with client_over(near, max_in_flight=2) as client:
            async with trio.open_nursery() as nursery:
                for number in range(6):
                    timeout = 5 if end == "timeout" else None
                    nursery.start_soon(noted, client, f"kept {number}", ends, timeout)
                await wait_all_tasks_blocked()
                if end == "closed":
                    await far.aclose()
                else:
                    mock_clock.jump(5 if end == "timeout" else CONFIG.read_timeout_ms / 1000)
        assert len(ends) == 6
        pendings = [one.request for one in gc.get_objects() if isinstance(one, Pending)]
        left = [request for request in pendings if request.task_id.startswith("kept")]
        # The client keeps the error that has ended its connection, and that knows who has met it.
        assert len(left) <= client.is_broken
    finally:
        gc.enable()


async def test_a_turn_that_comes_free_while_a_stopped_process_goes_on_is_not_missed(
    mock_clock: MockClock,
) -> None:
    """Without an alarm the waits end by scopes, in the pass in which the responses are read."""
    for _ in range(10):
        near, far = memory_streams()
        channel = FramedChannel(near, CONFIG, endpoint="memory", peer=ME)
        client = Client(channel, DETECTION, CONFIG, max_in_flight=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            await begin_in_turn(nursery, client, "123", [])
            far.write(frame(success("1")) + frame(success("2")))
            mock_clock.jump(100)
            await wait_all_tasks_blocked()
            assert client.snapshot().frames_sent == 3
            nursery.cancel_scope.cancel()


async def test_who_is_cancelled_while_waiting_leaves_the_turn_to_the_next(autojump_clock: MockClock) -> None:
    near, far = memory_streams()
    ends: list[str] = []
    async with client_over(near, max_in_flight=2) as client:
        async with trio.open_nursery() as nursery:
            await begin_in_turn(nursery, client, "12", ends)
            with trio.move_on_after(1):
                await client.call(task("gone"))
            nursery.start_soon(noted, client, "3", ends)
            await wait_all_tasks_blocked()
            async with answering(far):
                await wait_all_tasks_blocked()
        assert sorted(ends) == ["1", "2", "3"]
        assert client.snapshot().frames_sent == 3
        await is_good(client, far)


@pytest.mark.parametrize("stopped_for", [0, 10])
async def test_a_call_whose_time_is_up_is_not_sent_in_the_turn_that_comes_with_that(
    mock_clock: MockClock, stopped_for: float
) -> None:
    near, far = memory_streams()
    ends: list[str] = []
    async with client_over(near, max_in_flight=2) as client:
        async with trio.open_nursery() as nursery:
            await begin_in_turn(nursery, client, "12", ends)
            nursery.start_soon(noted, client, "late", ends, 5)
            await wait_all_tasks_blocked()
            far.write(frame(success("1")) + frame(success("2")))
            mock_clock.jump(5 + stopped_for)
        assert sorted(ends) == ["1", "2", "late: CallTimeoutError"]
        assert client.snapshot().frames_sent == 2
        assert client._turns._free == 2


@pytest.mark.parametrize("by", ["turn", "timeout"])
async def test_waiting_for_too_long_says_for_what(autojump_clock: MockClock, by: str) -> None:
    near, _ = memory_streams()
    config = CONFIG.replace(read_timeout_ms=1_000)
    wanted: type[IpcError] = CallTimeoutError if by == "timeout" else TurnTimeoutError
    async with client_over(
        near, 2, config.replace(read_timeout_ms=9_000) if by == "timeout" else config
    ) as client:
        async with trio.open_nursery() as nursery:
            await begin_in_turn(nursery, client, "12", [])
            with pytest.raises(wanted, match="waiting for a turn behind 2 calls"):
                await client.call(task("3"), timeout=1 if by == "timeout" else None)
            assert trio.current_time() == pytest.approx(1)
            nursery.cancel_scope.cancel()


async def test_where_there_is_no_nursery_for_an_alarm_a_call_waits_by_itself(
    autojump_clock: MockClock,
) -> None:
    near, far = memory_streams()
    channel = FramedChannel(near, CONFIG, endpoint="memory", peer=ME)
    client = Client(channel, DETECTION, CONFIG, max_in_flight=2)
    ends: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        await begin_in_turn(nursery, client, "123", ends)
        async with answering(far):
            await wait_all_tasks_blocked()
        assert sorted(ends) == ["1", "2", "3"]
        await begin_in_turn(nursery, client, "45", ends)
        with pytest.raises(CallTimeoutError, match="behind 2 calls"):
            await client.call(task("6"), timeout=5)
        nursery.start_soon(noted, client, "7", ends, 60)
        await wait_all_tasks_blocked()
        await client.aclose()
        await wait_all_tasks_blocked()
        assert sorted(ends[3:]) == [f"{name}: ChannelClosedError" for name in "457"]
        assert client._turns._free == 2


async def test_a_line_that_was_given_its_turn_takes_none_and_tells_of_each_end() -> None:
    near, _ = memory_streams()
    pipeline = Pipeline(FramedChannel(near, CONFIG, endpoint="memory", peer=ME), DETECTION)
    turns, outcomes = Turns(1, endpoint="memory", read_timeout_ms=1_000), list[BaseException | None]()
    await pipeline.end()
    with suppress(ChannelClosedError):
        await pipeline.call(task("1"), done=outcomes.append)
    assert len(outcomes) == 1, "its owner has given it a place, and hears that it is free"
    with suppress(ChannelClosedError):
        await pipeline.call(task("2"), turns=turns, done=outcomes.append)
    assert len(outcomes) == 1, "it had not taken its turn"
    assert turns.take_nowait()
