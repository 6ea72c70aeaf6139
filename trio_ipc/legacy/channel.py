"""What the legacy channels of all platforms do alike: frames, deadlines, and when a channel is over.

A platform adds five things: reading what is there, waiting until there is more, handing over, looking, and
closing. This module must never know what a payload means, nor what it travels through.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Final

import attrs
import trio

from trio_ipc.channel import Channel
from trio_ipc.config import IpcConfig, TransportType
from trio_ipc.errors import (
    ChannelClosedError,
    PeerClosedError,
    ProtocolError,
    ReadTimeoutError,
    WriteTimeoutError,
)
from trio_ipc.transports import PeerCredentials

from .frames import HEADER_BYTES, FrameReader, FrameWriter

#: Bytes asked for at a time by who only watches whether the peer is there, and reads ahead for that.
_AHEAD_AT_A_TIME: Final = 65_536


@attrs.define
class ConnectionCount:
    """How many connections of a listener are open."""

    open: int = 0


class LegacyChannel(Channel):
    """Frames by exact reads, over what a subclass reads from and writes to.

    Args:
        config: limits, deadlines and checksum.
        endpoint: what errors call it.
        peer: who is at the other end.
        count: where it counts itself until it is closed; None for a client's.
    """

    transport = str(TransportType.LEGACY)

    def __init__(
        self, config: IpcConfig, *, endpoint: str, peer: PeerCredentials | None, count: ConnectionCount | None
    ) -> None:
        super().__init__(endpoint, peer)
        self._read_timeout_ms = config.read_timeout_ms
        self._write_timeout_ms = config.write_timeout_ms
        self._most_ahead = HEADER_BYTES + config.max_frame_bytes
        self._writer = FrameWriter(config.max_frame_bytes, config.crc32_variant)
        self._reader = FrameReader(config.max_frame_bytes, config.crc32_variant)
        self._ahead = bytearray()
        self._violation: ProtocolError | None = None
        self._closed = False
        self._at_eof = False
        self._unfinished: tuple[int, int] | None = None
        self._receiving_stopped = False
        self._idle: trio.CancelScope | None = None
        self._count = count
        if count is not None:
            count.open += 1

    # --- What a platform adds ---

    @abc.abstractmethod
    def _read_now(self, room: memoryview) -> int | None:
        """Read what is there, as far as there is room. Does not wait.

        Returns:
            How many bytes that was, 0 at end of file, also after a reset; None if there is nothing yet.
        """

    @abc.abstractmethod
    async def _wait_readable(self) -> None:
        """Wait until :meth:`_read_now` may say something. A checkpoint; takes nothing if it is cancelled.

        Raises:
            trio.ClosedResourceError: the channel was closed.
        """

    @abc.abstractmethod
    def _begin_write(self, parts: list[bytes]) -> bool:
        """Hand over what goes without a wait. Return whether that was all.

        Raises:
            trio.BrokenResourceError: the peer has closed.
        """

    @abc.abstractmethod
    async def _finish_write(self) -> None:
        """Wait until the rest of it is handed over. A cancellation may leave a part of it sent.

        Raises:
            trio.BrokenResourceError: the peer has closed.
            trio.ClosedResourceError: the channel was closed.
        """

    @abc.abstractmethod
    def _is_gone(self) -> bool:
        """Return whether nobody will read what is sent. Asked after end of file."""

    @abc.abstractmethod
    def _has_nothing(self) -> bool:
        """Return whether nothing has come: no bytes, no end of file, no error. Takes nothing."""

    @abc.abstractmethod
    def _close(self) -> None:
        """Close, and wake whoever waits. Called once."""

    # --- Receiving ---

    async def receive(self) -> bytes | bytearray:
        """Wait for the next payload; see :meth:`Channel.receive`."""
        self._check_open()
        if self._violation is not None:
            raise self._violation
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            payload = self._pull()
            if payload is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()
            else:
                payload = await self._wait_for_frame()
        except ProtocolError as exc:
            exc.endpoint = self.endpoint
            self._violation = exc
            raise
        except trio.ClosedResourceError as exc:
            raise self._was_closed() from exc
        except BaseException:
            if self._reader.has_begun:
                self._break()
            raise
        self.traffic.frames_received += 1
        self.traffic.bytes_received += HEADER_BYTES + len(payload)
        return payload

    def _pull(self) -> bytearray | None:
        """Read of one frame what is there; None if it is not whole yet."""
        while True:
            count = self._take(self._reader.room)
            if count is None:
                return None
            if count == 0:
                self._reader.end()
                raise PeerClosedError(
                    "the peer closed the connection",
                    endpoint=self.endpoint,
                    hint="it is over its connection limit, stopping, or gone: connect again",
                )
            payload = self._reader.took(count)
            if payload is not None:
                return payload

    def _take(self, room: memoryview) -> int | None:
        if self._ahead:
            count = min(len(room), len(self._ahead))
            room[:count] = self._ahead[:count]
            del self._ahead[:count]
            return count
        count_now = 0 if self._at_eof else self._read_now(room)
        self._at_eof = count_now == 0
        return count_now

    async def _wait_for_frame(self) -> bytearray:
        payload = None
        if not self._reader.has_begun:
            payload = await self._wait_for_beginning()
        return payload if payload is not None else await self._wait_for_rest()

    async def _wait_for_beginning(self) -> bytearray | None:
        """Wait until a frame has begun, and return it if it came whole."""
        deadline = trio.current_time() + self._read_timeout_ms / 1000
        timed_out = False
        while not self._receiving_stopped and not timed_out:
            with trio.CancelScope(deadline=deadline) as idle:
                self._idle = idle
                try:
                    await self._wait_readable()
                finally:
                    self._idle = None
            timed_out = idle.cancelled_caught
            # Once more after the time, or a stop: what came in the same moment is not lost.
            payload = self._pull()
            if payload is not None or self._reader.has_begun:
                return payload
        if self._receiving_stopped:
            raise ChannelClosedError("no further requests are taken", endpoint=self.endpoint)
        raise self._too_late("for a frame to begin")

    async def _wait_for_rest(self) -> bytearray:
        """Wait for the rest of a frame: from its first byte on it has one budget for all of it."""
        with trio.CancelScope(deadline=trio.current_time() + self._read_timeout_ms / 1000):
            while True:
                await self._wait_readable()
                payload = self._pull()
                if payload is not None:
                    return payload
        raise self._too_late("for the rest of a frame")

    def _too_late(self, what_for: str) -> ReadTimeoutError:
        return ReadTimeoutError(
            f"timed out waiting {what_for}, the limit read_timeout_ms is {self._read_timeout_ms}",
            endpoint=self.endpoint,
            hint="see whether the peer is stuck or overloaded, or raise read_timeout_ms",
        )

    # --- Sending ---

    def send_nowait(self, payloads: Sequence[bytes]) -> bool:
        """Hand over what the system takes at once; see :meth:`Channel.send_nowait`."""
        self._check_open()
        if self._unfinished is not None:
            raise trio.BusyResourceError("the payloads before are not handed over yet")
        parts = [part for payload in payloads for part in (self._writer.header(payload), payload)]
        if len(payloads) != 1:
            parts = [b"".join(parts)]  # how many parts the system takes at a time is limited (IOV_MAX)
        frames, size = len(payloads), sum(map(len, parts))
        try:
            at_once = self._begin_write(parts)
        except trio.BrokenResourceError as exc:
            raise self._not_taken() from exc
        if at_once:
            # Counted before anyone else runs: who sees the answer sees the count.
            self._count_sent(frames, size)
        else:
            self._unfinished = frames, size
        return at_once

    async def flush(self) -> None:
        """Wait until all is handed over; see :meth:`Channel.flush`."""
        self._check_open()
        if self._unfinished is None:
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._send_rest()
        except trio.BrokenResourceError as exc:
            raise self._not_taken() from exc
        except trio.ClosedResourceError as exc:
            raise self._was_closed() from exc
        self._count_sent(*self._unfinished)
        self._unfinished = None

    def _count_sent(self, frames: int, size: int) -> None:
        self.traffic.frames_sent += frames
        self.traffic.bytes_sent += size

    def _not_taken(self) -> PeerClosedError:
        return PeerClosedError(
            "the peer closed the connection before it took the whole message",
            endpoint=self.endpoint,
            hint="connect again",
        )

    def check(self, payload: bytes) -> None:
        """Raise if this payload cannot be sent; see :meth:`Channel.check`."""
        self._writer.check(len(payload))

    async def _send_rest(self) -> None:
        with trio.CancelScope(deadline=trio.current_time() + self._write_timeout_ms / 1000) as wait:
            try:
                await self._finish_write()
            except trio.Cancelled:
                self._break()
                raise
        if wait.cancelled_caught:
            raise WriteTimeoutError(
                f"timed out handing over a message, the limit write_timeout_ms is {self._write_timeout_ms}",
                endpoint=self.endpoint,
                hint="see whether the peer is stuck: it does not read",
            )

    # --- Watching and ending ---

    async def wait_peer_gone(self) -> None:
        """Return once nobody will read what is sent; see :meth:`Channel.wait_peer_gone`."""
        buffer = memoryview(bytearray(_AHEAD_AT_A_TIME))
        while not self._at_eof and len(self._ahead) < self._most_ahead:
            try:
                await self._wait_readable()
                count = self._read_now(buffer)
            except trio.ClosedResourceError:
                await trio.lowlevel.checkpoint()
                return
            if count is not None:
                self._at_eof = count == 0
                self._ahead += buffer[:count]
        if self._at_eof and self._is_gone():
            await trio.lowlevel.checkpoint()
            return
        # Half closed, it waits for its answer; or it sent so much ahead that no more may be read.
        await trio.sleep_forever()

    def is_quiet(self) -> bool:
        """Return whether it may be used again; see :meth:`Channel.is_quiet`."""
        if self._closed or self._at_eof or self._receiving_stopped:
            return False
        return not self._ahead and not self._reader.has_begun and self._has_nothing()

    def stop_receiving(self) -> None:
        """Begin no further frame; see :meth:`Channel.stop_receiving`."""
        self._receiving_stopped = True
        if self._idle is not None:
            self._idle.cancel()

    def close_nowait(self) -> bool:
        """Close the connection at once; see :meth:`Channel.close_nowait`."""
        self._break()
        return True

    async def aclose(self) -> None:
        """Close the connection at once. Never raises but for cancellation, and closes even then."""
        self._break()
        await trio.lowlevel.checkpoint()

    def _break(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._count is not None:
            self._count.open -= 1
        self._close()

    def _check_open(self) -> None:
        if self._closed:
            raise self._was_closed()

    def _was_closed(self) -> ChannelClosedError:
        return ChannelClosedError("this connection was closed", endpoint=self.endpoint, hint="open a new one")
