"""Deadlines that an alarm keeps, where what has come cannot be seen until its reader wakes."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.channel.support import CONFIG, FRAME, PAYLOAD, over
from tests.support import ME
from trio_ipc import ReadTimeoutError
from trio_ipc.transports import LocalStream, PeerState


class Overlapped(LocalStream):
    """A stream as a named pipe is: what a pending read was given nobody sees before its task has run."""

    def __init__(self) -> None:
        super().__init__("overlapped", ME)
        self.closed = False
        self._in_the_pipe = b""
        self._given: bytes | None = None
        self._kept = b""
        self._reader: trio.Event | None = None

    def come(self, data: bytes) -> None:
        if self._reader is None:
            self._in_the_pipe += data
        else:
            self._given = data
            self._reader.set()

    def read(self, _max_bytes: int) -> bytes | None:
        if self.closed:
            raise trio.ClosedResourceError
        data, self._kept = self._kept, b""
        return data or None

    async def wait_readable(self) -> None:
        self._reader = trio.Event()
        if self._in_the_pipe:
            self._given, self._in_the_pipe = self._in_the_pipe, b""
            self._reader.set()
        try:
            await self._reader.wait()
        finally:
            self._reader = None
            self._kept, self._given = self._given or b"", None
        if self.closed:
            raise trio.ClosedResourceError

    def peer_state(self) -> PeerState:
        return PeerState.HAS_INPUT if self._in_the_pipe or self._kept else PeerState.OPEN

    def close(self) -> bool:
        self.closed = True
        if self._reader is not None:
            self._reader.set()
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:
        return 0

    async def write_some(self, data: bytes | bytearray | memoryview) -> int:
        await trio.lowlevel.checkpoint()
        return len(data)

    async def wait_send_all_might_not_block(self) -> None: ...


@pytest.mark.parametrize("nth", range(10))  # which of two tasks runs first is Trio's to throw a coin for
@pytest.mark.parametrize("deadline", [5, math.inf], ids=["the caller's", "its own"])
async def test_what_came_while_the_process_was_stopped_is_received(
    deadline: float, nth: int, mock_clock: MockClock
) -> None:
    stream = Overlapped()
    channel = over(stream, CONFIG.replace(poll_attempts=0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.keep_time)

        @nursery.start_soon
        async def be_stopped() -> None:
            await wait_all_tasks_blocked()
            mock_clock.jump(100)
            stream.come(FRAME)

        await wait_all_tasks_blocked()
        assert await channel.receive(deadline=deadline) == PAYLOAD
        assert not stream.closed
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("nth", range(10))
async def test_what_is_there_is_received_after_the_deadline(nth: int, mock_clock: MockClock) -> None:
    stream = Overlapped()
    channel = over(stream, CONFIG.replace(poll_attempts=0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.keep_time)
        await wait_all_tasks_blocked()
        mock_clock.jump(100)
        stream.come(FRAME)
        assert await channel.receive(deadline=trio.current_time() - 1) == PAYLOAD
        assert not stream.closed
        nursery.cancel_scope.cancel()


async def test_where_nothing_has_come_it_is_closed_at_once(autojump_clock: MockClock) -> None:
    stream = Overlapped()
    channel = over(stream, CONFIG.replace(poll_attempts=0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.keep_time)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.TooSlowError):
            await channel.receive(deadline=trio.current_time() - 1)
        assert stream.closed
        assert trio.current_time() == 0
        channel.close()


async def test_a_wait_under_a_shield_has_its_deadline_though_who_kept_it_is_gone(
    autojump_clock: MockClock,
) -> None:
    channel = over(Overlapped(), CONFIG.replace(poll_attempts=0, read_timeout_ms=10_000))
    ended_at = math.inf
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            nonlocal ended_at
            with trio.move_on_after(1_000, shield=True):
                with pytest.raises(ReadTimeoutError):
                    await channel.receive()
                ended_at = trio.current_time()

        nursery.start_soon(channel.keep_time)
        await wait_all_tasks_blocked()
        nursery.start_soon(receive)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert ended_at == pytest.approx(10)
