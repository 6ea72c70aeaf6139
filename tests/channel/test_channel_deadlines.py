"""Deadlines and cancellation of a channel, also in a process that was stopped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import pytest
import trio
from trio.testing import (
    MockClock,
    lockstep_stream_pair,
    wait_all_tasks_blocked,
)

from tests.channel.support import (
    CONFIG,
    FRAME,
    PAYLOAD,
    Watched,
    over,
)
from tests.platforms import unix_only
from tests.support import MIB, Ends, cancelled_once_begun, frame, task
from trio_ipc import (
    Channel,
    ChannelClosedError,
    IpcConfig,
    PeerClosedError,
    PeerCredentials,
    ReadTimeoutError,
    TruncatedFrameError,
    WriteTimeoutError,
)
from trio_ipc.opening import open_channel, open_channel_listener
from trio_ipc.testing import memory_streams
from trio_ipc.transports import LocalStream, PeerPolicy, connect, listen

# --- Deadlines ----------------------------------------------------------------------------------------------


async def test_waiting_for_a_frame_to_begin_has_a_deadline(ends: Ends, autojump_clock: MockClock) -> None:
    _, right = ends.channels(CONFIG)
    with pytest.raises(ReadTimeoutError, match="memory: timed out waiting for a frame to begin, .* is 30000"):
        await right.receive()
    assert trio.current_time() == pytest.approx(30)


@attrs.frozen
class Known(PeerCredentials):
    """A peer of which the test says whether its process still runs."""

    runs: bool | None = None

    def still_runs(self) -> bool | None:
        return self.runs


@pytest.mark.parametrize(
    ("runs", "hint"),
    [
        (False, "process 4711 has ended, and another one still has its socket"),
        (True, "see whether the peer is stuck"),
        (None, "see whether the peer is stuck"),
    ],
)
@pytest.mark.parametrize("is_known", [True, False])
async def test_who_waited_is_told_where_the_peers_process_has_ended(
    is_known: bool, runs: bool | None, hint: str, ends: Ends, autojump_clock: MockClock
) -> None:
    _, channel = ends.raw(CONFIG, Known(pid=4711, runs=runs) if is_known else None)
    with pytest.raises(ReadTimeoutError) as caught:
        await channel.receive()
    assert caught.value.hint.startswith(hint if is_known else "see whether the peer is stuck")


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


async def test_a_frame_that_fill_has_begun_gets_one_budget_in_receive(
    ends: Ends, autojump_clock: MockClock
) -> None:
    left, channel = ends.raw(CONFIG)
    await left.send_all(FRAME[:5])
    assert await channel.fill()

    async def drip() -> None:
        await trio.sleep(20)
        await left.send_all(FRAME[5:7])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        with pytest.raises(ReadTimeoutError, match="for the rest of a frame"):
            await channel.receive()
    assert trio.current_time() == pytest.approx(30)


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


# --- Cancellation -------------------------------------------------------------------------------------------


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


async def test_a_receive_that_is_cancelled_before_it_began_leaves_the_frame_that_fill_has_begun(
    ends: Ends,
) -> None:
    left, channel = ends.raw(CONFIG)
    await left.send_all(FRAME[:5])
    assert await channel.fill()
    with trio.CancelScope() as scope:
        scope.cancel()
        await channel.receive()
    await left.send_all(FRAME[5:])
    assert await channel.receive() == PAYLOAD


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


# --- After a deadline it looks once more --------------------------------------------------------------------


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
