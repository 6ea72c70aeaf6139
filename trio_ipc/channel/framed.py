"""The default channel: frames (docs/wire-protocol.md) over any connection of bytes.

It reads ahead, up to one read's bytes, and tries to write before it waits. This module must never know what a
payload means, nor which platform carries it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from trio_ipc.config import IpcConfig, TransportType
from trio_ipc.errors import ChannelError, ProtocolError
from trio_ipc.transports import Duplex, LocalStream, OneAtATime, PeerCredentials, PeerState, StreamDuplex
from trio_ipc.wire import HEADER_BYTES, FrameDecoder, FrameEncoder

from .alarm import Alarm
from .balance import Balance
from .base import NOTHING, STOPPED, Channel, close_at_once, closed_by_peer, closed_here, not_taken, rest_of
from .spin import Spin

if TYPE_CHECKING:
    import socket

#: Bytes asked for by one read; transports/duplex.py says why not more.
_READ_SIZE: Final = 65_536

#: Bytes of a payload up to which it is joined with its header for the first write.
_MOST_TO_COPY: Final = 16_384

#: Reads of one frame before other tasks have their turn, where all of it is there: some 0.4 ms.
_READS_IN_A_ROW: Final = 16

#: Each call asks for it; transports/unix.py says why it has a name.
_OPEN: Final = PeerState.OPEN


class FramedChannel(Channel):
    """Frames over a stream.

    Args:
        stream: the connected stream, which the channel owns. One that is no
            :class:`~trio_ipc.transports.LocalStream` can do nothing without a wait, and is not asked what has
            become of its peer.
        config: limits, deadlines and checksum.
        endpoint: what errors call it.
        peer: who is at the other end.
    """

    transport: str = str(TransportType.INTERPROCESS)

    def __init__(
        self, stream: trio.abc.Stream, config: IpcConfig, *, endpoint: str, peer: PeerCredentials | None
    ) -> None:
        super().__init__(config, endpoint=endpoint, peer=peer)
        self._stream = stream
        self._duplex: Duplex = stream if isinstance(stream, LocalStream) else StreamDuplex(stream)
        self._encoder = FrameEncoder(config.max_frame_bytes, config.crc32_variant)
        # What goes back is in the peer's variant, also the reason why its first frame is refused.
        self._decoder = FrameDecoder(config.max_frame_bytes, config.crc32_variant, self._encoder.use)
        #: How often to try again before a wait, as the configuration has it; 0 where that is no use.
        self.poll_attempts: int = config.poll_attempts if isinstance(stream, LocalStream) else 0
        self._balance = Balance()
        self._spin = Spin(self.poll_attempts, worth=self._balance.worth_waiting)
        # What is left of a large message is mostly taken soon, and each message tries that anew.
        self._spin_out = Spin(self.poll_attempts if self._duplex.writes_at_once else 0, backs_off=False)
        # Only the rest of a frame is read in a row: before each frame others have their turn.
        self._reads_in_a_row = _READS_IN_A_ROW
        self._at_eof = self._closed = False
        self._alarm: Alarm | None = None
        self._time_was_up = False
        self._has_rung = False  # and something was about to wake who waits
        # What the system did not take at once, in bytes and in frames, and who waits until it does.
        self._sending = OneAtATime("sending on this channel")
        self._unsent = NOTHING
        self._frames_unsent = self._bytes_unsent = 0

    # --- Receiving ---

    @property
    def in_frame(self) -> bool:
        """Whether a part of a frame is in hand; see :attr:`Channel.in_frame`."""
        return self._decoder.in_frame

    @property
    def has_input(self) -> bool:
        """Whether there is anything to take; see :attr:`Channel.has_input`."""
        return self._decoder.has_input

    # An interrupt comes at a wait and nowhere else: no step loses bytes, or hands them over twice. (It costs
    # nothing: Trio looks at the code of what was interrupted.)

    @trio.lowlevel.enable_ki_protection
    def receive_nowait(self, at_most: int) -> list[bytes]:
        """Return payloads that are in hand; see :meth:`Channel.receive_nowait`."""
        if self._closed:
            raise closed_here(self.endpoint)
        try:
            payloads = self._decoder.next_payloads(at_most)
        except ProtocolError as exc:
            exc.endpoint = self.endpoint
            raise
        if payloads:
            traffic, number = self.traffic, len(payloads)
            size = number * HEADER_BYTES + sum(map(len, payloads))
            traffic.frames_received += number
            traffic.bytes_received += size
            self._balance.received(number, size)
            self._reads_in_a_row = _READS_IN_A_ROW
        return payloads

    @trio.lowlevel.enable_ki_protection
    async def fill(self, deadline: float | None = None) -> bool:
        """Read more; see :meth:`Channel.fill`."""
        # Each coroutine between a task and its wait takes part in its falling asleep and in its waking.
        alarm: Alarm | None = None
        came = False
        try:
            came = self._reads_on() or (
                deadline != -math.inf  # who asks for what is there does not wait at all
                and self._spin.begin(self._now)
                and await self._spin.until(self._look, clock=self._now)
            )
            if not came and deadline is not None:
                alarm = self._alarm
                if alarm is None:
                    came = await self._wait_in_scope(deadline)
                else:
                    self._has_rung = False
                    alarm.set(deadline)
            while not came and (deadline is None or alarm is not None):
                await self._duplex.wait_readable()
                came = self._look()
        except trio.BrokenResourceError:
            self._at_eof = True  # closed less politely, but just as closed
        except trio.ClosedResourceError as exc:
            if alarm is None or not self._time_was_up:
                raise closed_here(self.endpoint) from exc
        finally:
            if alarm is not None:
                alarm.clear()
                if alarm is not self._alarm:
                    alarm.end()  # it was kept for this wait alone: see keep_time()
        if self._at_eof:
            self._tell_end()
        return came

    def _reads_on(self) -> bool:
        """Read the rest of a frame, mostly there where it is large; return whether it was."""
        if self._reads_in_a_row < _READS_IN_A_ROW and self._look():
            self._reads_in_a_row += 1
            return True
        self._reads_in_a_row = 0
        return False

    async def _wait_in_scope(self, deadline: float) -> bool:
        with trio.CancelScope(deadline=deadline):
            while True:
                await self._duplex.wait_readable()
                if self._look():
                    return True
        return self._look()

    def _tell_end(self) -> NoReturn:
        if self._closed:  # while another thread looked, which then saw the end: see block_and_look()
            raise closed_here(self.endpoint)
        self._decoder.end()
        raise closed_by_peer(self.endpoint)

    async def keep_time(self) -> None:
        """Keep the deadlines of what waits; see :meth:`Channel.keep_time`."""
        if isinstance(self._duplex, StreamDuplex) or self._closed:
            await trio.lowlevel.checkpoint()  # it cannot be closed without a wait
            return
        alarm = self._alarm = Alarm(self._ring)
        try:
            await alarm.run()
        finally:
            self._alarm = None
            if alarm.deadline < math.inf:
                # This was cancelled, and maybe who waits is not, under a shield: that wait has its deadline.
                with trio.CancelScope(shield=True):
                    await alarm.run()

    def _ring(self, alarm: Alarm) -> None:
        # If something has come, who waits is about to wake and see: this process may have been stopped. But
        # not for ever: a stream may see that its peer is gone before it lets through what that said last.
        if self._has_rung or self._duplex.peer_state() is _OPEN:
            self._time_was_up = True
            self._duplex.close()
        else:
            self._has_rung = True
            alarm.set(self._now() + STOPPED)

    def block_and_look(self, seconds: float) -> bool:
        """Wait in this thread, for so long, and read what is there; return whether that was anything.

        For who is not on Trio, and where :attr:`can_block` is true. What it meets the next :meth:`fill` says.
        """
        if self._spin.begin(self._now) and self._spin.block_until(self.look, self._now):
            return True
        try:
            self._duplex.block_until_readable(seconds)  # type: ignore[attr-defined]  # see can_block
        except trio.ClosedResourceError:
            return True
        return self.look()

    def look(self) -> bool:
        """Read what is there, without a wait; see :meth:`Channel.look`."""
        try:
            # While a client waited for its place, peer_state() may have read as much as there is room for.
            return self._decoder.is_full or self._look()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return True

    def second_socket(self) -> socket.socket:
        """Return another socket of the connection, which its caller has to close, to wait elsewhere.

        Where :attr:`can_block` is true. It is readable when there is something to look at, the end included.
        Raises :exc:`trio.ClosedResourceError`, or OSError where there is no room for a descriptor.
        """
        second: socket.socket = self._duplex.second_socket()  # type: ignore[attr-defined]  # see can_block
        return second

    def lend(self, close_when_free: Callable[[Callable[[], None]], None]) -> None:
        """Let other threads send, look and block here; see :meth:`UnixStream.lend`.

        Where :attr:`can_block` is true.
        """
        self._duplex.lend(close_when_free)  # type: ignore[attr-defined]  # see can_block

    @property
    def can_block(self) -> bool:
        """Whether it can be waited for elsewhere, by :meth:`block_and_look` or a :meth:`second_socket`."""
        return hasattr(self._duplex, "block_until_readable")

    def _look(self) -> bool:
        """Read what is there; return whether that was anything, the end included."""
        if self._at_eof:
            return True
        data = self._duplex.read(_READ_SIZE)
        if data is None:
            return False
        if data:
            self._decoder.feed(data)
        else:
            self._at_eof = True
        return True

    # --- Sending ---

    @trio.lowlevel.enable_ki_protection
    def send_nowait(self, payloads: Sequence[bytes]) -> bool:
        """Hand over what the system takes at once; see :meth:`Channel.send_nowait`."""
        if self._closed:
            raise closed_here(self.endpoint)
        if len(payloads) == 1 and len(payloads[0]) > _MOST_TO_COPY and not self._unsent:
            return self._send_large(payloads[0])
        frames = self._encoder.encode_many(payloads)
        size = len(frames)
        if self._unsent:
            with self._sending:
                self._unsent = memoryview(b"".join((self._unsent, frames)))
        else:
            try:
                sent = self._duplex.write(frames)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                raise self._not_sent(exc) from exc
            if sent == size:
                # Before anyone else runs: who sees the response sees the count.
                self._balance.sent(len(payloads), size)
                self.traffic.frames_sent += len(payloads)
                self.traffic.bytes_sent += size
                return True
            self._unsent = memoryview(frames)[sent:]
        self._balance.sent(len(payloads), size)
        self._frames_unsent += len(payloads)
        self._bytes_unsent += size
        return False

    def _send_large(self, payload: bytes) -> bool:
        header = self._encoder.header(payload)
        try:
            sent = self._duplex.write_both(header, payload)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise self._not_sent(exc) from exc
        size = HEADER_BYTES + len(payload)
        self._balance.sent(1, size)
        if sent == size:
            self.traffic.frames_sent += 1
            self.traffic.bytes_sent += size
            return True
        rest = memoryview(payload)[sent - HEADER_BYTES :] if sent >= HEADER_BYTES else None
        self._unsent = memoryview(header[sent:] + payload) if rest is None else rest
        self._frames_unsent += 1
        self._bytes_unsent += size
        return False

    @trio.lowlevel.enable_ki_protection
    async def flush(self) -> None:
        """Wait until all is handed over; see :meth:`Channel.flush`."""
        if self._closed:
            raise closed_here(self.endpoint)
        if not self._unsent:
            await trio.lowlevel.checkpoint()
            return
        with self._sending:
            try:
                deadline, left = trio.current_time() + self.write_timeout, len(self._unsent)
                while not await self._flush_until(deadline):
                    late = trio.current_time() - deadline
                    self._write_now()
                    if self._unsent and (late < STOPPED or len(self._unsent) == left):
                        raise not_taken(self.write_timeout, self.endpoint)
                    deadline, left = trio.current_time() + self.write_timeout, len(self._unsent)
                if self._closed:  # which leaves nothing unsent, and sends nothing
                    raise closed_here(self.endpoint)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                raise self._not_sent(exc) from exc
            except BaseException:
                await close_at_once(self)
                raise
        self.traffic.frames_sent += self._frames_unsent
        self.traffic.bytes_sent += self._bytes_unsent
        self._frames_unsent = self._bytes_unsent = 0

    async def _flush_until(self, deadline: float) -> bool:
        """Write what is left, and return whether that was done in time."""
        with trio.CancelScope(deadline=deadline):
            spins = True
            while self._unsent:
                spins = spins and self._spin_out.begin() and await self._spin_out.until(self._write_now)
                if not spins:
                    sent = await self._duplex.write_some(self._unsent)
                    self._unsent = rest_of(self._unsent, sent)
            return True
        return not self._unsent

    def _write_now(self) -> bool:
        """Write what the system takes; return whether that was anything."""
        sent = self._duplex.write(self._unsent)
        self._unsent = rest_of(self._unsent, sent)
        return sent > 0

    def _not_sent(self, exc: Exception) -> ChannelError:
        if isinstance(exc, trio.ClosedResourceError):
            return closed_here(self.endpoint)
        return closed_by_peer(self.endpoint, sending=True)

    def check(self, payload: bytes) -> None:
        """Raise if this payload cannot be sent; see :meth:`Channel.check`."""
        self._encoder.check(len(payload))

    # --- The peer, and the end ---

    @trio.lowlevel.enable_ki_protection
    def peer_state(self) -> PeerState:
        """Return what has become of the peer; see :meth:`Channel.peer_state`."""
        state = self._duplex.peer_state()
        try:
            # A pipe tells that its peer has closed only once all was read.
            for _ in range(_READS_IN_A_ROW):
                if state is not PeerState.HAS_INPUT or self._decoder.is_full or not self._look():
                    break
                state = self._duplex.peer_state()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._at_eof = True
            return PeerState.GONE
        return state

    def is_reusable(self) -> bool:
        """Return whether it may be used again; see :meth:`Channel.is_reusable`."""
        if self._closed or self._at_eof or self._decoder.has_input:
            return False
        return self._duplex.peer_state() is _OPEN

    def close(self) -> bool:
        """Close the connection without a wait, if its stream can; see :meth:`Channel.close`."""
        self._end()
        return self._duplex.close()

    async def aclose(self) -> None:
        """Close the connection at once; see :meth:`Channel.aclose`."""
        self._end()
        await self._stream.aclose()

    def _end(self) -> None:
        self._closed = True
        self._unsent = NOTHING  # it may be large, and an owner may keep a channel that has ended
        if self._alarm is not None:
            self._alarm.end()
