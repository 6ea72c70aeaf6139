"""Requests sent ahead, and what goes wrong."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.client.batches import (
    answers,
    ids,
    tasks,
)
from tests.support import (
    MIB,
    frame,
    serving,
    succeed,
    success,
    task,
)
from trio_ipc import (
    ChannelClosedError,
    IpcConfig,
    MessageError,
    PeerClosedError,
    ReadTimeoutError,
    ResponseMismatchError,
    UnsolicitedResponseError,
    WriteTimeoutError,
    open_client,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import memory_streams
from trio_ipc.transports import PeerPolicy, listen

from .support import (
    BOTH_LINES,
    Then,
    answering,
    client_over,
    counts_are_whole,
    expect_broken_by,
    is_good,
    narrow_streams,
)

# --- What goes wrong ----------------------------------------------------------------------------------------


@BOTH_LINES
@pytest.mark.parametrize("count", [1, 100])
async def test_if_one_request_cannot_be_sent_none_is(
    config: IpcConfig, max_in_flight: int, count: int
) -> None:
    too_large = DetectionTask(metadata="x" * (MIB + 1))
    async with (
        serving(succeed, config) as server,
        open_client(DETECTION, config, max_in_flight=max_in_flight) as client,
    ):
        for wrong in (DetectionTask(), too_large):
            with pytest.raises(MessageError) as caught:
                await client.call_many([*tasks(count), wrong, *tasks(count)])
            assert caught.value.endpoint == config.endpoint_path
        with pytest.raises(TypeError, match="must be a DetectionTask"):
            await client.call_many([task(), success()])  # type: ignore[list-item]
        assert server.snapshot().requests == client.snapshot().calls == 0
        assert (await client.call(task())).success


@BOTH_LINES
async def test_what_was_answered_before_the_server_closed_is_not_lost(max_in_flight: int) -> None:
    near, far = memory_streams()
    async with client_over(near, max_in_flight + 2) if max_in_flight > 1 else client_over(near) as client:
        async with answering(far, (answers(0, 1), Then.END)):
            with pytest.raises(PeerClosedError, match="it may be stopping or gone") as caught:
                await client.call_many(tasks(5))
        assert ids(caught.value.responses) == ["0", "1"]
        assert caught.value.endpoint == "memory"
        counts = client.snapshot()
        assert (counts.calls, counts.calls_answered, counts.calls_in_flight) == (5, 2, 0)
        assert counts.calls_failed["peer_closed"] == 3
        with pytest.raises(ChannelClosedError, match="broken by an earlier call"):
            await client.call_many(tasks(1))
        assert client.snapshot().calls_failed["closed"] == 1


@BOTH_LINES
async def test_what_was_answered_is_read_even_if_the_next_write_finds_the_server_gone(
    config: IpcConfig, max_in_flight: int
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
            async with open_client(DETECTION, config, max_in_flight=100 * max_in_flight - 99) as client:
                with pytest.raises(PeerClosedError) as caught:
                    await client.call_many([task("t")] * 10_000)
                assert len(caught.value.responses) == 60
                counts_are_whole(client)


@BOTH_LINES
async def test_a_response_to_another_request_ends_it_and_keeps_those_before(max_in_flight: int) -> None:
    near, far = memory_streams()
    async with client_over(near, max_in_flight) as client:
        async with answering(far, answers(0, 2, 1)):
            with pytest.raises(ResponseMismatchError) as caught:
                await client.call_many(tasks(3))
        assert ids(caught.value.responses) == ["0"]
        await expect_broken_by(client, ResponseMismatchError)


@BOTH_LINES
async def test_each_response_has_its_deadline(autojump_clock: MockClock, max_in_flight: int) -> None:
    near, far = memory_streams()
    async with client_over(near, max_in_flight) as client, trio.open_nursery() as nursery:

        async def answer_slowly() -> None:
            for number in range(2):
                await trio.sleep(25)
                await far.send_all(answers(number))

        nursery.start_soon(answer_slowly)
        with pytest.raises(ReadTimeoutError) as caught:
            await client.call_many(tasks(7))
        assert ids(caught.value.responses) == ["0", "1"]
        assert trio.current_time() == pytest.approx(80)
        assert client.snapshot().calls_failed["read_timeout"] == 5
        counts_are_whole(client)


async def test_a_cancellation_part_way_closes_the_connection(autojump_clock: MockClock) -> None:
    near, far = memory_streams()
    async with client_over(near) as client:
        async with answering(far, answers(0)):
            with trio.move_on_after(1) as scope:
                await client.call_many(tasks(3))
        assert scope.cancelled_caught
        await expect_broken_by(client, trio.Cancelled)


async def test_where_several_are_in_flight_a_cancellation_leaves_the_connection_and_the_others(
    autojump_clock: MockClock,
) -> None:
    near, far = memory_streams()
    async with client_over(near, 3) as client, trio.open_nursery() as nursery:
        with trio.move_on_after(1) as scope:
            await client.call_many(tasks(9))
        assert scope.cancelled_caught
        nursery.start_soon(client.call, task("beside"))
        await wait_all_tasks_blocked()
        assert far.read(1_000) == b"".join(map(frame, tasks(3))), "these keep their places"
        far.write(answers(0, 1, 2))
        await wait_all_tasks_blocked()
        assert far.read(1_000) == frame(task("beside"))
        far.write(frame(success("beside")))
        await wait_all_tasks_blocked()
        said = client.snapshot()
        assert (said.calls_answered, said.calls_failed["cancelled"], said.calls_in_flight) == (1, 9, 0)
        await is_good(client, far)


# --- What cannot be written ---------------------------------------------------------------------------------


@BOTH_LINES
async def test_a_server_that_does_not_read_is_a_write_timeout_of_certain_requests(
    autojump_clock: MockClock, max_in_flight: int
) -> None:
    near, _ = narrow_streams(40)
    async with client_over(near, 10 * max_in_flight - 9) as client:
        with pytest.raises(
            WriteTimeoutError, match="^memory: timed out handing over a message, the limit"
        ) as caught:
            await client.call_many(tasks(5))
        assert trio.current_time() == pytest.approx(10)
        assert max_in_flight > 1 or "10000, sending requests 1 to 5 of 5; see whether" in str(caught.value)
        assert client.snapshot().calls_failed["write_timeout"] == 5
        assert client.snapshot().timeouts["write"] == 5
        await expect_broken_by(client, WriteTimeoutError)


@BOTH_LINES
async def test_a_server_that_reads_no_more_after_some_answers_is_a_write_timeout_too(
    autojump_clock: MockClock, max_in_flight: int
) -> None:
    near, far = narrow_streams(40)
    async with client_over(near, 10 * max_in_flight - 9) as client, trio.open_nursery() as nursery:

        async def answer_some() -> None:
            await wait_all_tasks_blocked()
            assert far.read(22) is not None
            await far.send_all(answers(0, 1))

        nursery.start_soon(answer_some)
        with pytest.raises(WriteTimeoutError) as caught:
            await client.call_many(tasks(9))
        assert ids(caught.value.responses) == ["0", "1"]
        assert client.snapshot().calls_failed["write_timeout"] == 7


@BOTH_LINES
async def test_a_server_that_closes_while_it_is_sent_says_which_requests_and_what_may_be_the_reason(
    max_in_flight: int,
) -> None:
    near, far = narrow_streams(40)
    async with client_over(near, 10 * max_in_flight - 9) as client, trio.open_nursery() as nursery:

        async def close() -> None:
            await wait_all_tasks_blocked()
            await far.aclose()

        nursery.start_soon(close)
        with pytest.raises(
            PeerClosedError,
            match="^memory: .*over its connection limit.*refuse this user.*compare crc32_variant",
        ) as caught:
            await client.call_many(tasks(5))
        if max_in_flight == 1:
            said = "the server closed the connection while requests 1 to 5 of 5 was sent"
            assert said in str(caught.value)
        assert client.snapshot().calls_failed["peer_closed"] == 5
        await expect_broken_by(client, PeerClosedError)


@BOTH_LINES
async def test_what_it_says_then_is_told_and_is_no_response(max_in_flight: int) -> None:
    near, far = narrow_streams(15)
    trusting = attrs.evolve(DETECTION, mismatch=lambda _request, _response: None)
    closing_response = frame(DetectionResult(error_message="too much"))
    async with client_over(near, 10 * max_in_flight - 9, contract=trusting) as client:
        async with trio.open_nursery() as nursery:

            async def answer_some_and_close() -> None:
                await wait_all_tasks_blocked()
                assert far.read(11) is not None
                far.write(answers(0) + closing_response)
                far.close()

            nursery.start_soon(answer_some_and_close)
            with pytest.raises(PeerClosedError) as caught:
                await client.call_many(tasks(2))
        assert caught.value.responses == (success("0"),)
        assert 'it said: error_message: "too much"' in str(caught.value)


async def test_a_later_write_that_finds_the_server_gone_says_which_requests_were_not_sent() -> None:
    near, far = memory_streams()
    async with client_over(near) as client:
        async with answering(far, *[b""] * 127, (answers(*range(128)), Then.CLOSE)):
            with pytest.raises(PeerClosedError) as caught:
                await client.call_many(tasks(200))
        assert len(caught.value.responses) == 128
        assert "the server had closed the connection; requests 129 to 200 of 200: not sent; it may be" in str(
            caught.value
        )


# --- Answers that nobody asked for --------------------------------------------------------------------------


async def test_a_response_to_a_request_that_was_not_sent_yet_ends_it_and_keeps_those_before() -> None:
    near, far = memory_streams()
    async with client_over(near) as client:
        async with answering(far, *[b""] * 127, answers(*range(129))):
            with pytest.raises(UnsolicitedResponseError) as caught:
                await client.call_many(tasks(200))
        assert len(caught.value.responses) == 128
        assert 'an unsolicited response came with the last one; it said: task_id: "128"' in str(caught.value)
        assert "requests 129 to 200 of 200: not sent" in str(caught.value)
        await expect_broken_by(client, UnsolicitedResponseError)


@BOTH_LINES
async def test_a_response_too_many_after_the_last_one_breaks_the_next_call(max_in_flight: int) -> None:
    near, far = memory_streams()
    async with client_over(near, 10 * max_in_flight - 9) as client:
        async with answering(far, answers(0, 1, 1)):
            assert len(await client.call_many(tasks(2))) == 2
        assert not client.is_reusable()
        with pytest.raises(UnsolicitedResponseError, match="an unsolicited response came"):
            await client.call_many(tasks(2))
        assert client.is_broken
        assert client.snapshot().frames_sent == 2
