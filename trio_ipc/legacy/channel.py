"""What the legacy channels of all platforms do alike: one frame in, what is left to send out, and the end.

A platform adds how it reads, writes, waits, looks and closes. This module must never know what a payload
means, nor what it travels through.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Final

import trio

from trio_ipc.channel import NOTHING, STOPPED, Channel, closed_by_peer, closed_here, not_taken, rest_of
from trio_ipc.config import IpcConfig, TransportType
from trio_ipc.errors import ChannelError
from trio_ipc.legacy.frames import HEADER_BYTES, FrameReader, FrameWriter
from trio_ipc.legacy.listener import ConnectionCount
from trio_ipc.transports import PeerCredentials, PeerState

#: Bytes asked for by one read.
_READ_SIZE: Final = 65_536

#: Reads of one frame before other tasks have their turn, where all of it is there: some 0.9 ms.
READS_IN_A_ROW: Final = 8


class LegacyChannel(Channel):
    """Frames by exact reads: nothing is taken from the connection ahead of the frame that is asked for.

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
        super().__init__(config, endpoint=endpoint, peer=peer)
        self._writer = FrameWriter(config.max_frame_bytes, config.crc32_variant)
        # What goes back is in the peer's variant, also the reason why its first frame is refused.
        self._reader = FrameReader(
            config.max_frame_bytes, config.crc32_variant, endpoint, on_other=self._writer.use
        )
        self._unsent = NOTHING
        self._frames_unsent = self._bytes_unsent = 0
        self._flushing = False
        self._closed = False
        self._count = count
        if count is not None:
            count.open += 1

    # --- What a platform adds, besides peer_state() ---

    @abc.abstractmethod
    def _read_now(self, at_most: int) -> bytes | None:
        """Return bytes that are there, ``b""`` at the end, also after a reset; None if there are none yet.

        Raises:
            trio.ClosedResourceError: the channel was closed.
        """

    @abc.abstractmethod
    async def _read(self, at_most: int) -> bytes:
        """Wait for what :meth:`_read_now` returns. A checkpoint; cancellation loses no bytes."""

    @abc.abstractmethod
    def _write(self, data: memoryview) -> int:
        """Hand over what goes without a wait, and return how many bytes that was.

        What is left must be the beginning of what is given the next time.

        Raises:
            trio.BrokenResourceError: the peer has closed.
            trio.ClosedResourceError: the channel was closed.
        """

    @abc.abstractmethod
    async def _wait_writable(self) -> None:
        """Wait until :meth:`_write` may get further. A checkpoint; raises what that raises."""

    @abc.abstractmethod
    def _close(self) -> None:
        """Close, and wake the waiting tasks. Called once."""

    # --- Receiving ---

    @property
    def in_frame(self) -> bool:
        """Whether a part of a frame is in hand; see :attr:`Channel.in_frame`."""
        return self._reader.has_begun

    @property
    def has_input(self) -> bool:
        """Whether there is anything to take, or its beginning; see :attr:`Channel.has_input`."""
        return self._reader.has_begun or not self._reader.missing

    # An interrupt comes at a wait and nowhere else: no step loses bytes, or hands them over twice.

    @trio.lowlevel.enable_ki_protection
    def receive_nowait(self, at_most: int) -> list[bytes]:
        """Return the payload that is in hand, if there is one; see :meth:`Channel.receive_nowait`."""
        self._check_open()
        payload = self._reader.take() if at_most > 0 else None
        if payload is None:
            return []
        self.traffic.frames_received += 1
        self.traffic.bytes_received += HEADER_BYTES + len(payload)
        return [payload]

    @trio.lowlevel.enable_ki_protection
    async def fill(self, deadline: float | None = None) -> bool:
        """Read a frame as far as it is there, or wait for its next part; see :meth:`Channel.fill`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            if not self._reader.missing or self._read_on():
                await trio.lowlevel.cancel_shielded_checkpoint()
                return True
            came = False
            with trio.CancelScope(deadline=math.inf if deadline is None else deadline):
                self._add(await self._read(min(self._reader.missing, _READ_SIZE)))
                came = True
            return self._read_on() or came
        except trio.ClosedResourceError as exc:
            raise closed_here(self.endpoint) from exc

    def _read_on(self) -> bool:
        """Read of one frame what is there; return whether that was anything."""
        came = False
        for _ in range(READS_IN_A_ROW):
            missing = self._reader.missing
            data = self._read_now(min(missing, _READ_SIZE)) if missing else None
            if data is None:
                break
            self._add(data)
            came = True
        return came

    def _add(self, data: bytes) -> None:
        if not data:
            self._reader.end()
            raise closed_by_peer(self.endpoint)
        self._reader.add(data)

    # --- Sending ---

    @trio.lowlevel.enable_ki_protection
    def send_nowait(self, payloads: Sequence[bytes]) -> bool:
        """Hand over what the system takes at once; see :meth:`Channel.send_nowait`.

        Raises:
            trio.BusyResourceError: another task is sending what it could not at once.
        """
        self._check_open()
        if self._flushing:
            raise trio.BusyResourceError("another task is sending on this channel")
        frames = self._writer.frames(payloads)
        self._frames_unsent += len(payloads)
        self._bytes_unsent += len(frames)
        self._unsent = memoryview(b"".join((self._unsent, frames)) if self._unsent else frames)
        try:
            return self._write_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise self._not_sent(exc) from exc

    @trio.lowlevel.enable_ki_protection
    async def flush(self) -> None:
        """Wait until all is handed over; see :meth:`Channel.flush`."""
        self._check_open()
        if not self._unsent:
            await trio.lowlevel.checkpoint()
            return
        if self._flushing:
            raise trio.BusyResourceError("another task is sending on this channel")
        self._flushing = True
        try:
            await self._flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise self._not_sent(exc) from exc
        except BaseException:
            self.close()
            raise
        finally:
            self._flushing = False
            if self._closed:
                self._unsent = NOTHING

    async def _flush(self) -> None:
        while True:
            deadline, left = trio.current_time() + self.write_timeout, len(self._unsent)
            with trio.CancelScope(deadline=deadline):
                while True:
                    await self._wait_writable()
                    if self._write_some():
                        return
            late = trio.current_time() - deadline
            # Once more: the process may have been stopped meanwhile, and the peer have made room.
            if self._write_some():
                return
            if late < STOPPED or len(self._unsent) == left:
                raise not_taken(self.write_timeout, self.endpoint)

    def _write_some(self) -> bool:
        """Hand over what the system takes; return whether that was the rest."""
        if self._unsent:
            self._unsent = rest_of(self._unsent, self._write(self._unsent))
            if self._unsent:
                return False
        # Counted before anyone else runs: who sees the response sees the count.
        self.traffic.frames_sent += self._frames_unsent
        self.traffic.bytes_sent += self._bytes_unsent
        self._frames_unsent = self._bytes_unsent = 0
        return True

    def _not_sent(self, exc: Exception) -> ChannelError:
        if isinstance(exc, trio.ClosedResourceError):
            return closed_here(self.endpoint)
        return closed_by_peer(self.endpoint, sending=True)

    def check(self, payload: bytes) -> None:
        """Raise if this payload cannot be sent; see :meth:`Channel.check`."""
        self._writer.check(len(payload))

    # --- The end ---

    def is_reusable(self) -> bool:
        """Return whether it may be used again; see :meth:`Channel.is_reusable`."""
        return self._reader.missing == HEADER_BYTES and self.peer_state() is PeerState.OPEN

    def close(self) -> bool:
        """Close the connection without a wait; see :meth:`Channel.close`."""
        if not self._closed:
            self._closed = True
            if not self._flushing:  # else that lets go of it: what is left tells it whether it is done
                self._unsent = NOTHING
            if self._count is not None:
                self._count.open -= 1
            self._close()
        return True

    async def aclose(self) -> None:
        """Close the connection at once; see :meth:`Channel.aclose`."""
        self.close()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._closed:
            raise closed_here(self.endpoint)
