"""A KeyboardInterrupt at any line of a channel: it goes on with whole frames, or is closed."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import pytest
import trio

import trio_ipc.channel
import trio_ipc.legacy
from tests.channel.support import over
from tests.interrupts import InterruptAt, interrupts_are_trios
from tests.platforms import unix_only
from tests.support import IN_MEMORY, MIB, Ends
from trio_ipc import Channel, ChannelClosedError, IpcConfig, TransportType
from trio_ipc.testing import memory_streams
from trio_ipc.wire import FrameEncoder

CONFIG = IpcConfig(endpoint_path=IN_MEMORY, max_frame_bytes=MIB, poll_attempts=0)

AFTER = b"after"

#: Which transport, and in which package of the library the lines are.
PACKAGES = pytest.mark.parametrize(
    ("transport", "package"),
    [
        pytest.param(TransportType.INTERPROCESS, trio_ipc.channel, id="default"),
        pytest.param(TransportType.LEGACY, trio_ipc.channel, id="legacy, what is common", marks=unix_only),
        pytest.param(TransportType.LEGACY, trio_ipc.legacy, id="legacy", marks=unix_only),
    ],
    indirect=["transport"],
)


@pytest.fixture(autouse=True)
def _interrupts_are_trios() -> Iterator[None]:
    with interrupts_are_trios():
        yield


def frames(*payloads: bytes) -> bytes:
    return FrameEncoder(MIB, CONFIG.crc32_variant).encode_many(payloads)


def narrow(ends: Ends) -> tuple[trio.abc.Stream, Channel, bytes]:
    """A channel, the bytes at its other end, and a payload that does not go at once."""
    if ends.transport is TransportType.INTERPROCESS:
        far, near = memory_streams(buffer_bytes=40)
        return far, over(near, CONFIG), bytes(100)
    far_end, channel = ends.raw(CONFIG)
    return far_end, channel, bytes(600_000)


async def interrupted(interrupt: InterruptAt, function: Callable[[], Awaitable[object]]) -> None:
    with suppress(KeyboardInterrupt):
        with interrupt:
            await function()
        await trio.lowlevel.checkpoint()  # where a protected step puts it off to


async def send_and_go_on(ends: Ends, package: types.ModuleType, line: int) -> bool:
    """Return whether the line was reached."""
    far, channel, payload = narrow(ends)
    interrupt, came, went_on = InterruptAt(package, line), bytearray(), False

    async def read_all() -> None:
        with suppress(trio.BrokenResourceError):
            while data := await far.receive_some():
                came.extend(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all)
        await interrupted(interrupt, lambda: channel.send(payload))
        with suppress(ChannelClosedError):
            await channel.send(AFTER)
            went_on = True
        await channel.aclose()
    await far.aclose()
    if went_on:
        assert came in (frames(AFTER), frames(payload, AFTER))
    else:
        assert frames(payload).startswith(came)
    return interrupt.left <= 0


async def receive_and_go_on(ends: Ends, package: types.ModuleType, line: int) -> bool:
    """Return whether the line was reached."""
    far, channel = ends.raw(CONFIG)
    interrupt, received = InterruptAt(package, line), list[bytes]()
    sent = frames(b"one", b"two")

    async def send_in_parts() -> None:
        for part in (sent[:5], sent[5:9], sent[9:15], sent[15:]):
            await trio.testing.wait_all_tasks_blocked()
            with suppress(trio.BrokenResourceError):
                await far.send_all(part)

    async def receive() -> None:
        received.append(await channel.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_in_parts)
        await interrupted(interrupt, receive)
        with suppress(ChannelClosedError):
            while len(received) < 2:
                await receive()
    assert received == [b"one", b"two"][: len(received)]
    if len(received) < 2:
        with pytest.raises(ChannelClosedError):
            await channel.send(AFTER)
    await channel.aclose()
    await far.aclose()
    return interrupt.left <= 0


@PACKAGES
@pytest.mark.parametrize("go_on", [send_and_go_on, receive_and_go_on])
def test_an_interrupt_at_any_line_leaves_whole_frames_or_a_closed_channel(
    ends: Ends, package: types.ModuleType, go_on: Callable[[Ends, types.ModuleType, int], Awaitable[bool]]
) -> None:
    line, reached = 1, True
    while reached:
        reached = trio.run(go_on, ends, package, line)
        line += 1
    assert line > 5


async def test_whatever_stops_a_frame_part_way_closes_the_channel() -> None:
    class Breaking(trio.abc.Stream):
        closed = False

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            raise ZeroDivisionError

        async def wait_send_all_might_not_block(self) -> None: ...

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return b""

        async def aclose(self) -> None:
            self.closed = True

    stream = Breaking()
    channel = over(stream)
    with pytest.raises(ZeroDivisionError):
        await channel.send(b"x")
    assert stream.closed
    with pytest.raises(ChannelClosedError):
        await channel.send(b"x")
