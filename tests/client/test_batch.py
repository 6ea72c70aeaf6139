"""Requests sent ahead: Client.call_many()."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MemorySendStream, MockClock, memory_stream_pair, wait_all_tasks_blocked

from tests.client.batches import (
    answers,
    ids,
    tasks,
)
from tests.support import (
    ME,
    Beside,
    MemoryEndpoint,
    frame,
    serving,
    succeed,
    success,
    task,
)
from trio_ipc import (
    Call,
    FramedChannel,
    IpcConfig,
    MessageEmptyError,
    open_client,
)
from trio_ipc.channel import cores
from trio_ipc.client import batch
from trio_ipc.contract import encode
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask, ProcessRecord
from trio_ipc.testing import memory_streams

from .support import (
    BOTH_LINES,
    CONFIG,
    answering,
    client_over,
    counts_are_whole,
)

# --- All is well --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 64, 65, 1_000])
@pytest.mark.parametrize("max_in_flight", [1, 3, 64])
async def test_every_request_is_answered_in_its_order(
    config: IpcConfig, count: int, max_in_flight: int
) -> None:
    async with (
        serving(succeed, config) as server,
        open_client(DETECTION, config, max_in_flight=max_in_flight) as client,
    ):
        responses = await client.call_many(tasks(count))
        assert ids(responses) == ids(tasks(count))
        assert (await client.call(task("after"))).task_id == "after"
        # The response may be here before the server's task hears that it was taken.
        await wait_all_tasks_blocked()
        mine, its = client.snapshot(), server.snapshot()
        assert mine.calls == mine.calls_answered == its.requests == its.requests_answered == count + 1
        assert mine.frames_sent == its.frames_received == count + 1
        assert (mine.calls_in_flight, its.requests_in_flight) == (0, 0)


@BOTH_LINES
async def test_no_requests_are_no_work_and_a_checkpoint_all_the_same(
    config: IpcConfig, max_in_flight: int
) -> None:
    async with (
        serving(succeed, config) as server,
        open_client(DETECTION, config, max_in_flight=max_in_flight) as client,
    ):
        with trio.testing.assert_checkpoints():
            assert await client.call_many([]) == []
        assert server.snapshot().requests == client.snapshot().calls == 0


@pytest.mark.parametrize(
    ("microseconds", "usable", "most"),
    [(0, 1, 1), (8, 1, 1), (40, 1, 3), (0, 2, 2), (8, 2, 2), (40, 2, 4)],
)
async def test_many_requests_are_one_write_and_answered_by_few(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch, microseconds: int, usable: int, most: int
) -> None:
    """A turn of the server's connection is 1 ms. On two cores it also sends once, when 32 are left."""
    monkeypatch.setattr(cores, "usable_cores", lambda: usable)
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
    async with serving(work, endpoint), client_over(near) as client:
        assert ids(await client.call_many(tasks(64))) == ids(tasks(64))
    assert writes["client"] == 1
    assert writes["server"] <= most


@pytest.mark.parametrize("max_in_flight", [1, 3, 64])
async def test_two_sides_that_both_write_more_than_fits_do_not_wait_for_each_other(
    config: IpcConfig, max_in_flight: int
) -> None:
    """Requests and responses of 64 KiB, 200 times: many times what any system's buffers hold."""
    records = [ProcessRecord(pid=1, name="x" * 65_000)]
    large = [DetectionTask(task_id=str(number), metadata="y" * 65_000) for number in range(200)]

    async def handler(asked: DetectionTask, _: Call) -> DetectionResult:
        return DetectionResult(task_id=asked.task_id, success=True, processes=records)

    async with (
        serving(handler, config),
        open_client(DETECTION, config, max_in_flight=max_in_flight) as client,
    ):
        with trio.fail_after(30):
            assert ids(await client.call_many(large)) == ids(large)


async def test_it_takes_its_turn_among_other_calls(config: IpcConfig) -> None:
    async with serving(succeed, config) as server, open_client(DETECTION, config) as client:
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


async def test_where_several_are_in_flight_each_request_takes_a_turn_and_others_have_theirs_between() -> None:
    near, far = memory_streams()
    order = []
    async with client_over(near, 3) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.call_many, tasks(10))
        await wait_all_tasks_blocked()
        assert far.read(1_000) == b"".join(map(frame, tasks(3))), "no more than allowed are in flight"

        async def ask(name: str) -> None:
            await client.call(task(name))
            order.append(name)

        for name in ("a", "b"):
            nursery.start_soon(ask, name)
            await wait_all_tasks_blocked()
        for number in range(3):
            far.write(answers(number))
            await wait_all_tasks_blocked()
        sent = far.read(1_000)
        assert sent is not None
        assert sent.startswith(frame(task("3")) + frame(task("a")) + frame(task("b")))
        far.write(answers(3) + frame(success("a")) + frame(success("b")))
        await wait_all_tasks_blocked()
        assert sorted(order) == ["a", "b"]
        far.write(answers(4, 5, 6))
        await wait_all_tasks_blocked()
        far.write(answers(7, 8, 9))
    counts_are_whole(client)
    assert client.snapshot().calls_answered == 12


# --- Everyone else has a turn meanwhile ---------------------------------------------------------------------


@BOTH_LINES
async def test_encoding_many_requests_lets_others_have_their_turn(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch, max_in_flight: int
) -> None:
    def slowly(request: DetectionTask) -> bytes:
        mock_clock.jump(50e-6)
        return encode(request)

    monkeypatch.setattr(batch, "encode", slowly)
    beside = Beside()
    near, _ = memory_streams()
    async with client_over(near, max_in_flight) as client, trio.open_nursery() as nursery:
        nursery.start_soon(beside.run)
        with pytest.raises(MessageEmptyError):
            await client.call_many([*tasks(1_000), DetectionTask()])
        nursery.cancel_scope.cancel()
        assert client.snapshot().frames_sent == client.snapshot().calls == 0, "none was sent"
        assert not client.is_broken
    assert beside.turns > 25
    assert beside.longest < 0.004, "two slices, as Trio throws a coin for who goes first"


@BOTH_LINES
async def test_so_does_decoding_many_answers(mock_clock: MockClock, max_in_flight: int) -> None:
    beside = Beside()
    turns = []

    def slowly(_request: DetectionTask, _response: DetectionResult) -> None:
        mock_clock.jump(100e-6)
        turns.append(beside.turns)

    near, far = memory_streams()
    contract = attrs.evolve(DETECTION, mismatch=slowly)
    async with client_over(near, 100 * max_in_flight - 99, contract=contract) as client:
        async with answering(far, answers(*range(64))), trio.open_nursery() as nursery:
            nursery.start_soon(beside.run)
            assert await client.call_many(tasks(64)) == [success(str(number)) for number in range(64)]
            nursery.cancel_scope.cancel()
    assert turns[0] < turns[63], "between answers that came together"


@BOTH_LINES
async def test_requests_that_are_made_as_they_are_taken_let_others_have_their_turn_too(
    config: IpcConfig, max_in_flight: int
) -> None:
    async with (
        serving(succeed, config),
        open_client(DETECTION, config, max_in_flight=max_in_flight) as client,
        trio.open_nursery() as nursery,
    ):
        beside = Beside()
        nursery.start_soon(beside.run)
        turns, enough = [], trio.CancelScope()

        def make() -> Iterator[DetectionTask]:
            for number in range(20_000):
                turns.append(beside.turns)
                if turns[-1] - turns[0] > 5:
                    enough.cancel()
                yield task(str(number))

        with enough:
            await client.call_many(make())
        assert turns[-1] - turns[0] > 5
        nursery.cancel_scope.cancel()


async def test_a_list_that_changes_meanwhile_is_sent_as_it_was(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(request: DetectionTask) -> bytes:
        mock_clock.jump(1e-3)
        return encode(request)

    monkeypatch.setattr(batch, "encode", slowly)
    near, far = memory_streams()
    requests = tasks(64)

    async def clear() -> None:
        await trio.lowlevel.checkpoint()
        requests.clear()

    async with client_over(near) as client, answering(far, answers(*range(64))):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clear)
            assert len(await client.call_many(requests)) == 64
            assert not requests
