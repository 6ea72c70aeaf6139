"""A channel that looks again before it falls asleep."""

from __future__ import annotations

from functools import partial
from typing import Final

import pytest
import trio
from trio.testing import (
    MockClock,
)

from tests.channel.support import (
    CONFIG,
    FRAME,
    PAYLOAD,
    Watched,
    over,
)
from tests.platforms import unix_only
from tests.support import MIB
from trio_ipc import (
    ChannelClosedError,
    ChecksumMismatchError,
    IpcConfig,
    ReadTimeoutError,
)
from trio_ipc.transports import PeerPolicy, PeerState, connect, listen


async def test_a_busy_peer_is_met_awake_and_a_slow_one_is_given_up_on(autojump_clock: MockClock) -> None:
    stream = Watched()
    async with over(stream) as channel:
        for nth in (1, 5, 75, 8 * 75):
            stream.looks, stream.nth = 0, nth
            await channel.send(PAYLOAD)
            assert await channel.receive() == PAYLOAD
            assert (stream.looks, stream.slept) == (nth, 0)
        stream.looks = stream.nth = 0
        for _ in range(500):
            await channel.send(PAYLOAD)
            assert await channel.receive() == PAYLOAD
        assert stream.slept == 500
        assert stream.looks < 20 * 8 * 75


#: Seconds that a look takes on a :class:`SlowToLookAt`; a power of two, so that sums are exact.
LOOK: Final = 2.0**-15


class SlowToLookAt(Watched):
    """Each look takes 30.5 µs; it has room for 10 bytes, and then for none until somebody sleeps."""

    def __init__(self, clock: MockClock) -> None:
        super().__init__()
        self._clock = clock
        self._room = 10

    def read(self, max_bytes: int) -> bytes | None:
        if not self._woken:
            self._clock.jump(LOOK)
        return super().read(max_bytes)

    def write(self, _data: bytes | bytearray | memoryview) -> int:
        self._clock.jump(LOOK)
        self.looks += 1
        room, self._room = self._room, 0
        return room

    async def write_some(self, data: bytes | bytearray | memoryview) -> int:
        self.slept += 1
        await trio.sleep(1)
        return len(data)


async def test_where_frames_follow_one_another_it_looks_for_longer(autojump_clock: MockClock) -> None:
    stream = SlowToLookAt(autojump_clock)
    async with over(stream) as channel:
        stream.nth = 4
        assert await channel.receive() == PAYLOAD
        assert (stream.looks, stream.slept) == (4, 0), "100 µs for the first one"
        stream.nth = 4 + 10
        assert await channel.receive() == PAYLOAD
        assert (stream.looks, stream.slept) == (4 + 10, 0), "300 µs, since that came at once"
        assert await channel.receive() == PAYLOAD
        assert (stream.looks, stream.slept) == (4 + 10 + 10, 1)
        assert await channel.receive() == PAYLOAD
        assert (stream.looks, stream.slept) == (4 + 10 + 10, 2), "found nothing once, was left out once"
        assert await channel.receive() == PAYLOAD
        assert (stream.looks, stream.slept) == (4 + 10 + 10 + 4, 3), "100 µs, since that took a second"


async def test_it_looks_for_room_no_longer_than_for_a_frame(autojump_clock: MockClock) -> None:
    stream = SlowToLookAt(autojump_clock)
    async with over(stream) as channel:
        await channel.send(PAYLOAD * 10)
        assert (stream.looks, stream.slept) == (1 + 4, 1)


async def test_looking_can_be_turned_off(autojump_clock: MockClock) -> None:
    stream = Watched()
    async with over(stream, CONFIG.replace(poll_attempts=0)) as channel:
        for _ in range(100):
            assert await channel.receive() == PAYLOAD
    assert stream.looks == 0


async def test_who_looks_can_be_cancelled(autojump_clock: MockClock) -> None:
    stream = Watched()
    channel = over(stream)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                while not stream.looks:
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            nursery.start_soon(cancel)
            await channel.receive()
    assert scope.cancelled_caught
    assert stream.slept == 0
    assert await channel.receive() == PAYLOAD, "it is as it was"


async def test_a_peer_that_drips_into_every_look_gets_no_longer(mock_clock: MockClock) -> None:
    """Something is there whenever the channel looks, so that it never waits under its deadline."""

    class Dripping(Watched):
        def read(self, _max_bytes: int) -> bytes | None:
            self.looks += 1
            mock_clock.jump(1)
            header = (1_000).to_bytes(4, "little") + bytes(4)
            return header if self.looks == 1 else b"x"

    stream = Dripping()
    channel = over(stream, CONFIG.replace(read_timeout_ms=10_000))
    with pytest.raises(ReadTimeoutError, match="for the rest of a frame"):
        await channel.receive()
    assert (stream.looks, stream.slept) == (11, 0)
    with pytest.raises(ChannelClosedError):
        await channel.receive()


@unix_only  # a pipe takes nothing without a wait
@pytest.mark.parametrize("poll_attempts", [0, 8])
async def test_a_large_payload_goes_out_in_its_parts_and_arrives_whole(
    config: IpcConfig, poll_attempts: int
) -> None:
    settings = config.replace(poll_attempts=poll_attempts)
    payloads = [
        bytes([number]) * size for number, size in enumerate((1, 16_376, 16_377, 300_000, 1_048_576), 1)
    ]
    async with await listen(settings.endpoint_path, PeerPolicy.own_user_and_root()) as listener:
        async with over(await connect(settings.endpoint_path), settings) as channel:
            async with over(await listener.accept(), settings) as peer:

                async def send_one_by_one() -> None:
                    for payload in payloads:
                        await channel.send(payload)

                for send in (partial(channel.send_many, payloads), send_one_by_one):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(send)
                        for payload in payloads:
                            assert await peer.receive() == payload
                assert channel.traffic.bytes_sent == peer.traffic.bytes_received


async def test_a_peer_that_sends_without_a_pause_does_not_keep_others_from_their_turn() -> None:
    half = len(FRAME) // 2

    class Endless(Watched):
        """Has the rest of a frame and the beginning of the next one, whenever somebody looks."""

        def read(self, _max_bytes: int) -> bytes | None:
            self.looks += 1
            return FRAME[:half] if self.looks == 1 else FRAME[half:] + FRAME[:half]

        async def wait_readable(self) -> None:
            await trio.lowlevel.checkpoint()

    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with over(Endless()) as channel, trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        for _ in range(200):
            assert await channel.receive() == PAYLOAD
        nursery.cancel_scope.cancel()
    assert turns >= 190


async def test_of_a_large_frame_that_is_there_seventeen_reads_come_before_the_others_turn() -> None:
    """16 in a row, and the one that follows a wait; some 0.4 ms (see _READS_IN_A_ROW)."""
    in_a_row: list[int] = [0]

    class Large(Watched):
        def read(self, max_bytes: int) -> bytes:
            self.looks += 1
            in_a_row[-1] += 1
            header = (max_bytes * 200).to_bytes(4, "little") + bytes(4)
            return header if self.looks == 1 else bytes(max_bytes)

        async def wait_readable(self) -> None:
            await trio.lowlevel.checkpoint()
            in_a_row.append(0)

    async with over(Large(), CONFIG.replace(max_frame_bytes=100 * MIB, poll_attempts=0)) as channel:
        with pytest.raises(ChecksumMismatchError):
            await channel.receive()
    assert sum(in_a_row) == 201
    assert max(in_a_row) == 17


async def test_looking_after_a_peer_that_sends_without_a_pause_ends_after_some_reads() -> None:
    class Flood(Watched):
        def read(self, max_bytes: int) -> bytes:
            self.looks += 1
            header = (max_bytes * 1_000).to_bytes(4, "little") + bytes(4)
            return header if self.looks == 1 else bytes(max_bytes)

        def peer_state(self) -> PeerState:
            return PeerState.HAS_INPUT

    stream = Flood()
    async with over(stream, CONFIG.replace(max_frame_bytes=100 * MIB)) as channel:
        for looks in (16, 32):
            assert channel.peer_state() is PeerState.HAS_INPUT
            assert stream.looks == looks


@unix_only  # what can be waited for outside of Trio
@pytest.mark.parametrize("poll_attempts", [0, 8])
async def test_who_waits_in_a_thread_is_told_that_the_channel_was_closed(
    config: IpcConfig, poll_attempts: int
) -> None:
    async with await listen(config.endpoint_path, PeerPolicy.own_user_and_root()) as listener:
        channel = over(await connect(config.endpoint_path), config.replace(poll_attempts=poll_attempts))
        async with await listener.accept():
            assert channel.can_block
            channel.close()
            assert channel.block_and_look(10), "there is something to hear of"
            with pytest.raises(ChannelClosedError):
                channel.receive_nowait(1)


@unix_only  # what can be waited for outside of Trio
@pytest.mark.parametrize("poll_attempts", [0, 8])
async def test_who_waits_in_a_thread_is_told_whether_something_came(
    config: IpcConfig, poll_attempts: int
) -> None:
    async with await listen(config.endpoint_path, PeerPolicy.own_user_and_root()) as listener:
        settings = config.replace(poll_attempts=poll_attempts)
        async with over(await connect(config.endpoint_path), settings) as channel:
            async with over(await listener.accept(), settings) as peer:
                assert not channel.block_and_look(0)
                await peer.send(PAYLOAD)
                assert channel.block_and_look(10)
                assert channel.receive_nowait(2) == [PAYLOAD]
                assert not channel.look()
                await peer.send(PAYLOAD)
                assert channel.look()
                assert channel.receive_nowait(2) == [PAYLOAD]
