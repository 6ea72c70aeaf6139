"""Messages in a row that need no wait: each is a checkpoint, for others and for a cancellation."""

from __future__ import annotations

import pytest
import trio

from tests.support import IN_MEMORY, Beside, Ends
from trio_ipc import Crc32Variant, IpcConfig
from trio_ipc.wire import FrameEncoder

CONFIG = IpcConfig(endpoint_path=IN_MEMORY, poll_attempts=0)
FRAME = FrameEncoder(100, Crc32Variant.IEEE).encode(b"payload")


async def test_receiving_what_is_in_hand_lets_others_have_their_turn(ends: Ends) -> None:
    beside = Beside()
    raw, channel = ends.raw(CONFIG)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(beside.run)
        await raw.send_all(FRAME * 100)
        before = beside.turns
        for _ in range(100):
            assert await channel.receive() == b"payload"
        assert beside.turns - before >= 90
        nursery.cancel_scope.cancel()


async def test_so_does_sending_what_there_is_room_for(ends: Ends) -> None:
    beside = Beside()
    _, channel = ends.raw(CONFIG)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(beside.run)
        before = beside.turns
        for _ in range(100):
            await channel.send(b"payload")
        assert beside.turns - before >= 90
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("received", [0, 1])
async def test_who_is_cancelled_takes_nothing_though_it_is_in_hand(ends: Ends, received: int) -> None:
    raw, channel = ends.raw(CONFIG)
    await raw.send_all(FRAME * 3)
    for _ in range(received):
        await channel.receive()
    with trio.CancelScope() as scope:
        scope.cancel()
        await channel.receive()
    assert scope.cancelled_caught
    for _ in range(3 - received):
        assert await channel.receive() == b"payload"


async def test_who_is_cancelled_sends_nothing_though_there_is_room(ends: Ends) -> None:
    raw, channel = ends.raw(CONFIG)
    with trio.CancelScope() as scope:
        scope.cancel()
        await channel.send(b"never")
    assert scope.cancelled_caught
    await channel.send(b"payload")
    assert await raw.receive_some() == FRAME
