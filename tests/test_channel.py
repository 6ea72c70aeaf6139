from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, lockstep_stream_pair, memory_stream_pair

from tests.platforms import unix_only
from tests.support import IN_MEMORY, ME, Ends, cancelled_once_begun, frame, success, task
from trio_ipc import (
    Channel,
    ChannelClosedError,
    ChecksumMismatchError,
    FramedChannel,
    InvalidLengthError,
    IpcConfig,
    MessageEmptyError,
    MessageTooLargeError,
    PeerClosedError,
    ReadTimeoutError,
    TruncatedFrameError,
    WriteTimeoutError,
)
from trio_ipc.legacy.channel import LegacyChannel
from trio_ipc.selection import open_channel, open_channel_listener
from trio_ipc.transports import LocalStream, PeerPolicy, connect, listen

CONFIG = IpcConfig(endpoint_path=IN_MEMORY, max_frame_bytes=1_000)
PAYLOAD = task().SerializeToString()
FRAME = frame(task())


def over(stream: trio.abc.Stream, config: IpcConfig = CONFIG) -> FramedChannel:
    return FramedChannel(stream, config, endpoint="memory", peer=ME)


# --- Whole messages ----------------------------------------------------------


async def test_payloads_go_both_ways_in_order(ends: Ends) -> None:
    left, right = ends.channels(CONFIG)
    for payload in (b"one", b"two"):
        await left.send(payload)
    await right.send(b"three")
    assert [await right.receive(), await right.receive(), await left.receive()] == [b"one", b"two", b"three"]


async def test_a_payload_larger_than_every_buffer_goes_through_a_real_socket(config: IpcConfig) -> None:
    payload = bytes(range(256)) * 4096
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        async with await open_channel(config) as left:
            async with await listener.accept() as right:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(left.send, payload)
                    assert await right.receive() == payload


async def test_every_operation_is_a_checkpoint(ends: Ends) -> None:
    left, right = ends.channels(CONFIG)
    with assert_checkpoints():
        await left.send(b"one")
    await left.send(b"two")
    with assert_checkpoints():
        await right.receive()
    with assert_checkpoints():
        await right.receive()
    await left.aclose()
    with assert_checkpoints():
        await right.wait_peer_gone()
    with assert_checkpoints():
        await right.aclose()


async def test_traffic_is_counted_in_whole_frames_and_bytes(ends: Ends) -> None:
    left, right = ends.channels(CONFIG)
    await left.send(PAYLOAD)
    await right.receive()
    assert (left.traffic.frames_sent, left.traffic.bytes_sent) == (1, len(FRAME))
    assert (right.traffic.frames_received, right.traffic.bytes_received) == (1, len(FRAME))


@pytest.mark.parametrize(
    ("payload", "error"), [(b"", MessageEmptyError), (bytes(1_001), MessageTooLargeError)]
)
async def test_a_message_that_cannot_be_sent_leaves_the_channel_good(
    ends: Ends, payload: bytes, error: type[Exception]
) -> None:
    left, right = ends.channels(CONFIG)
    with pytest.raises(error):
        await left.send(payload)
    await left.send(b"good")
    assert await right.receive() == b"good"


# --- Deadlines ----------------------------------------------------------


async def test_waiting_for_a_frame_to_begin_has_a_deadline(ends: Ends, autojump_clock: MockClock) -> None:
    _, right = ends.channels(CONFIG)
    with pytest.raises(ReadTimeoutError, match="memory: timed out waiting for a frame to begin, .* is 30000"):
        await right.receive()
    assert trio.current_time() == pytest.approx(30)


async def test_a_peer_that_drips_bytes_gets_one_budget_for_the_whole_frame(
    ends: Ends, autojump_clock: MockClock
) -> None:
    left, channel = ends.raw(CONFIG)

    async def drip() -> None:
        for byte in FRAME:
            await trio.sleep(9)
            await left.send_all(bytes([byte]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        with pytest.raises(ReadTimeoutError, match="for the rest of a frame"):
            await channel.receive()
        assert trio.current_time() == pytest.approx(9 + 30)
        nursery.cancel_scope.cancel()
    with pytest.raises(ChannelClosedError):
        await channel.receive()


async def test_a_frame_that_begins_late_still_has_its_own_budget(
    ends: Ends, autojump_clock: MockClock
) -> None:
    left, channel = ends.raw(CONFIG)

    async def late() -> None:
        await trio.sleep(29)
        await left.send_all(FRAME[:5])
        await trio.sleep(29)
        await left.send_all(FRAME[5:])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(late)
        assert await channel.receive() == PAYLOAD


async def test_handing_over_has_a_deadline_and_closes_the_channel(autojump_clock: MockClock) -> None:
    left, _ = lockstep_stream_pair()
    channel = over(left)
    with pytest.raises(WriteTimeoutError, match="memory: timed out handing over.*write_timeout_ms is 10000"):
        await channel.send(b"unread")
    assert trio.current_time() == pytest.approx(10)
    with pytest.raises(ChannelClosedError, match="open a new one"):
        await channel.send(b"x")


async def test_a_real_socket_that_nobody_reads_meets_the_write_deadline(
    config: IpcConfig, autojump_clock: MockClock
) -> None:
    async with (
        await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener,
        await connect(config.endpoint_path),
    ):
        async with await listener.accept() as channel:
            with pytest.raises(WriteTimeoutError):
                await channel.send(bytes(config.max_frame_bytes))


# --- Endings ----------------------------------------------------------


async def test_the_end_between_frames_is_the_peers_closing(ends: Ends) -> None:
    left, right = ends.channels(CONFIG)
    await left.send(PAYLOAD)
    await left.aclose()
    assert await right.receive() == PAYLOAD
    for _ in range(2):
        with pytest.raises(PeerClosedError, match="memory: the peer closed the connection; .*connect again"):
            await right.receive()


async def test_the_end_inside_a_frame_is_an_error_of_its_own(ends: Ends) -> None:
    left, channel = ends.raw(CONFIG)
    await left.send_all(FRAME[:9])
    await left.aclose()
    with pytest.raises(TruncatedFrameError, match="memory: the peer closed inside a frame: 1 of 3 bytes"):
        await channel.receive()


async def test_a_reset_is_the_peers_closing_too(config: IpcConfig) -> None:
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        client = await connect(config.endpoint_path)
        async with await listener.accept() as channel:
            await channel.send(PAYLOAD)
            await client.aclose()  # with our bytes unread
            with pytest.raises(PeerClosedError):
                await channel.receive()
            with pytest.raises(PeerClosedError, match="before it took the whole message"):
                await channel.send(PAYLOAD)


async def test_after_a_broken_frame_one_last_word_may_be_sent(ends: Ends) -> None:
    left, channel = ends.raw(CONFIG)
    await left.send_all(bytes(8))
    with pytest.raises(InvalidLengthError, match="^memory: "):
        await channel.receive()
    with pytest.raises(InvalidLengthError):
        await channel.receive()
    await channel.send(b"why")
    assert await over(left).receive() == b"why"


async def test_a_frame_before_a_broken_one_is_still_received(ends: Ends) -> None:
    left, channel = ends.raw(CONFIG)
    await left.send_all(FRAME + FRAME[:-1] + b"x")
    assert await channel.receive() == PAYLOAD
    with pytest.raises(ChecksumMismatchError):
        await channel.receive()


@pytest.mark.parametrize("real", [False, True])
async def test_closing_wakes_who_receives_and_who_sends(real: bool, config: IpcConfig) -> None:
    if real:
        async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
            channel = await open_channel(config)
            far: trio.abc.AsyncResource = await listener.accept()
    else:
        stream, far = lockstep_stream_pair()
        channel = over(stream, config)

    async def receive() -> None:
        with pytest.raises(ChannelClosedError, match="this connection was closed"):
            await channel.receive()

    async def send() -> None:
        with pytest.raises(ChannelClosedError, match="this connection was closed"):
            await channel.send(bytes(config.max_frame_bytes))

    async with far, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        await channel.aclose()
    for operation in (channel.receive, lambda: channel.send(b"x")):
        with pytest.raises(ChannelClosedError):
            await operation()
    await channel.aclose()


# --- Cancellation ----------------------------------------------------------


async def test_a_cancelled_wait_between_frames_leaves_the_channel_as_it_was(
    ends: Ends, autojump_clock: MockClock
) -> None:
    left, right = ends.channels(CONFIG)
    with trio.move_on_after(1):
        await right.receive()
    await left.send(PAYLOAD)
    assert await right.receive() == PAYLOAD


async def test_a_wait_cancelled_inside_a_frame_closes_the_channel(
    ends: Ends, autojump_clock: MockClock
) -> None:
    left, channel = ends.raw(CONFIG)
    await left.send_all(FRAME[:5])
    with trio.move_on_after(1):
        await channel.receive()
    with pytest.raises(ChannelClosedError):
        await channel.receive()
    with pytest.raises(trio.BrokenResourceError):
        await left.send_all(b"x")


async def test_a_send_cancelled_part_way_closes_the_channel(
    config: IpcConfig, autojump_clock: MockClock
) -> None:
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        async with await connect(config.endpoint_path) as client:
            channel = await listener.accept()
            with trio.move_on_after(1):
                await channel.send(bytes(config.max_frame_bytes))
            with pytest.raises(ChannelClosedError):
                await channel.send(b"x")
            # A pipe takes back what it was not yet rid of, all of it.
            with pytest.raises((TruncatedFrameError, PeerClosedError)):
                await over(client, config).receive()


async def test_what_is_cancelled_before_it_began_changes_nothing(ends: Ends) -> None:
    left, right = ends.channels(CONFIG)
    with trio.CancelScope() as scope:
        scope.cancel()
        await left.send(b"never sent")
    await left.send(b"sent")
    with trio.CancelScope() as scope:
        scope.cancel()
        await right.receive()
    assert await right.receive() == b"sent"


async def test_what_came_or_went_with_a_cancellation_is_whole(config: IpcConfig) -> None:
    """The cancellation comes in the very step in which the work was done, or right before it."""

    async def received(channel: Channel) -> bytes | bytearray:
        return await cancelled_once_begun(channel.receive) or await channel.receive()

    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        async with await open_channel(config) as left:
            async with await listener.accept() as right:
                for _ in range(20):  # the two tasks run in either order
                    await cancelled_once_begun(lambda: left.send(PAYLOAD))
                    assert await received(right) == PAYLOAD
                    await left.send(b"one")
                    await left.send(b"two")
                    assert await received(right) == b"one"
                    assert await received(right) == b"two"


# --- Stopping ----------------------------------------------------------


async def test_stop_receiving_ends_a_wait_between_frames_now_and_later(ends: Ends) -> None:
    _, right = ends.channels(CONFIG)

    async def receive() -> None:
        with pytest.raises(ChannelClosedError, match="no further requests are taken"):
            await right.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        right.stop_receiving()
    await receive()


async def test_stop_receiving_lets_a_frame_that_has_begun_come_whole(ends: Ends) -> None:
    left, channel = ends.raw(CONFIG)
    await left.send_all(FRAME[:3])

    async def receive() -> None:
        assert await channel.receive() == PAYLOAD

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        channel.stop_receiving()
        await trio.testing.wait_all_tasks_blocked()
        await left.send_all(FRAME[3:])


async def test_stop_receiving_in_the_moment_in_which_a_frame_comes_loses_nothing(ends: Ends) -> None:
    left, right = ends.channels(CONFIG)

    async def receive() -> None:
        assert await right.receive() == PAYLOAD

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        # Between these two the reader is woken but has not run.
        await left.send(PAYLOAD)
        right.stop_receiving()


async def test_stop_receiving_still_takes_what_has_come_already(config: IpcConfig) -> None:
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        async with await connect(config.endpoint_path) as client:
            async with await listener.accept() as channel:
                await client.send_all(FRAME * 2 + FRAME[:5])
                channel.stop_receiving()
                assert [await channel.receive(), await channel.receive()] == [PAYLOAD] * 2
                await client.send_all(FRAME[5:])
                assert await channel.receive() == PAYLOAD
                with pytest.raises(ChannelClosedError, match="no further requests are taken"):
                    await channel.receive()
                await client.aclose()
                with pytest.raises(PeerClosedError):
                    await channel.receive()


async def test_stop_receiving_and_a_reset_is_the_peers_closing(config: IpcConfig) -> None:
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        client = await connect(config.endpoint_path)
        async with await listener.accept() as channel:
            await channel.send(PAYLOAD)
            await client.aclose()
            channel.stop_receiving()
            with pytest.raises(PeerClosedError):
                await channel.receive()


# --- Watching the peer ----------------------------------------------------------


async def test_the_peers_leaving_is_noticed_and_what_it_sent_is_kept(ends: Ends) -> None:
    left, right = ends.channels(CONFIG)
    done = trio.Event()

    async def watch() -> None:
        await right.wait_peer_gone()
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await left.send(b"ahead")
        await trio.testing.wait_all_tasks_blocked()
        assert not done.is_set()
        await left.aclose()
    assert await right.receive() == b"ahead"
    with pytest.raises(PeerClosedError):
        await right.receive()


def read_ahead(channel: Channel) -> int:
    if isinstance(channel, FramedChannel):
        return channel._decoder.buffered
    assert isinstance(channel, LegacyChannel)
    return len(channel._ahead)


async def test_watching_reads_ahead_no_more_than_a_frame(ends: Ends, autojump_clock: MockClock) -> None:
    left, channel = ends.raw(CONFIG)
    sent, most = 0, 8 + CONFIG.max_frame_bytes
    while read_ahead(channel) < most:
        with trio.move_on_after(1):
            await channel.wait_peer_gone()
        await left.send_all(FRAME * 10)
        sent += 10
    with trio.move_on_after(1):
        await channel.wait_peer_gone()
    assert read_ahead(channel) < most + len(FRAME) * 10
    for _ in range(sent):
        assert await channel.receive() == PAYLOAD


@unix_only  # a pipe is closed whole
async def test_a_half_closed_peer_is_not_gone_and_gets_its_answer(
    config: IpcConfig, autojump_clock: MockClock
) -> None:
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        async with await connect(config.endpoint_path) as client:
            async with await listener.accept() as channel:
                await client.send_all(FRAME)
                await client.send_eof()
                assert await channel.receive() == PAYLOAD
                for _ in range(2):
                    with trio.move_on_after(1) as scope:
                        await channel.wait_peer_gone()
                    assert scope.cancelled_caught
                await channel.send(success().SerializeToString())
                assert await client.receive_some() == frame(success())


async def test_a_reset_or_a_closed_channel_ends_the_watch(config: IpcConfig) -> None:
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        client = await connect(config.endpoint_path)
        async with await listener.accept() as channel:
            await channel.send(PAYLOAD)
            await client.aclose()
            await channel.wait_peer_gone()
            await channel.aclose()
            await channel.wait_peer_gone()
            assert not channel.is_quiet()


# --- Several at a time, and connections that are kept ---------------------------------------------------


async def test_several_payloads_are_one_write_and_as_many_frames() -> None:
    near, far = memory_stream_pair()
    writes = 0
    pump = near.send_stream.send_all_hook
    assert pump is not None

    async def count() -> None:
        nonlocal writes
        writes += 1
        await pump()

    near.send_stream.send_all_hook = count
    channel = over(near)
    await channel.send_many([b"first", b"second", b"third"])
    assert writes == 1
    assert (channel.traffic.frames_sent, channel.traffic.bytes_sent) == (3, 3 * 8 + 16)
    reader = over(far)
    assert [await reader.receive() for _ in range(3)] == [b"first", b"second", b"third"]


async def test_of_several_payloads_none_is_sent_if_one_cannot_be(ends: Ends) -> None:
    far, channel = ends.raw(CONFIG)
    with pytest.raises(MessageEmptyError):
        await channel.send_many([b"first", b""])
    with pytest.raises(MessageTooLargeError):
        channel.check(b"x" * (CONFIG.max_frame_bytes + 1))
    channel.check(b"x" * CONFIG.max_frame_bytes)
    await channel.send(b"alone")
    assert (await far.receive_some())[8:] == b"alone"
    assert channel.traffic.frames_sent == 1


async def test_an_idle_connection_is_quiet_until_something_comes(config: IpcConfig) -> None:
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        channel, peer = await open_channel(config), await listener.accept()
        assert channel.is_quiet()
        await peer.send(b"unasked")
        assert not channel.is_quiet()
        assert await channel.receive() == b"unasked", "asking took nothing"
        assert channel.is_quiet()
        await peer.aclose()
        assert not channel.is_quiet()
        await channel.aclose()
        assert not channel.is_quiet()
        async with await connect(config.endpoint_path) as stream:
            pass
        assert not stream.is_quiet()


@unix_only
async def test_a_half_closed_connection_is_not_quiet(config: IpcConfig) -> None:
    assert sys.platform != "win32"
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        async with await connect(config.endpoint_path) as far, await listener.accept() as channel:
            await far.send_eof()
            assert not channel.is_quiet()
            with pytest.raises(PeerClosedError):
                await channel.receive()


async def test_a_stopped_connection_is_not_quiet() -> None:
    other, _ = memory_stream_pair()
    stopped = over(other)
    assert stopped.is_quiet(), "a stream that cannot tell is taken to be good"
    stopped.stop_receiving()
    assert not stopped.is_quiet()


# --- Without a wait ---------------------------------------------------------------------------------------


async def test_what_is_in_hand_is_received_without_a_wait_and_nothing_else() -> None:
    near, far = memory_stream_pair()
    left, right = over(near), over(far)
    await left.send_many([b"one", b"two", b"three", b"four"])
    assert right.receive_nowait(9) == [], "nothing was read yet"
    assert await right.receive() == b"one"
    assert right.receive_nowait(2) == [b"two", b"three"]
    assert right.receive_nowait(9) == [b"four"]
    assert right.receive_nowait(9) == []
    assert right.traffic.frames_received == 4
    assert right.traffic.bytes_received == left.traffic.bytes_sent
    await right.aclose()
    with pytest.raises(ChannelClosedError):
        right.receive_nowait(1)


async def test_a_broken_frame_in_hand_says_where() -> None:
    left, right = memory_stream_pair()
    channel = over(right)
    await left.send_all(3 * FRAME + bytes(8))
    assert await channel.receive() == PAYLOAD
    assert channel.receive_nowait(9) == [PAYLOAD, PAYLOAD], "what is ahead of it comes first"
    with pytest.raises(InvalidLengthError) as caught:
        channel.receive_nowait(9)
    assert caught.value.endpoint == "memory"


@unix_only  # a pipe takes nothing without a wait, and everything in the end
async def test_what_the_system_does_not_take_is_kept_and_flushed_in_order(config: IpcConfig) -> None:
    async with await listen(config.endpoint_path, PeerPolicy.own_user_and_root()) as listener:
        async with over(await connect(config.endpoint_path), config) as channel:
            async with over(await listener.accept(), config) as peer:
                sent = [bytes([number]) * 100_000 for number in range(20)]
                assert not channel.send_nowait(sent[:10])
                assert not channel.send_nowait(sent[10:])
                assert channel.traffic.frames_sent == 0, "none of them is whole"
                received = []

                async def receive() -> None:
                    received.extend([await peer.receive() for _ in sent])

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(receive)
                    await channel.flush()
                assert received == sent
                assert channel.traffic.frames_sent == 20
                assert channel.traffic.bytes_sent == peer.traffic.bytes_received
                assert channel.send_nowait([b"x"])


async def test_flushing_nothing_is_a_checkpoint(ends: Ends) -> None:
    left, _ = ends.channels(CONFIG)
    with assert_checkpoints():
        await left.flush()
    await left.aclose()
    with pytest.raises(ChannelClosedError):
        await left.flush()
    with pytest.raises(ChannelClosedError):
        left.send_nowait([b"x"])


# --- Looking again before falling asleep -------------------------------------------------------------------


class Lookout(LocalStream):
    """A stream that counts how often somebody looked, and has something at the ``nth`` look."""

    def __init__(self) -> None:
        self.endpoint = "lookout"
        self.peer = ME
        self.looks = 0
        self.slept = 0
        self.nth = 0

    def receive_nowait(self, _max_bytes: int) -> bytes | None:
        self.looks += 1
        return FRAME if self.looks == self.nth else None

    async def receive_some(self, _max_bytes: int | None = None) -> bytes:
        self.slept += 1
        await trio.sleep(1)
        return FRAME

    async def send_all(self, _data: bytes | bytearray | memoryview) -> None: ...

    async def wait_send_all_might_not_block(self) -> None: ...

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_busy_peer_is_met_awake_and_a_slow_one_is_given_up_on(autojump_clock: MockClock) -> None:
    stream = Lookout()
    async with over(stream) as channel:
        for nth in (1, 5, 75):
            stream.looks, stream.nth = 0, nth
            assert await channel.receive() == PAYLOAD
            assert (stream.looks, stream.slept) == (nth, 0)
        stream.nth = 0
        looks = []
        for _ in range(500):
            before = stream.looks
            assert await channel.receive() == PAYLOAD
            looks.append(stream.looks - before)
        assert stream.slept == 500
        assert [index for index, count in enumerate(looks) if count] == [0, 2, 6, 14, 30, 62, 126, 190, 254,
                                                                         318, 382, 446]  # fmt: skip
        assert set(looks) == {0, 75}
        stream.nth = stream.looks + 3
        while stream.looks != stream.nth:
            assert await channel.receive() == PAYLOAD
        slept, stream.nth = stream.slept, stream.looks + 75
        assert await channel.receive() == PAYLOAD
        assert stream.slept == slept, "it looks again once that has helped"


#: Seconds that a look takes on a :class:`SlowLookout`; a power of two, so that sums are exact.
LOOK: Final = 2.0**-15


class SlowLookout(Lookout):
    """Each look takes 30.5 µs; it has room for 10 bytes, and then for none until somebody sleeps."""

    def __init__(self, clock: MockClock) -> None:
        super().__init__()
        self._clock = clock
        self._room = 10

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        self._clock.jump(LOOK)
        return super().receive_nowait(max_bytes)

    def send_nowait(self, _data: bytes | bytearray | memoryview) -> int:
        self._clock.jump(LOOK)
        self.looks += 1
        room, self._room = self._room, 0
        return room

    async def send_all(self, _data: bytes | bytearray | memoryview) -> None:
        self.slept += 1
        await trio.sleep(1)
        self._room = 10


async def test_where_frames_follow_one_another_it_looks_for_longer(autojump_clock: MockClock) -> None:
    stream = SlowLookout(autojump_clock)
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
        assert (stream.looks, stream.slept) == (4 + 10 + 10, 2), "in vain once, and left out once"
        assert await channel.receive() == PAYLOAD
        assert (stream.looks, stream.slept) == (4 + 10 + 10 + 4, 3), "100 µs, since that took a second"


async def test_it_looks_for_room_no_longer_than_for_a_frame(autojump_clock: MockClock) -> None:
    stream = SlowLookout(autojump_clock)
    async with over(stream) as channel:
        await channel.send(PAYLOAD * 10)
        assert (stream.looks, stream.slept) == (1 + 4, 1)


async def test_looking_can_be_turned_off(autojump_clock: MockClock) -> None:
    stream = Lookout()
    async with over(stream, CONFIG.replace(poll_attempts=0)) as channel:
        for _ in range(100):
            assert await channel.receive() == PAYLOAD
    assert stream.looks == 0


async def test_who_looks_can_be_stopped_cancelled_and_closed(autojump_clock: MockClock) -> None:
    async def while_it_looks(then: Callable[[FramedChannel], object]) -> None:
        stream = Lookout()
        channel = over(stream)

        async def act() -> None:
            while not stream.looks:
                await trio.lowlevel.checkpoint()
            then(channel)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(act)
            with pytest.raises(ChannelClosedError, match="no further requests are taken"):
                await channel.receive()
        assert stream.slept == 0

    await while_it_looks(lambda channel: channel.stop_receiving())

    stream = Lookout()
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

    class Dripping(Lookout):
        def receive_nowait(self, _max_bytes: int) -> bytes | None:
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
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(channel.send_many, payloads)
                    for payload in payloads:
                        assert await peer.receive() == payload
                assert channel.traffic.bytes_sent == peer.traffic.bytes_received


async def test_a_peer_that_sends_without_a_pause_does_not_keep_others_from_their_turn() -> None:
    half = len(FRAME) // 2

    class Endless(Lookout):
        """Has the rest of a frame and the beginning of the next one, whenever somebody looks."""

        def receive_nowait(self, _max_bytes: int) -> bytes | None:
            self.looks += 1
            return FRAME[:half] if self.looks == 1 else FRAME[half:] + FRAME[:half]

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
