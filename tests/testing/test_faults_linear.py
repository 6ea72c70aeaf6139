"""Faults in what is large: what they do takes a time that grows as the bytes do."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
import trio

from tests.linear import costs_as, needs_thread_time
from tests.support import MIB
from trio_ipc.testing import Dribble, Duplicate, Fault, Faults, Merge, Rule, at_byte, memory_streams
from trio_ipc.testing.faultscript import FaultScript
from trio_ipc.transports import LocalStream

pytestmark = needs_thread_time

#: The beginning of a frame that does not end.
ENDLESS = b"\xff"


def fed(size: int, piece: bytes, *rules: Rule, delimiter: bytes | None = None) -> int:
    """Feed a script in pieces; return how many bytes came out."""
    script = FaultScript(rules, "k", delimiter=delimiter)
    steps = script.start()
    for _ in range(size // len(piece)):
        steps += script.feed(piece)[0]
    steps += script.end()
    return sum(len(step) for step in steps if isinstance(step, bytes))


@pytest.mark.parametrize("fault", [Merge, Duplicate])
def test_what_is_kept_of_many_pieces(fault: Callable[[int], Fault]) -> None:
    size, piece = 8 * MIB, ENDLESS * 4_096
    assert costs_as(lambda: fed(size, piece), lambda: fed(size, piece, at_byte(0, fault(size))))


def test_a_frame_that_does_not_end_and_goes_in_small_pieces() -> None:
    size, rule = MIB // 4, at_byte(0, Dribble(16))
    assert costs_as(
        lambda: fed(size, ENDLESS * size, rule), lambda: fed(size, b"\n" * size, rule, delimiter=b"\r\n")
    )


def test_many_frames_at_once() -> None:
    frame = struct.pack("<II", 1_000, 0) + bytes(1_000)
    size = 4_000 * len(frame)
    assert costs_as(lambda: fed(size, frame), lambda: fed(size, frame * 4_000))


async def sent_at_once(stream: LocalStream, far: LocalStream, size: int) -> None:
    with memoryview(ENDLESS * size) as data:
        sent = 0
        while sent < size:
            sent += stream.write(data[sent:])
            assert far.read(size)


async def sent_by_and_by(stream: LocalStream, far: LocalStream, size: int) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, ENDLESS * size)
        left = size
        while left:
            left -= len(await far.receive_some())


async def received(stream: LocalStream, far: LocalStream, size: int) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(far.send_all, ENDLESS * size)
        left = size
        while left:
            left -= len(await stream.receive_some(8_192))


@pytest.mark.parametrize(
    ("use", "size", "receiving"),
    [
        (sent_at_once, 64 * MIB, []),
        (sent_by_and_by, 64 * MIB, []),
        (received, 16 * MIB, [at_byte(0, Merge(16 * MIB))]),
    ],
)
def test_a_large_message(use: Callable[..., object], size: int, receiving: list[Rule]) -> None:
    async def main(faults: Faults | None) -> None:
        near, far = memory_streams()
        await use(near if faults is None else faults.wrap(near), far, size)  # type: ignore[misc]

    assert costs_as(lambda: trio.run(main, None), lambda: trio.run(main, Faults(receiving=receiving)))
