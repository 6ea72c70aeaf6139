from __future__ import annotations

import sys
import tracemalloc

import pytest
import trio
from trio.testing import (
    assert_checkpoints,
    lockstep_stream_pair,
    memory_stream_pair,
)

from tests.channel.support import (
    CONFIG,
    FRAME,
    PAYLOAD,
    over,
)
from tests.platforms import unix_only
from tests.support import MIB, Ends, frame, success
from trio_ipc import (
    ChannelClosedError,
    ChecksumMismatchError,
    InvalidLengthError,
    IpcConfig,
    MessageEmptyError,
    MessageTooLargeError,
    PeerClosedError,
    TruncatedFrameError,
)
from trio_ipc.opening import open_channel, open_channel_listener
from trio_ipc.testing import memory_streams
from trio_ipc.transports import PeerPolicy, PeerState, connect, listen

# --- Whole messages -----------------------------------------------------------------------------------------


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
    for number in 1, 2, 3:
        await left.send(PAYLOAD)
        await right.receive()
        counted = number, number * len(FRAME)
        assert (left.traffic.frames_sent, left.traffic.bytes_sent) == counted
        assert (right.traffic.frames_received, right.traffic.bytes_received) == counted


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


# --- Endings ------------------------------------------------------------------------------------------------


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


async def test_a_local_channel_is_closed_without_a_wait(ends: Ends) -> None:
    left, right = ends.channels(CONFIG)
    assert left.close() is True
    assert left.close() is True, "and again"
    with pytest.raises(PeerClosedError):
        await right.receive()


# --- What has become of the peer ----------------------------------------------------------------------------


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
async def test_a_half_closed_peer_is_not_gone_and_gets_its_response(config: IpcConfig) -> None:
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


# --- Several at a time, and connections that are kept -------------------------------------------------------


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


# --- Without a wait -----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("size", [1_000_000, 50_000], ids=["more than there is room for", "less"])
async def test_what_was_flushed_is_kept_no_longer(config: IpcConfig, size: int, number: int) -> None:
    async with await open_channel_listener(config, PeerPolicy.own_user_and_root()) as listener:
        async with await open_channel(config) as channel, await listener.accept() as peer:

            async def receive() -> None:
                for _ in range(number):
                    assert len(await peer.receive()) == size

            tracemalloc.start(1)
            try:
                channel.send_nowait([bytes([number]) * size] * number)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(receive)
                    await channel.flush()
                snapshot = tracemalloc.take_snapshot()
            finally:
                tracemalloc.stop()
            # Where the frames, or the one payload, were made.
            largest = max(trace.size for trace in snapshot.traces)
            assert largest < size


async def test_flushing_nothing_is_a_checkpoint(ends: Ends) -> None:
    left, _ = ends.channels(CONFIG)
    with assert_checkpoints():
        await left.flush()
    await left.aclose()
    with pytest.raises(ChannelClosedError):
        await left.flush()
    with pytest.raises(ChannelClosedError):
        left.send_nowait([b"x"])
