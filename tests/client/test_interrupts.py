"""A KeyboardInterrupt at any line of a call: no turn is lost, no place, and no count."""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, TypeAlias

import attrs
import pytest
import trio
import trio.testing

import trio_ipc.client
from tests.support import DetectionClient, frame, success, task
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import MemoryStream, memory_streams
from trio_ipc.wire import FrameDecoder

from .support import BOTH_LINES, CONFIG, client_over, counts_are_whole

_ROOM = os.path.dirname(trio_ipc.client.__file__)

Use: TypeAlias = Callable[[DetectionClient], Awaitable[object]]


class InterruptAt:
    """Sends this process a SIGINT at the so-and-so-manieth line that runs in the client's room."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: types.FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_ROOM):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)
        return self._trace


@pytest.fixture(autouse=True)
def _interrupts_are_trios() -> Iterator[None]:
    before, traced = signal.signal(signal.SIGINT, signal.default_int_handler), sys.gettrace()
    yield
    sys.settrace(traced)
    signal.signal(signal.SIGINT, before)


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
        # Where one call at a time is under way, the interrupted one closes the connection.
        with suppress(trio_ipc.ChannelClosedError):
            await client.call(task("other"))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(other)
        await trio.lowlevel.checkpoint()
        await client.call(task("x"))


async def use_and_use_again(line: int, use: Use, max_in_flight: int) -> bool:
    """Return whether the line was reached."""
    near, far = memory_streams()
    interrupt = InterruptAt(line)
    async with trio.open_nursery() as nursery, client_over(near, max_in_flight) as client:
        nursery.start_soon(answer_all, far)
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


# Where several calls are in flight, it may end a task of the client's own, and so the client as a whole.
@pytest.mark.parametrize("use", [_call, _call_with_a_timeout, _call_many, _call_where_others_are_ahead])
def test_an_interrupt_at_any_line_loses_no_turn_no_place_and_no_count(use: Use) -> None:
    line, reached = 1, True
    while reached:
        reached = trio.run(use_and_use_again, line, use, 1)
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
