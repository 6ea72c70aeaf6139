"""A KeyboardInterrupt at any line of a call: no turn is lost, no place, and no count."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import TypeAlias

import attrs
import pytest
import trio
import trio.testing

import trio_ipc.client
from tests.interrupts import InterruptAt, interrupts_are_trios
from tests.support import DetectionClient, frame, success, task
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import MemoryStream, memory_streams
from trio_ipc.wire import FrameDecoder

from .support import BOTH_LINES, CONFIG, client_over, counts_are_whole

Use: TypeAlias = Callable[[DetectionClient], Awaitable[object]]


@pytest.fixture(autouse=True)
def _interrupts_are_trios() -> Iterator[None]:
    with interrupts_are_trios():
        yield


async def answer_all(far: MemoryStream) -> None:
    decoder = FrameDecoder(1_000, CONFIG.crc32_variant)
    with suppress(trio.BrokenResourceError):  # where the interrupted call closes the connection
        while data := await far.receive_some():
            decoder.feed(data)
            while (payload := decoder.next_payload()) is not None:
                await far.send_all(frame(success(DETECTION.decode_request(payload).task_id)))


async def _call(client: DetectionClient) -> None:
    await client.call(task("x"))


async def _call_with_a_timeout(client: DetectionClient) -> None:
    await client.call(task("x"), timeout=10)


async def _call_many(client: DetectionClient) -> None:
    await client.call_many([task("x"), task("y"), task("z"), task("u"), task("v")])


async def _call_where_others_are_ahead(client: DetectionClient) -> None:
    async def other() -> None:
        # Where one call at a time is in flight, the interrupted one closes the connection.
        with suppress(trio_ipc.ChannelClosedError):
            await client.call(task("other"))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(other)
        await trio.lowlevel.checkpoint()
        await client.call(task("x"))


async def use_and_use_again(line: int, use: Use, max_in_flight: int, warm: int) -> bool:
    """Return whether the line was reached."""
    near, far = memory_streams()
    interrupt = InterruptAt(trio_ipc.client, line)
    async with trio.open_nursery() as nursery, client_over(near, max_in_flight) as client:
        nursery.start_soon(answer_all, far)
        for _ in range(warm):
            await client.call(task("warm"))
        try:
            with interrupt:
                await use(client)
            await trio.lowlevel.checkpoint()  # where a protected step puts it off to
        except* KeyboardInterrupt:
            pass
        await trio.testing.wait_all_tasks_blocked()
        counts_are_whole(client)
        assert client.snapshot().calls_in_flight == 0
        assert client._turns._free == max_in_flight
        if not client.is_broken:
            with trio.fail_after(5):
                assert await client.call(task("next")) == success("next")
        assert max_in_flight == 1 or not client.is_broken
        nursery.cancel_scope.cancel()
    return interrupt.left <= 0


@BOTH_LINES
@pytest.mark.parametrize("warm", [0, 2], ids=["cold", "warm"])
@pytest.mark.parametrize("use", [_call, _call_with_a_timeout, _call_many, _call_where_others_are_ahead])
def test_an_interrupt_at_any_line_loses_no_turn_no_place_and_no_count(
    use: Use, warm: int, max_in_flight: int
) -> None:
    line, reached = 1, True
    while reached:
        reached = trio.run(use_and_use_again, line, use, max_in_flight, warm)
        line += 1
    assert line > 30


@BOTH_LINES
def test_the_contracts_own_functions_can_be_interrupted_and_the_interrupt_comes_out(
    max_in_flight: int,
) -> None:
    def interrupted(_request: DetectionTask, _response: DetectionResult) -> str | None:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("unreachable: as in a loop without an end")

    async def main() -> None:
        near, far = memory_streams()
        contract = attrs.evolve(DETECTION, mismatch=interrupted)
        async with client_over(near, max_in_flight, contract=contract) as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer_all, far)
                await client.call(task())

    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)) as caught:
        trio.run(main)
    if isinstance(caught.value, BaseExceptionGroup):
        assert caught.value.split(KeyboardInterrupt)[1] is None
