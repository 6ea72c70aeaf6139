from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

import attrs
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from tests.client.pipelines import (
    CONFIG,
    Line,
    line,
)
from tests.support import ME, frame, serving, succeed, success, task
from trio_ipc import (
    Call,
    FramedChannel,
    IpcConfig,
    PeerClosedError,
    open_client,
)
from trio_ipc.client.batch import Batch
from trio_ipc.client.pending import Pending
from trio_ipc.client.pipeline import Pipeline
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.opening import open_channel

from .support import narrow_streams


def counted_writes(subject: Line) -> list[int]:
    """Note how many payloads each write carries."""
    channel = subject.pipeline._channel
    sizes: list[int] = []
    send_nowait = channel.send_nowait

    def noted(payloads: Sequence[bytes]) -> bool:
        sizes.append(len(payloads))
        return send_nowait(payloads)

    channel.send_nowait = noted  # type: ignore[method-assign]
    return sizes


async def test_requests_made_at_a_time_are_one_write_and_answers_go_to_their_callers() -> None:
    async with line() as subject:
        sizes = counted_writes(subject)
        names = [str(number) for number in range(20)]
        subject.call(*names)
        await wait_all_tasks_blocked()
        assert sizes == [20]
        sent = await subject.received()
        assert sorted(sent) == sorted(names)
        await subject.answer(*sent[:7])
        assert set(subject.answers) == set(sent[:7])
        await subject.answer(*sent[7:])
        assert subject.answers == {name: success(name) for name in names}
        assert subject.done == [(name, None) for name in sent]


async def test_a_caller_that_is_cancelled_before_it_is_sent_is_as_if_it_had_never_been() -> None:
    async with line() as subject:
        subject.call("1")
        await wait_all_tasks_blocked()
        subject.call("gone")
        subject.scopes["gone"].cancel()
        subject.call("2")
        await wait_all_tasks_blocked()
        assert await subject.received() == ["1", "2"]
        await subject.answer("1", "2")
        assert subject.answers == {"1": success("1"), "2": success("2")}


async def test_a_caller_that_is_cancelled_while_it_waits_to_be_written_is_withdrawn() -> None:
    # The server reads nothing: the first write hangs.
    async with line(trio.testing.lockstep_stream_pair()) as subject:
        subject.call("1")
        await wait_all_tasks_blocked()
        subject.call("2", "3")
        await wait_all_tasks_blocked()
        subject.scopes["2"].cancel()
        await wait_all_tasks_blocked()
        [(name, outcome)] = subject.done
        assert (name, type(outcome)) == ("2", trio.Cancelled)
        assert await subject.received() == ["1"]
        assert await subject.received() == ["3"]


async def test_a_caller_that_is_cancelled_later_leaves_its_place_and_its_response_is_dropped() -> None:
    async with line() as subject:
        for name in "123":
            subject.call(name)
            await wait_all_tasks_blocked()
        subject.scopes["2"].cancel()
        await wait_all_tasks_blocked()
        assert subject.done == [], "its place is taken until the response has come"
        await subject.answer("1", "2", "3")
        assert subject.answers == {"1": success("1"), "3": success("3")}
        assert subject.done == [("1", None), ("2", None), ("3", None)]


async def test_a_connection_that_cannot_be_written_to_takes_no_further_calls(
    autojump_clock: MockClock,
) -> None:
    """The server reads no longer, but has not closed: what it has still to say is waited for."""
    near, far = memory_stream_pair()
    async with line((near, far)) as subject:
        subject.call("1")
        await wait_all_tasks_blocked()
        assert subject.pipeline.accepts_calls
        far.receive_stream.close()
        subject.call("2")
        await wait_all_tasks_blocked()
        assert not subject.pipeline.accepts_calls
        assert not subject.pipeline.is_reusable()
        subject.call("3")
        await wait_all_tasks_blocked()
        assert "this connection was broken by an earlier call: the peer closed" in str(subject.error("3"))
        assert trio.current_time() == 0
        await subject.server.send_all(frame(success("1")))
        await wait_all_tasks_blocked()
        assert subject.answers["1"] == success("1")


async def test_an_idle_connection_is_not_timed_out(autojump_clock: MockClock) -> None:
    async with line() as subject:
        for name in "12":
            subject.call(name)
            await wait_all_tasks_blocked()
            await subject.answer(name)
            await trio.sleep(1000)
            assert subject.pipeline.is_reusable()
        assert subject.answers == {"1": success("1"), "2": success("2")}


async def test_the_order_holds_over_a_real_server_with_callers_that_come_and_go(config: IpcConfig) -> None:
    async def echo(task: DetectionTask, _: Call) -> DetectionResult:
        await trio.lowlevel.checkpoint()
        return success(task.task_id)

    async with serving(echo, config), trio.open_nursery() as nursery:
        pipeline = Pipeline(await open_channel(config), DETECTION)
        nursery.start_soon(pipeline.run)
        answered = 0

        async def caller(number: int) -> None:
            nonlocal answered
            for turn in range(20):
                with trio.CancelScope() as scope:
                    if (number + turn) % 5 == 0:
                        nursery.start_soon(cancel_soon, scope, number % 3)
                    name = f"{number}-{turn}"
                    assert await pipeline.call(task(name)) == success(name)
                    answered += 1

        async def cancel_soon(scope: trio.CancelScope, steps: int) -> None:
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            scope.cancel()

        async with trio.open_nursery() as callers:
            for number in range(16):
                callers.start_soon(caller, number)
        assert answered >= 16 * 16
        await pipeline.aclose()


async def test_many_large_answers_do_not_block_many_large_requests(config: IpcConfig) -> None:
    """Each side's buffer is full of what the other has not read: the reader must go on while it writes."""

    async def large(task: DetectionTask, _: Call) -> DetectionResult:
        return DetectionResult(task_id=task.task_id, success=True, error_message="x" * 500_000)

    async with serving(large, config), trio.open_nursery() as nursery:
        pipeline = Pipeline(await open_channel(config), DETECTION)
        nursery.start_soon(pipeline.run)
        with trio.fail_after(30):
            async with trio.open_nursery() as callers:
                for number in range(12):
                    callers.start_soon(pipeline.call, task(f"{number}" + "y" * 500_000))
        await pipeline.aclose()


async def test_requests_sent_by_one_write_are_answered_over_a_bare_channel_too(config: IpcConfig) -> None:
    async def echo(task: DetectionTask, _: Call) -> DetectionResult:
        return success(task.task_id)

    async with serving(echo, config):
        channel = await open_channel(config)
        await channel.send_many([task("1").SerializeToString(), task("2").SerializeToString()])
        answers = [DETECTION.decode_response(await channel.receive()) for _ in range(2)]
        assert answers == [success("1"), success("2")]
        await channel.aclose()


async def test_a_servers_failed_response_is_no_response_to_a_request_that_it_has_not_got_whole(
    autojump_clock: MockClock,
) -> None:
    """Nor to one behind it, and nobody is left waiting."""
    near, far = narrow_streams()
    contract = attrs.evolve(DETECTION, mismatch=lambda _request, _response: None)
    pipeline = Pipeline(FramedChannel(near, CONFIG, endpoint="memory", peer=ME), contract)
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipeline.run)
            subject = Line(pipeline, far, nursery)
            subject.call("half-sent")
            await wait_all_tasks_blocked()
            subject.call("behind")
            await wait_all_tasks_blocked()
            await far.send_all(frame(DetectionResult(error_message="no")))
            await wait_all_tasks_blocked()
            assert not subject.answers
            await far.aclose()
    for name in ("half-sent", "behind"):
        assert isinstance(subject.error(name), PeerClosedError)
    assert pipeline.is_broken


async def test_what_is_idle_keeps_no_answers() -> None:
    async with line() as subject:
        channel = subject.pipeline._channel
        receive_nowait = channel.receive_nowait
        seen: list[bytes] = []

        def noted_nowait(at_most: int) -> list[bytes]:
            found = receive_nowait(at_most)
            seen.extend(found)
            return found

        channel.receive_nowait = noted_nowait  # type: ignore[method-assign]
        for names in (["one"], ["two", "three"]):
            subject.call(*names)
            await wait_all_tasks_blocked()
            await subject.answer(*await subject.received())  # whichever of two calls was first
        assert len(seen) == 3
        counts = [sys.getrefcount(seen.pop()) for _ in range(3)]
        assert counts == [1, 1, 1], "the argument of each"


@pytest.mark.parametrize("max_in_flight", [1, 4])
async def test_an_idle_client_keeps_nothing_of_its_calls(config: IpcConfig, max_in_flight: int) -> None:
    """They hold requests, payloads and responses, and must not wait for the garbage collector."""
    async with (
        serving(succeed, config),
        open_client(DETECTION, config, max_in_flight=max_in_flight) as client,
    ):
        await client.call(task())
        gc.collect()
        gc.disable()
        try:
            for requests in ([task()], [task()] * 200):
                await client.call_many(requests)
                await client.call(task())
                await wait_all_tasks_blocked()
                assert not [thing for thing in gc.get_objects() if isinstance(thing, Pending | Batch)]
        finally:
            gc.enable()
