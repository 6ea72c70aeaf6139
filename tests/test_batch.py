"""Requests sent ahead: Client.call_many()."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MemorySendStream, MockClock, memory_stream_pair

from tests.support import (
    IN_MEMORY,
    ME,
    DetectionClient,
    MemoryEndpoint,
    frame,
    serving,
    succeed,
    success,
    task,
)
from trio_ipc import (
    Call,
    ChannelClosedError,
    Client,
    FramedChannel,
    IpcConfig,
    MessageEmptyError,
    PeerClosedError,
    ReadTimeoutError,
    ResponseMismatchError,
    WriteTimeoutError,
    open_client,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask, ProcessRecord
from trio_ipc.transports import PeerPolicy, listen

CONFIG = IpcConfig(endpoint_path=IN_MEMORY)


@asynccontextmanager
async def client_over(stream: trio.abc.Stream) -> AsyncIterator[DetectionClient]:
    channel = FramedChannel(stream, CONFIG, endpoint="memory", peer=ME)
    async with channel:
        yield Client(channel, CONFIG, contract=DETECTION)


def tasks(count: int) -> list[DetectionTask]:
    return [task(str(number)) for number in range(count)]


def ids(responses: object) -> list[str]:
    return [response.task_id for response in responses]  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [1, 2, 64, 65, 1_000])
async def test_every_request_is_answered_in_its_order(config: IpcConfig, count: int) -> None:
    async with serving(succeed, config) as server, open_client(config) as client:
        responses = await client.call_many(tasks(count))
        assert ids(responses) == ids(tasks(count))
        assert (await client.call(task("after"))).task_id == "after"
        # The answer may be here before the server's task hears that it was taken.
        await trio.testing.wait_all_tasks_blocked()
        mine, its = client.snapshot(), server.snapshot()
        assert mine.calls == mine.calls_answered == its.requests == its.requests_answered == count + 1
        assert mine.frames_sent == its.frames_received == count + 1
        assert (mine.calls_in_flight, its.requests_in_flight) == (0, 0)


async def test_no_requests_are_no_work_and_a_checkpoint_all_the_same(config: IpcConfig) -> None:
    async with serving(succeed, config) as server, open_client(config) as client:
        with trio.testing.assert_checkpoints():
            assert await client.call_many([]) == []
        assert server.snapshot().requests == client.snapshot().calls == 0


@pytest.mark.parametrize(
    ("microseconds", "answers"),
    [(0, 1), (8, 16), (40, 64)],
    ids=["no time at all", "a quarter of the limit each", "more than the limit each"],
)
async def test_many_requests_are_one_write_and_answered_by_few_unless_each_takes_its_time(
    mock_clock: MockClock, microseconds: int, answers: int
) -> None:
    """After 30 µs what is made is sent, so that the client has something to do meanwhile."""
    endpoint = MemoryEndpoint(CONFIG)
    writes = {"client": 0, "server": 0}
    near, far = memory_stream_pair()

    def count_writes(who: str, stream: MemorySendStream) -> None:
        pump = stream.send_all_hook
        assert pump is not None

        async def count() -> None:
            writes[who] += 1
            await pump()

        stream.send_all_hook = count

    async def work(request: DetectionTask, _: Call) -> DetectionResult:
        mock_clock.jump(microseconds / 1e6)
        return success(request.task_id)

    count_writes("client", near.send_stream)
    count_writes("server", far.send_stream)
    endpoint.offer(FramedChannel(far, CONFIG, endpoint="memory", peer=ME))
    async with serving(work, endpoint):
        async with client_over(near) as client:
            assert ids(await client.call_many(tasks(64))) == ids(tasks(64))
    assert writes == {"client": 1, "server": answers}


async def test_where_each_write_is_dear_there_are_few_but_nothing_is_held_for_long(
    mock_clock: MockClock,
) -> None:
    """As it is where the client has to run on the server's core first."""
    endpoint = MemoryEndpoint(CONFIG)
    near, far = memory_stream_pair()
    pump = far.send_stream.send_all_hook
    assert pump is not None
    began: list[float] = []
    held: list[float] = []

    async def write_dearly() -> None:
        held.append(trio.current_time() - began[0])
        began.clear()
        mock_clock.jump(50e-6)
        await pump()

    async def work(request: DetectionTask, _: Call) -> DetectionResult:
        began.append(trio.current_time())
        mock_clock.jump(100e-6)
        return success(request.task_id)

    far.send_stream.send_all_hook = write_dearly
    endpoint.offer(FramedChannel(far, CONFIG, endpoint="memory", peer=ME))
    async with serving(work, endpoint):
        async with client_over(near) as client:
            assert ids(await client.call_many(tasks(60))) == ids(tasks(60))
    assert len(held) < 15, "one for each request would be 60"
    assert max(held) < 1.2e-3


async def test_two_sides_that_both_write_more_than_fits_do_not_wait_for_each_other(config: IpcConfig) -> None:
    """Requests and responses of 64 KiB, 200 times: many times what any system's buffers hold."""
    records = [ProcessRecord(pid=1, name="x" * 65_000)]
    large = [DetectionTask(task_id=str(number), metadata="y" * 65_000) for number in range(200)]

    async def handler(asked: DetectionTask, _: Call) -> DetectionResult:
        return DetectionResult(task_id=asked.task_id, success=True, processes=records)

    async with serving(handler, config), open_client(config) as client:
        with trio.fail_after(30):
            assert ids(await client.call_many(large)) == ids(large)


async def test_if_one_request_cannot_be_sent_none_is(config: IpcConfig) -> None:
    async with serving(succeed, config) as server, open_client(config) as client:
        with pytest.raises(MessageEmptyError) as caught:
            await client.call_many([task(), DetectionTask()])
        assert caught.value.endpoint == config.endpoint_path
        with pytest.raises(TypeError, match="must be a DetectionTask"):
            await client.call_many([task(), success()])  # type: ignore[list-item]
        assert server.snapshot().requests == client.snapshot().calls == 0
        assert (await client.call(task())).success


async def test_what_was_answered_before_the_server_closed_is_not_lost() -> None:
    near, far = memory_stream_pair()
    async with client_over(near) as client:
        await far.send_all(frame(success("0")) + frame(success("1")))
        await far.send_eof()
        with pytest.raises(PeerClosedError) as caught:
            await client.call_many(tasks(5))
        assert ids(caught.value.responses) == ["0", "1"]
        assert caught.value.endpoint == "memory"
        counts = client.snapshot()
        assert (counts.calls, counts.calls_answered, counts.calls_in_flight) == (5, 2, 0)
        assert counts.calls_failed["peer_closed"] == 3
        with pytest.raises(ChannelClosedError, match="broken by an earlier call"):
            await client.call_many(tasks(1))
        assert client.snapshot().calls_failed["closed"] == 1


async def test_what_was_answered_is_read_even_if_the_next_write_finds_the_server_gone(
    config: IpcConfig,
) -> None:
    """A server that answers some and closes: the client's next write fails before it has read them."""
    async with await listen(config.endpoint_path, PeerPolicy.own_user_and_root()) as listener:

        async def answer_some_and_close() -> None:
            async with await listener.accept() as stream:
                received = b""
                while received.count(frame(task("t"))) < 60:
                    received += await stream.receive_some()
                for _ in range(60):
                    await stream.send_all(frame(success("t")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_some_and_close)
            async with open_client(config) as client:
                with pytest.raises(PeerClosedError) as caught:
                    await client.call_many([task("t")] * 10_000)
                assert len(caught.value.responses) == 60


async def test_an_answer_to_another_request_ends_it_and_keeps_those_before() -> None:
    near, far = memory_stream_pair()
    async with client_over(near) as client:
        await far.send_all(frame(success("0")) + frame(success("2")) + frame(success("1")))
        with pytest.raises(ResponseMismatchError) as caught:
            await client.call_many(tasks(3))
        assert ids(caught.value.responses) == ["0"]
        assert client.is_broken


async def test_each_answer_has_its_deadline(autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    async with client_over(near) as client:
        await far.send_all(frame(success("0")))
        with pytest.raises(ReadTimeoutError) as caught:
            await client.call_many(tasks(3))
        assert ids(caught.value.responses) == ["0"]
        assert trio.current_time() == CONFIG.read_timeout_ms / 1000


async def test_a_server_that_does_not_read_is_timed_out(config: IpcConfig, autojump_clock: MockClock) -> None:
    slow = config.replace(write_timeout_ms=1_000)
    async with await listen(config.endpoint_path, PeerPolicy.own_user_and_root()) as listener:
        async with open_client(slow) as client, await listener.accept():
            with pytest.raises(WriteTimeoutError):
                await client.call_many([DetectionTask(task_id="t", metadata="y" * 1_000_000)] * 4)
            assert client.is_broken


async def test_a_cancellation_part_way_closes_the_connection(autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    async with client_over(near) as client:
        await far.send_all(frame(success("0")))
        with trio.move_on_after(1) as scope:
            await client.call_many(tasks(3))
        assert scope.cancelled_caught
        assert client.is_broken


async def test_it_takes_its_turn_among_other_calls(config: IpcConfig) -> None:
    async with serving(succeed, config) as server, open_client(config) as client:
        answered: list[list[str]] = []

        async def many(name: str) -> None:
            answered.append(ids(await client.call_many([task(f"{name}{number}") for number in range(100)])))

        async def one(name: str) -> None:
            answered.append(ids([await client.call(task(name))]))

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(many, name)
                nursery.start_soon(one, name)
        assert server.snapshot().requests == 303
        assert sorted(len(one_call) for one_call in answered) == [1, 1, 1, 100, 100, 100]
