"""How long the next frame is worth waiting for awake, by what the two sides have sent each other."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.channel.support import CONFIG, PAYLOAD, Watched, over
from trio_ipc.channel.balance import Balance

#: Looks of a channel in an idle pass.
LOOKS = 8


def test_who_is_owed_nothing_waits_for_as_long_as_the_peer_may_need_to_ask() -> None:
    balance = Balance()
    assert balance.worth_waiting() == 3
    balance.received(1, 80)
    balance.sent(1, 80)
    assert balance.worth_waiting() == pytest.approx(3 + 2 / 4, abs=0.02)
    balance.received(1, 0)
    assert balance.worth_waiting() == 3 + 1 / 4, "what it was sent before it has decoded"


def test_the_more_it_was_sent_the_longer_a_peer_needs() -> None:
    balance = Balance()
    balance.received(64, 0)
    balance.sent(64, 8 * 8_192)
    assert balance.worth_waiting() == 3 + 8 + 2 * 16


def test_the_larger_what_it_sends_the_longer_it_needs() -> None:
    balance = Balance()
    balance.received(1, 8 * 8_192)
    balance.sent(1, 0)
    assert balance.worth_waiting() == 3 + 8 + 2 / 4


def test_who_is_owed_something_waits_without_such_an_end() -> None:
    balance = Balance()
    balance.sent(2, 80)
    assert balance.worth_waiting() == math.inf
    balance.received(1, 80)
    assert balance.worth_waiting() == math.inf
    balance.received(1, 0)
    assert balance.worth_waiting() == 3 + 1 / 4


async def test_a_client_is_met_awake_if_it_asks_soon_and_not_after_a_pause(autojump_clock: MockClock) -> None:
    stream = Watched()
    async with over(stream, CONFIG.replace(max_frame_bytes=1_000_000)) as channel:
        stream.nth = 3 * LOOKS
        assert await channel.receive() == PAYLOAD
        assert (stream.looks, stream.slept) == (3 * LOOKS, 0)
        await channel.send(PAYLOAD)
        stream.looks, stream.nth = 0, 4 * LOOKS + 1
        assert await channel.receive() == PAYLOAD
        assert (stream.looks, stream.slept) == (4 * LOOKS, 1), "one more pass, for the response"
        assert await channel.receive() == PAYLOAD
        assert (stream.looks, stream.slept) == (4 * LOOKS, 2), "left out once"
        await channel.send(bytes(5 * 8_192))
        stream.looks, stream.nth = 0, (3 + 5) * LOOKS
        assert await channel.receive() == PAYLOAD
        assert (stream.looks, stream.slept) == ((3 + 5) * LOOKS, 2), "it had more to decode"


async def test_what_was_sent_during_waits_that_were_left_out_does_not_add_up(
    autojump_clock: MockClock,
) -> None:
    stream = Watched()
    async with over(stream) as channel:
        for _ in range(500):
            assert await channel.receive() == PAYLOAD
            await channel.send(PAYLOAD)
    assert stream.slept == 500
    assert stream.looks <= 13 * 4 * LOOKS, "a dozen tries, of three passes or four"


async def test_a_response_is_waited_for_awake_for_longer(autojump_clock: MockClock) -> None:
    stream = Watched()
    async with over(stream) as channel:
        for nth in (1, 3 * LOOKS + 1, 75 * LOOKS):
            await channel.send(PAYLOAD)
            stream.looks, stream.nth = 0, nth
            assert await channel.receive() == PAYLOAD
            assert (stream.looks, stream.slept) == (nth, 0)


async def test_what_a_second_sender_was_refused_is_not_owed(autojump_clock: MockClock) -> None:
    has_room = trio.Event()

    class Full(Watched):
        def write(self, data: bytes | bytearray | memoryview) -> int:
            return len(data) if has_room.is_set() else 0

        async def write_some(self, data: bytes | bytearray | memoryview) -> int:
            await has_room.wait()
            return len(data)

    stream = Full()
    async with over(stream) as channel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.send, PAYLOAD)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await channel.send(PAYLOAD)
            has_room.set()
        stream.looks, stream.nth = 0, 1
        assert await channel.receive() == PAYLOAD
        stream.looks = stream.nth = 0
        assert await channel.receive() == PAYLOAD
        assert stream.looks == 4 * LOOKS
