"""What callers see of a client, whether it makes one call at a time or several."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from typing import Any

import pytest
import trio
import trio.testing
from google.protobuf.descriptor_pb2 import UninterpretedOption
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import (
    ME,
    MIB,
    Ends,
    MemoryEndpoint,
    frame,
    serving,
    succeed,
    success,
    task,
)
from trio_ipc import (
    Client,
    ConfigError,
    Contract,
    FramedChannel,
    IpcConfig,
    MessageEmptyError,
    MessageError,
    MessageTooLargeError,
    TurnTimeoutError,
    open_client,
)
from trio_ipc.client.nursery import nursery_of_our_own
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import memory_streams, open_pair

from .support import (
    BOTH_LINES,
    CONFIG,
    answering,
    client_over,
    counts_are_whole,
    is_good,
)

# --- Calling ------------------------------------------------------------------------------------------------


@BOTH_LINES
async def test_a_failed_result_is_returned_not_raised(ends: Ends, max_in_flight: int) -> None:
    far, near = ends.raw(CONFIG)
    answer = frame(DetectionResult(task_id="t", error_message="no such process"))
    async with client_over(near, max_in_flight) as client, answering(far, answer):
        result = await client.call(task())
    assert (result.success, result.error_message) == (False, "no such process")


@pytest.mark.parametrize("max_in_flight", [1, 3, 64])
async def test_each_caller_gets_its_own_answer_and_no_more_are_in_flight_than_allowed(
    config: IpcConfig, max_in_flight: int
) -> None:
    most = 0

    async def handle(request: DetectionTask, _: object) -> DetectionResult:
        nonlocal most
        most = max(most, server.snapshot().requests - server.snapshot().requests_answered)
        await trio.lowlevel.checkpoint()
        return success(request.task_id)

    async with (
        serving(handle, config) as server,
        open_client(DETECTION, config, max_in_flight=max_in_flight) as client,
    ):
        answered = []

        async def call(task_id: str) -> None:
            assert await client.call(task(task_id)) == success(task_id)
            answered.append(task_id)

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(call, str(number))
        assert sorted(answered, key=int) == [str(number) for number in range(50)]
        said = client.snapshot()
        assert (said.calls, said.calls_answered, said.calls_in_flight) == (50, 50, 0)
        assert (said.frames_sent, said.frames_received) == (50, 50)
        assert said.transport == config.transport
        assert 1 <= most <= max_in_flight
        assert client.is_reusable()
        counts_are_whole(client)


@pytest.mark.parametrize(
    ("request_", "error"),
    [(DetectionTask(), MessageEmptyError), (DetectionTask(task_id="x" * MIB), MessageTooLargeError)],
)
@BOTH_LINES
async def test_a_request_that_cannot_be_sent_leaves_the_client_good(
    ends: Ends, request_: DetectionTask, error: type[Exception], max_in_flight: int
) -> None:
    far, near = ends.raw(CONFIG)
    async with client_over(near, max_in_flight) as client:
        for _ in range(4):
            with pytest.raises(error, match="^memory: "):
                await client.call(request_)
        await is_good(client, far)
        said = client.snapshot()
        assert (said.calls_failed["request_unsendable"], said.frames_sent) == (4, 1)


@BOTH_LINES
async def test_a_request_of_another_type_is_a_type_error_and_no_call(ends: Ends, max_in_flight: int) -> None:
    async with client_over(ends.raw(CONFIG)[1], max_in_flight) as client:
        with pytest.raises(TypeError, match="the request is a DetectionResult, must be a DetectionTask"):
            await client.call(DetectionResult())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="the request is a DetectionResult, must be a DetectionTask"):
            await client.call_many([task(), DetectionResult()])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="requests is a DetectionTask, must be an iterable of them"):
            await client.call_many(task())  # type: ignore[arg-type]
        assert client.snapshot().calls == 0


@BOTH_LINES
async def test_a_request_that_lacks_a_required_field_is_not_sent(ends: Ends, max_in_flight: int) -> None:
    _, near = ends.raw(CONFIG)
    part = UninterpretedOption.NamePart
    contract = Contract(name="proto2", request_type=part, response_type=part)
    client = Client(near, contract, CONFIG, max_in_flight=max_in_flight)
    for _ in range(2):
        with pytest.raises(MessageError, match="memory: the NamePart cannot be encoded: .*set the missing"):
            await client.call(part(name_part="x"))
    with pytest.raises(MessageError, match="memory: the NamePart cannot be encoded: .*set the missing"):
        await client.call_many([part(name_part="x")])


@BOTH_LINES
async def test_a_call_is_a_checkpoint_and_can_be_cancelled_before_it_sends(
    ends: Ends, max_in_flight: int
) -> None:
    far, near = ends.raw(CONFIG)
    async with client_over(near, max_in_flight) as client:
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.call(task())
        assert scope.cancelled_caught
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.call_many([task()])
        assert scope.cancelled_caught
        async with answering(far, frame(success())):
            with trio.testing.assert_checkpoints():
                assert await client.call(task()) == success()
        assert client.snapshot().frames_sent == 1


@BOTH_LINES
async def test_it_works_in_memory(max_in_flight: int) -> None:
    async with open_pair(succeed, DETECTION, max_in_flight=max_in_flight) as (client, _):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(client.call, task(str(number)))
        assert client.snapshot().calls_answered == 20


# --- Turns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_in_flight", [1, 2])
async def test_the_wait_for_a_turn_has_a_deadline_and_sends_nothing(
    ends: Ends, autojump_clock: MockClock, max_in_flight: int
) -> None:
    far, near = ends.raw(CONFIG)
    early = frame(success("first"))

    async def answer_late() -> None:
        await trio.sleep(25)
        await far.send_all(early[:5])  # so that its own deadline is a later one
        await trio.sleep(20)
        await far.send_all(early[5:] + (frame(success("first")) if max_in_flight == 2 else b""))

    async with client_over(near, max_in_flight) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_late)
            for _ in range(max_in_flight):
                nursery.start_soon(client.call, task("first"))
            await wait_all_tasks_blocked()
            with pytest.raises(
                TurnTimeoutError,
                match=f"^memory: timed out waiting for a turn behind {max_in_flight} calls?, the limit "
                "read_timeout_ms is 30000; open more clients",
            ):
                await client.call(task("second"))
            assert trio.current_time() == pytest.approx(30)
        assert await far.receive_some() == max_in_flight * frame(task("first"))
        await is_good(client, far)
        assert client.snapshot().calls_failed["turn_timeout"] == 1


@BOTH_LINES
async def test_a_turn_that_comes_with_a_cancellation_breaks_nothing(ends: Ends, max_in_flight: int) -> None:
    far, near = ends.raw(CONFIG)
    scope = trio.CancelScope()
    async with client_over(near, max_in_flight) as client:
        give_back = client._turns.give_back

        def give_back_and_cancel(_outcome: BaseException | None = None) -> None:
            give_back()
            scope.cancel()  # the turn is handed over, and nothing was sent yet

        client._turns.give_back = give_back_and_cancel  # type: ignore[method-assign]

        async def waiting() -> None:
            with scope:
                await client.call(task("waiting"))

        async with trio.open_nursery() as nursery:
            for _ in range(max_in_flight):
                nursery.start_soon(client.call, task("first"))
            await wait_all_tasks_blocked()
            nursery.start_soon(waiting)
            await wait_all_tasks_blocked()
            sent = await far.receive_some()
            assert sent == max_in_flight * frame(task("first"))
            for _ in range(max_in_flight):
                await far.send_all(frame(success("first")))
        assert scope.cancelled_caught
        if client.snapshot().frames_sent > max_in_flight:  # the pipeline's writer was the first to run
            assert await far.receive_some() == frame(task("waiting"))
            await far.send_all(frame(success("waiting")))
        await is_good(client, far)


# --- What a client is made of -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((CONFIG, DETECTION), "contract is an IpcConfig, must be a Contract"),
        (("/run/x.sock",), "contract is '/run/x.sock', must be a Contract"),
        ((DETECTION, "/run/x.sock"), "config is '/run/x.sock', must be an IpcConfig"),
        ((DETECTION, DETECTION), "config is a Contract, must be an IpcConfig"),
        ((None, CONFIG), "contract is None, must be a Contract"),
    ],
)
async def test_a_wrong_argument_says_what_belongs_there(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        async with open_client(*arguments):
            raise AssertionError("unreachable")
    near, _ = memory_streams()
    channel = FramedChannel(near, CONFIG, endpoint="memory", peer=ME)
    with pytest.raises(TypeError, match=said):
        Client(channel, *(*arguments, CONFIG)[:2])


async def test_a_client_is_over_a_channel_and_has_its_settings() -> None:
    near, _ = memory_streams()
    with pytest.raises(TypeError, match="channel is .*MemoryStream.*, must be a Channel"):
        Client(near, DETECTION, CONFIG)  # type: ignore[arg-type]
    channel = FramedChannel(near, CONFIG, endpoint="memory", peer=ME)
    with pytest.raises(TypeError, match="config is None, must be an IpcConfig"):
        Client(channel, DETECTION, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (0, ConfigError),
        (-1, ConfigError),
        *[(number, TypeError) for number in (1.5, 2.0, True, "3", None, math.inf)],
    ],
)
async def test_a_limit_that_is_no_number_of_calls_is_refused_before_anything_happens(
    number: Any, error: type[Exception]
) -> None:
    said = f"^max_in_flight is {re.escape(repr(number))}, must be a whole number of calls from 1$"
    with pytest.raises(error, match=said):
        async with open_client(DETECTION, CONFIG, max_in_flight=number):
            raise AssertionError("unreachable")
    near, _ = memory_streams()
    channel = FramedChannel(near, CONFIG, endpoint="memory", peer=ME)
    with pytest.raises(error, match=said):
        Client(channel, DETECTION, CONFIG, max_in_flight=number)


@BOTH_LINES
@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
async def test_what_the_block_raises_comes_out_as_it_is(
    config: IpcConfig, kind: type[BaseException], max_in_flight: int
) -> None:
    async def fail() -> None:
        async with open_client(DETECTION, config, max_in_flight=max_in_flight) as client:
            await client.call(task())
            raise kind

    async with serving(succeed, config):
        with pytest.raises(kind):
            await fail()


async def test_a_client_of_ones_own_is_run_in_a_nursery_where_it_has_tasks() -> None:
    for max_in_flight in (1, 3):
        endpoint = MemoryEndpoint(CONFIG)
        near, far = endpoint.ends.channels(CONFIG)
        endpoint.offer(far)
        async with serving(succeed, endpoint), nursery_of_our_own() as nursery:
            client = Client(near, DETECTION, CONFIG, max_in_flight=max_in_flight)
            nursery.start_soon(client.run)
            assert await client.call(task()) == success()


def test_the_way_for_several_calls_is_not_loaded_before_it_is_needed() -> None:
    code = (
        "import sys, trio, trio_ipc, trio_ipc.testing; from trio_ipc.daemoneye import DETECTION\n"
        "async def main():\n"
        "    for number in (1, 2):\n"
        "        async with trio_ipc.testing.open_pair(handle, DETECTION, max_in_flight=number): pass\n"
        "        print('trio_ipc.client.pipeline' in sys.modules)\n"
        "async def handle(request, call): pass\n"
        "trio.run(main)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]
