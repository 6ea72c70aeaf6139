from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import pytest
import trio
from trio.testing import (
    MockClock,
    assert_checkpoints,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from tests.platforms import unix_only
from tests.support import IN_MEMORY, ME, MIB, Ends, cancelled_once_begun, frame, success, task
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
from trio_ipc.opening import open_channel, open_channel_listener
from trio_ipc.testing import memory_streams
from trio_ipc.transports import LocalStream, PeerPolicy, PeerState, connect, listen

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


# --- What has become of the peer ------------------------------------------------------------------------


async def test_the_peers_leaving_is_noticed_and_what_it_sent_is_kept(ends: Ends) -> None:
    left, right = ends.channels(CONFIG)
    assert right.peer_state() is PeerState.OPEN
    await left.send(b"ahead")
    assert right.peer_state() in {PeerState.OPEN, PeerState.HAS_INPUT}, "it may have been read ahead"
    await left.aclose()
    assert right.peer_state() is PeerState.GONE
    assert await right.receive() == b"ahead"
    with pytest.raises(PeerClosedError):
        await right.receive()
    assert right.peer_state() is PeerState.GONE


async def test_looking_reads_ahead_no_more_than_a_frame() -> None:
    left, far = memory_streams(buffer_bytes=64 * MIB)
    channel = over(far)
    sent, most = 0, 8 + CONFIG.max_frame_bytes
    while channel._decoder.buffered < most:
        assert channel.peer_state() in {PeerState.OPEN, PeerState.HAS_INPUT}
        await left.send_all(FRAME * 10)
        sent += 10
    before = channel._decoder.buffered
    assert channel.peer_state() is PeerState.HAS_INPUT
    assert channel._decoder.buffered == before
    for _ in range(sent):
        assert await channel.receive() == PAYLOAD


@unix_only  # a pipe is closed whole
async def test_a_half_closed_peer_is_not_gone_and_gets_its_answer(config: IpcConfig) -> None:
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        async with await connect(config.endpoint_path) as client:
            async with await listener.accept() as channel:
                await client.send_all(FRAME)
                await client.send_eof()
                assert await channel.receive() == PAYLOAD
                for _ in range(2):
                    assert channel.peer_state() is PeerState.HALF_CLOSED
                await channel.send(success().SerializeToString())
                assert await client.receive_some() == frame(success())


async def test_after_a_reset_and_after_a_close_by_this_side_the_peer_is_gone(config: IpcConfig) -> None:
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        client = await connect(config.endpoint_path)
        async with await listener.accept() as channel:
            await channel.send(PAYLOAD)
            await client.aclose()
            assert channel.peer_state() is PeerState.GONE
            await channel.aclose()
            assert channel.peer_state() is PeerState.GONE
            assert not channel.is_reusable()


# --- After a deadline it looks once more ----------------------------------------------------------------


async def stopped(clock: MockClock, seconds: float, meanwhile: Callable[[], Awaitable[object]]) -> None:
    """Be a process that is stopped for so long, while its peer goes on."""
    await wait_all_tasks_blocked()
    clock.jump(seconds)
    await meanwhile()  # it begins in the same step: nobody else runs between the two


@pytest.mark.parametrize("at_first", [0, 5], ids=["between frames", "inside of one"])
@pytest.mark.parametrize("nth", range(5))  # which of two tasks runs first is Trio's to throw a coin for
async def test_what_came_while_the_process_was_stopped_is_received(
    at_first: int, nth: int, ends: Ends, mock_clock: MockClock
) -> None:
    left, channel = ends.raw(CONFIG)
    if at_first:
        await left.send_all(FRAME[:at_first])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stopped, mock_clock, 100, partial(left.send_all, FRAME[at_first:]))
        assert await channel.receive() == PAYLOAD


async def test_what_has_begun_to_come_when_the_process_goes_on_has_its_time_again(
    ends: Ends, autojump_clock: MockClock
) -> None:
    left, channel = ends.raw(CONFIG)

    async def come_slowly() -> None:
        await left.send_all(FRAME[:3])
        await stopped(autojump_clock, 100, partial(left.send_all, FRAME[3:9]))
        await trio.sleep(20)
        await left.send_all(FRAME[9:])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come_slowly)
        assert await channel.receive() == PAYLOAD
    assert trio.current_time() == pytest.approx(120)


async def test_the_callers_deadline_is_looked_after_too(ends: Ends, mock_clock: MockClock) -> None:
    left, channel = ends.raw(CONFIG)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stopped, mock_clock, 100, partial(left.send_all, FRAME))
        assert await channel.receive(deadline=5) == PAYLOAD


async def test_what_came_by_the_callers_deadline_may_take_several_reads(
    ends: Ends, mock_clock: MockClock
) -> None:
    left, channel = ends.raw(CONFIG.replace(max_frame_bytes=MIB))
    large = task("x" * 200_000)  # as much as a Unix socket holds
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stopped, mock_clock, 100, partial(left.send_all, frame(large)))
        assert await channel.receive(deadline=5) == large.SerializeToString()


async def test_a_peer_that_drips_bytes_gets_little_more_than_the_callers_deadline(
    mock_clock: MockClock,
) -> None:
    left, right = memory_streams()
    channel = over(right)
    dripped = 0

    async def drip() -> None:
        nonlocal dripped
        for byte in frame(task("x" * 900)):
            await left.send_all(bytes([byte]))
            dripped += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stopped, mock_clock, 100, drip)
        with pytest.raises(trio.TooSlowError):
            await channel.receive(deadline=5)
        nursery.cancel_scope.cancel()
    assert dripped < 100


async def test_the_callers_deadline_ends_a_wait(ends: Ends, autojump_clock: MockClock) -> None:
    left, channel = ends.raw(CONFIG)
    with pytest.raises(trio.TooSlowError):
        await channel.receive(deadline=5)
    assert trio.current_time() == pytest.approx(5)
    await left.send_all(FRAME)
    assert await channel.receive(deadline=5) == PAYLOAD, "what is there is given at any time"


@unix_only  # a pipe takes nothing without a wait
async def test_what_went_while_the_process_was_stopped_is_sent(
    config: IpcConfig, mock_clock: MockClock
) -> None:
    payload = bytes(config.max_frame_bytes)
    async with await listen(config.endpoint_path, PeerPolicy.own_user_and_root()) as listener:
        async with (
            over(await connect(config.endpoint_path), config) as channel,
            await listener.accept() as far,
        ):
            assert isinstance(far, LocalStream)
            received = bytearray()

            def take() -> None:
                while data := far.read(MIB):
                    received.extend(data)

            async def be_stopped() -> None:
                await wait_all_tasks_blocked()
                take()
                mock_clock.jump(100)
                while len(received) < 8 + len(payload):
                    await trio.lowlevel.checkpoint()
                    take()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(be_stopped)
                await channel.send(payload)
            assert len(received) == 8 + len(payload)
            await far.aclose()


async def test_what_goes_with_the_last_look_is_sent(autojump_clock: MockClock) -> None:
    class RoomAtLast(Watched):
        def write(self, data: bytes | bytearray | memoryview) -> int:
            return len(data) if trio.current_time() >= CONFIG.write_timeout_ms / 1000 else 0

        async def write_some(self, data: bytes | bytearray | memoryview) -> int:
            await trio.sleep_forever()
            raise AssertionError("unreachable")

    async with over(RoomAtLast()) as channel:
        await channel.send(PAYLOAD)
        assert channel.traffic.frames_sent == 1


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


async def test_an_idle_connection_is_reusable_until_something_comes(config: IpcConfig) -> None:
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        channel, peer = await open_channel(config), await listener.accept()
        assert channel.is_reusable()
        await peer.send(b"unasked")
        assert not channel.is_reusable()
        assert await channel.receive() == b"unasked", "asking took nothing"
        assert channel.is_reusable()
        await peer.aclose()
        assert not channel.is_reusable()
        await channel.aclose()
        assert not channel.is_reusable()
        async with await connect(config.endpoint_path) as stream:
            pass
        assert stream.peer_state() is PeerState.GONE


@unix_only
async def test_a_half_closed_connection_is_not_reusable(config: IpcConfig) -> None:
    assert sys.platform != "win32"
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        async with await connect(config.endpoint_path) as far, await listener.accept() as channel:
            await far.send_eof()
            assert not channel.is_reusable()
            with pytest.raises(PeerClosedError):
                await channel.receive()


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


class Watched(LocalStream):
    """A stream that counts how often somebody looked, and has something at the ``nth`` look."""

    def __init__(self) -> None:
        super().__init__("watched", ME)
        self.looks = 0
        self.slept = 0
        self.nth = 0
        self._woken = False

    def read(self, _max_bytes: int) -> bytes | None:
        if self._woken:
            self._woken = False
            return FRAME
        self.looks += 1
        return FRAME if self.looks == self.nth else None

    async def wait_readable(self) -> None:
        self.slept += 1
        await trio.sleep(1)
        self._woken = True

    def write(self, data: bytes | bytearray | memoryview) -> int:
        return len(data)

    async def write_some(self, data: bytes | bytearray | memoryview) -> int:
        return len(data)

    async def wait_send_all_might_not_block(self) -> None: ...

    def peer_state(self) -> PeerState:
        return PeerState.OPEN

    def close(self) -> bool:
        return True


async def test_a_busy_peer_is_met_awake_and_a_slow_one_is_given_up_on(autojump_clock: MockClock) -> None:
    stream = Watched()
    async with over(stream) as channel:
        for nth in (1, 5, 75):
            stream.looks, stream.nth = 0, nth
            assert await channel.receive() == PAYLOAD
            assert (stream.looks, stream.slept) == (nth, 0)
        stream.looks = stream.nth = 0
        for _ in range(500):
            assert await channel.receive() == PAYLOAD
        assert stream.slept == 500
        assert stream.looks < 20 * 75


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
        assert (stream.looks, stream.slept) == (4 + 10 + 10, 2), "in vain once, and left out once"
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
