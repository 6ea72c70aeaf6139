"""A second task in the same direction: it is told so, and the first one goes on as if nothing had been."""

from __future__ import annotations

import pytest
import trio

from tests.channel.support import CONFIG, FRAME, PAYLOAD
from tests.platforms import unix_only
from tests.support import MIB, Ends


async def test_of_a_second_sender_who_is_told_so_nothing_is_sent(ends: Ends) -> None:
    left, right = ends.channels(CONFIG.replace(max_frame_bytes=3 * MIB))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.send, bytes(3 * MIB))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await left.send(b"never")
        assert await right.receive() == bytes(3 * MIB)
    await left.send(b"next")
    assert await right.receive() == b"next"


@unix_only  # several tasks may wait for one read of a pipe
async def test_a_second_receiver_who_is_told_so_ends_no_frame_of_the_first_one(ends: Ends) -> None:
    raw, channel = ends.raw(CONFIG)
    received = []

    async def receive() -> None:
        received.append(await channel.receive())

    async with trio.open_nursery() as nursery:
        await raw.send_all(FRAME[:9])
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await channel.receive()
        await raw.send_all(FRAME[9:])
    assert received == [PAYLOAD]
