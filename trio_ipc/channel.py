"""A channel: whole messages in and out of one connection, each under its deadline.

:class:`Channel` is the seam of the architecture. Server and client know channels and listeners of
channels, never sockets; another implementation (a rollback transport, a channel in memory) takes the
default one's place whole. :class:`FramedChannel` is the default: frames over any
:class:`trio.abc.Stream`. This module must never know what a payload means.
"""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Sequence
from typing import Final

import trio

from .config import IpcConfig, TransportType
from .errors import (
    ChannelClosedError,
    ChannelError,
    PeerClosedError,
    ProtocolError,
    ReadTimeoutError,
    WriteTimeoutError,
)
from .speculation import Speculation
from .telemetry import Traffic
from .transports import LocalStream, PeerCredentials
from .wire import HEADER_BYTES, FrameDecoder, FrameEncoder

#: Bytes asked for by one read; transports/unix.py says why not more.
_READ_SIZE: Final = 65_536

#: Seconds that polling may take, at the most: a few times what it costs to be woken. Where many connections
#: are busy a pass of the scheduler takes long, and the process does not fall asleep anyway.
_SHORT_POLL: Final = 0.0001

#: The same where frames follow one another within ``_LIVELY`` seconds. A core that slept is slow at first, so
#: that both sides gain: calls for 1,000 records took 352 instead of 493 µs, small ones on 16 connections 15
#: instead of 26. With handlers of 1 ms, which are not lively, polling costs no more CPU time. Linux, when it
#: is a guest, does much the same: guest_halt_poll_ns, 200 µs (Documentation/virt/guest-halt-polling.rst).
_LONG_POLL: Final = 0.0003
_LIVELY: Final = 0.001

#: Reads of one frame before other tasks have their turn, where all of it is there.
_READS_IN_A_ROW: Final = 16

#: Bytes of frames up to which they are put together for one write. More is handed over in its parts.
_MOST_TO_COPY: Final = 16_384


class Channel(trio.abc.AsyncResource):
    """Whole payloads in both directions over one connection.

    One task may receive while another sends. A channel is usable only between whole frames: what stops
    a frame part-way (a deadline, a cancellation, an error) closes it.

    Attributes:
        endpoint: the path or name it leads to.
        peer: who is at the other end, or None where nobody can say.
        traffic: where it counts its frames; its owner may put a shared one in its place.
        transport: what telemetry calls the implementation.
        read_timeout_ms: how long a wait for a frame to begin may take; None if the channel always ends its
            waits by itself. Then the next two mean nothing.
        patient: an owner that has one cancel scope for many calls of :meth:`receive`, all in the scope's own
            task, may set this to True. It has then to cancel one that waits at :attr:`waits_until`, and after
            :meth:`stop_receiving`. One that it has cancelled it may call again, inside of a frame, too. A
            scope for each wait takes a call 8 µs longer.
        waits_until: while a patient :meth:`receive` waits for a frame to begin, when that has taken
            ``read_timeout_ms``, on :func:`trio.current_time`'s clock; else None.
    """

    transport: str = str(TransportType.INTERPROCESS)
    read_timeout_ms: int | None = None
    patient: bool = False
    waits_until: float | None = None

    def __init__(self, endpoint: str, peer: PeerCredentials | None) -> None:
        self.endpoint = endpoint
        self.peer = peer
        self.traffic = Traffic()

    @abc.abstractmethod
    async def receive(self) -> bytes | bytearray:
        """Wait for the next payload.

        Raises:
            PeerClosedError: the peer closed between two frames.
            ProtocolError: the peer broke the protocol. The receiving side is dead; one last payload may
                be sent to say why.
            ReadTimeoutError: no frame began within ``read_timeout_ms``, or one did and was not whole
                after as long again.
            ChannelClosedError: the channel was closed, or :meth:`stop_receiving` was called.

        Cancellation between two frames leaves the channel as it was; inside a frame it closes it.
        """

    def receive_nowait(self, at_most: int) -> list[bytes]:
        """Return payloads all of which came with what was read before, in their order.

        Takes nothing from the stream. A channel that never reads ahead has none.

        Args:
            at_most: how many.

        Returns:
            The payloads; fewer, or none, where more of them have to be received. Raises
            :exc:`ProtocolError` and :exc:`ChannelClosedError` as :meth:`receive` does, but not before
            the payloads ahead of the error were returned.
        """
        return []

    async def send(self, payload: bytes) -> None:
        """Hand over one payload.

        Raises:
            MessageError: the payload is empty or too large. Nothing was sent.
            PeerClosedError: the peer has closed. What it sent before may still be received.
            WriteTimeoutError: it could not be handed over within ``write_timeout_ms``.
            ChannelClosedError: the channel was closed.

        A cancellation that is there from the start leaves the channel as it was; one that comes while
        this waits for room closes it.
        """
        await self.send_many((payload,))

    async def send_many(self, payloads: Sequence[bytes]) -> None:
        """Hand over several payloads, in order, at the cost of one where that is possible.

        Raises and is cancelled like :meth:`send`; ``write_timeout_ms`` holds for all of them together. On
        a :exc:`~trio_ipc.MessageError` none was sent.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.send_nowait(payloads):
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await self.flush()

    @abc.abstractmethod
    def send_nowait(self, payloads: Sequence[bytes]) -> bool:
        """Hand over what the system takes at once.

        Returns:
            Whether that was everything. What is left is kept for :meth:`flush`, which must come before
            the next payloads are anybody's.

        Raises:
            MessageError: a payload is empty or too large. None was sent.
            PeerClosedError: the peer has closed.
            ChannelClosedError: the channel was closed.
        """

    @abc.abstractmethod
    async def flush(self) -> None:
        """Wait until all that :meth:`send_nowait` kept is handed over.

        Raises and is cancelled like :meth:`send`.
        """

    @abc.abstractmethod
    def check(self, payload: bytes) -> None:
        """Raise the :exc:`~trio_ipc.MessageError` that :meth:`send` would raise for this payload."""

    @abc.abstractmethod
    def is_quiet(self) -> bool:
        """Return whether this connection, idle so far, may be used for another request.

        False if it was closed, if the peer has closed, or if bytes have come that nobody asked for. Does
        not block and takes nothing from the stream. True is no promise: the peer may close right after.
        """

    @abc.abstractmethod
    async def wait_peer_gone(self) -> None:
        """Return once nobody will read what is sent; for use while a request is being handled.

        Must not run at the same time as :meth:`receive`. What arrives meanwhile is kept for it, up to
        one frame. A peer that has closed its sending side only, or has sent more than that, is not
        watched any further. Cancellation leaves the channel as it was.
        """

    @abc.abstractmethod
    def stop_receiving(self) -> None:
        """Begin no further frame: :meth:`receive` ends by :exc:`ChannelClosedError`, now and later.

        A frame of which bytes have come is still received whole, if need be at the next call.
        """

    def close_nowait(self) -> bool:
        """Close without a wait, if this channel can; return whether it did. Idempotent."""
        return False

    # aclose() is inherited: it closes at once, never raises, and wakes whoever waits.


class _WithoutShortcuts:
    """What a :class:`FramedChannel` assumes of a stream that has no such methods."""

    @staticmethod
    def receive_nowait(_max_bytes: int) -> bytes | None:
        return None

    @staticmethod
    def send_nowait(_data: object) -> int:
        return 0

    @staticmethod
    def send_parts_nowait(_parts: object) -> int:
        return 0

    @staticmethod
    def peer_is_gone() -> bool:
        return True

    @staticmethod
    def is_quiet() -> bool:
        return True

    @staticmethod
    def close_nowait() -> bool:
        return False


class FramedChannel(Channel):
    """Frames (docs/wire-protocol.md) over any :class:`trio.abc.Stream`.

    Args:
        stream: the connected stream. The channel owns it. Of a :class:`~trio_ipc.transports.LocalStream`
            it uses all that other streams don't have: doing without a wait what can be done so, because
            the deadline of a wait that does not happen costs 8 µs, and asking what has become of the peer.
        config: limits, deadlines and checksum.
        endpoint: what errors call it.
        peer: who is at the other end.
    """

    def __init__(
        self, stream: trio.abc.Stream, config: IpcConfig, *, endpoint: str, peer: PeerCredentials | None
    ) -> None:
        super().__init__(endpoint, peer)
        self._stream = stream
        self._receive_awaited = (
            stream.receive_awaited if isinstance(stream, LocalStream) else stream.receive_some
        )
        shortcuts = stream if isinstance(stream, LocalStream) else _WithoutShortcuts
        self._receive_nowait = shortcuts.receive_nowait
        self._send_nowait = shortcuts.send_nowait
        self._send_parts_nowait = shortcuts.send_parts_nowait
        self._peer_is_gone = shortcuts.peer_is_gone
        self._is_quiet = shortcuts.is_quiet
        self._close_nowait = shortcuts.close_nowait
        self._looks = config.poll_attempts if isinstance(stream, LocalStream) else 0
        self._polling = Speculation()
        self._waited_at = -math.inf
        self._longest_poll = _SHORT_POLL
        self.read_timeout_ms: int = config.read_timeout_ms
        self._write_timeout_ms = config.write_timeout_ms
        self._encoder = FrameEncoder(config.max_frame_bytes, config.crc32_variant)
        self._decoder = FrameDecoder(config.max_frame_bytes, config.crc32_variant)
        self._closed = False
        self._unsent: list[bytes | memoryview] = []
        self._sends_at_once = False  # a pipe never does
        self._frames_unsent = 0
        self._bytes_unsent = 0
        self._at_eof = False
        self._receiving_stopped = False
        self._wait: trio.CancelScope | None = None

    async def receive(self) -> bytes | bytearray:
        """Wait for the next payload; see :meth:`Channel.receive`."""
        self._check_open()
        payload: bytes | bytearray | None = None
        try:
            if self._decoder.has_input:
                await trio.lowlevel.checkpoint_if_cancelled()
                payload = self._decoder.next_payload()
                # In either case: the rest of a frame that has begun may be there without a wait, too, and a
                # peer that sends without a pause must not keep others from their turn.
                await trio.lowlevel.cancel_shielded_checkpoint()
            if payload is None:
                payload = await self._receive_rest()
        except ProtocolError as exc:
            exc.endpoint = self.endpoint
            raise
        except BaseException:
            if self._decoder.buffered and not self.patient:
                await self._break()
            raise
        self.traffic.frames_received += 1
        self.traffic.bytes_received += HEADER_BYTES + len(payload)
        return payload

    def receive_nowait(self, at_most: int) -> list[bytes]:
        """Return payloads that are in hand; see :meth:`Channel.receive_nowait`."""
        if self._closed:
            raise self._was_closed()
        try:
            payloads = self._decoder.next_payloads(at_most)
        except ProtocolError as exc:
            exc.endpoint = self.endpoint
            raise
        if payloads:
            self.traffic.frames_received += len(payloads)
            self.traffic.bytes_received += HEADER_BYTES * len(payloads) + sum(map(len, payloads))
        return payloads

    async def _receive_rest(self) -> bytes | bytearray:
        decoder = self._decoder
        # From its first byte on a frame has one budget for header and payload together: a peer that drips
        # bytes does not get longer.
        frame_deadline = self._deadline() if decoder.buffered else None
        for reads in itertools.count(1):
            data = b"" if self._at_eof else await self._read(frame_deadline)
            if not data:
                self._at_eof = True
                decoder.end()
                raise PeerClosedError(
                    "the peer closed the connection",
                    endpoint=self.endpoint,
                    hint="it is over its connection limit, stopping, or gone: connect again",
                )
            decoder.feed(data)
            payload = decoder.next_payload()
            if payload is not None:
                return payload
            if frame_deadline is None:
                frame_deadline = self._deadline()
            elif trio.current_time() >= frame_deadline:
                raise self._too_late(in_frame=True)  # though something is there whenever it looks
            elif reads % _READS_IN_A_ROW == 0:
                await trio.lowlevel.checkpoint()
        raise AssertionError("unreachable")

    def _deadline(self) -> float:
        return trio.current_time() + self.read_timeout_ms / 1000

    async def _read(self, frame_deadline: float | None) -> bytes | bytearray:  # noqa: C901, PLR0912 - see below
        """Read something; ``b""`` at the end. Between frames there is no ``frame_deadline``.

        This is where speed is bought: to wake a process that sleeps takes the system longer than all our
        Python. So it tries a few times before it falls asleep. Each try is a whole pass of the scheduler, so
        that other tasks, deadlines and cancellation have their turn. All in one function, because a task
        that wakes goes through each one that awaits another.
        """
        in_frame = frame_deadline is not None
        data: bytes | bytearray | None = None
        try:
            if self._looks and in_frame:
                # What is left of a frame is mostly there; a frame that is to begin is not.
                data = self._receive_nowait(_READ_SIZE)
            elif self._looks:
                now = trio.current_time()
                self._longest_poll = _LONG_POLL if now - self._waited_at < _LIVELY else _SHORT_POLL
                self._waited_at = now
            if data is None and self._looks and self._polling.is_worth_it():
                give_up = trio.current_time() + self._longest_poll
                for _ in range(self._looks):
                    await trio.lowlevel.checkpoint()
                    if self._receiving_stopped and not in_frame:
                        break
                    data = self._receive_nowait(_READ_SIZE)
                    if data is not None:
                        self._polling.succeeded()
                        break
                    if trio.current_time() > give_up:
                        break
            if data is not None:
                return data
            if self._receiving_stopped and not in_frame:
                return self._read_last()
            if self.patient and not in_frame:
                self.waits_until = self._deadline()
                try:
                    return await self._receive_awaited(_READ_SIZE)
                finally:
                    self.waits_until = None
            deadline = self._deadline() if frame_deadline is None else frame_deadline
            with trio.CancelScope(deadline=deadline) as wait:
                if not in_frame:
                    self._wait = wait
                try:
                    return await self._receive_awaited(_READ_SIZE)
                finally:
                    self._wait = None
        except trio.BrokenResourceError:
            return b""  # closed less politely, but just as closed
        except trio.ClosedResourceError as exc:
            raise self._was_closed() from exc
        if self._receiving_stopped and not in_frame:
            return self._read_last()
        raise self._too_late(in_frame=in_frame)

    def _too_late(self, *, in_frame: bool) -> ReadTimeoutError:
        return too_late(self.read_timeout_ms, self.endpoint, in_frame=in_frame)

    def _read_last(self) -> bytes:
        """Return what had come before receiving was stopped."""
        try:
            data = self._receive_nowait(_READ_SIZE)
        except trio.BrokenResourceError:
            return b""
        if data is None:
            raise ChannelClosedError("no further requests are taken", endpoint=self.endpoint)
        return data

    def send_nowait(self, payloads: Sequence[bytes]) -> bool:
        """Hand over what the system takes at once; see :meth:`Channel.send_nowait`."""
        self._check_open()
        parts = self._encoder.parts(payloads)
        size = sum(map(len, parts))
        if size <= _MOST_TO_COPY:
            parts = [b"".join(parts)]
        if self._unsent:
            self._unsent += parts
        else:
            try:
                sent = self._send_nowait(parts[0]) if len(parts) == 1 else self._send_parts_nowait(parts)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                raise self._not_sent(exc) from exc
            if sent:
                self._sends_at_once = True
            if sent == size:
                self._count_sent(len(payloads), size)
                return True
            self._unsent = _without(sent, parts)
        self._frames_unsent += len(payloads)
        self._bytes_unsent += size
        return False

    def _count_sent(self, frames: int, size: int) -> None:
        # Before anyone else runs: who sees the answer sees the count.
        self.traffic.frames_sent += frames
        self.traffic.bytes_sent += size

    async def flush(self) -> None:
        """Wait until all is handed over; see :meth:`Channel.flush`."""
        self._check_open()
        if not self._unsent:
            await trio.lowlevel.checkpoint()
            return
        with trio.CancelScope(deadline=trio.current_time() + self._write_timeout_ms / 1000) as wait:
            try:
                while self._unsent and await self._poll_out():
                    pass
                for part in self._unsent:
                    await self._stream.send_all(part)
                self._unsent = []
                self._count_sent(self._frames_unsent, self._bytes_unsent)
                self._frames_unsent = self._bytes_unsent = 0
            except trio.Cancelled:
                await self._break()
                raise
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                raise self._not_sent(exc) from exc
        if wait.cancelled_caught:
            raise WriteTimeoutError(
                f"timed out handing over a message, the limit write_timeout_ms is {self._write_timeout_ms}",
                endpoint=self.endpoint,
                hint="see whether the peer is stuck: it does not read",
            )

    async def _poll_out(self) -> bool:
        """Try a few times, like :meth:`_read`, whether there is room by now; return whether there was."""
        if self._sends_at_once and self._looks:
            give_up = trio.current_time() + self._longest_poll
            for _ in range(self._looks):
                await trio.lowlevel.checkpoint()
                sent = self._send_parts_nowait(self._unsent)
                if sent:
                    self._unsent = _without(sent, self._unsent)
                    return True
                if trio.current_time() > give_up:
                    break
        return False

    def _not_sent(self, exc: Exception) -> ChannelError:
        if isinstance(exc, trio.ClosedResourceError):
            return self._was_closed()
        return PeerClosedError(
            "the peer closed the connection before it took the whole message",
            endpoint=self.endpoint,
            hint="connect again",
        )

    def check(self, payload: bytes) -> None:
        """Raise if this payload cannot be sent; see :meth:`Channel.check`."""
        self._encoder.check(len(payload))

    async def wait_peer_gone(self) -> None:
        """Return once nobody will read what is sent; see :meth:`Channel.wait_peer_gone`."""
        while not self._at_eof and not self._decoder.is_full:
            try:
                data = await self._stream.receive_some(_READ_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if data:
                self._decoder.feed(data)
            else:
                self._at_eof = True
        if self._at_eof and self._peer_is_gone():
            await trio.lowlevel.checkpoint()
            return
        # Half closed, it waits for its answer; or it sent so much ahead that no more may be read.
        await trio.sleep_forever()

    def is_quiet(self) -> bool:
        """Return whether it may be used again; see :meth:`Channel.is_quiet`."""
        idle = not (self._closed or self._at_eof or self._receiving_stopped or self._decoder.buffered)
        return idle and self._is_quiet()

    def stop_receiving(self) -> None:
        """Begin no further frame; see :meth:`Channel.stop_receiving`."""
        self._receiving_stopped = True
        if self._wait is not None:
            self._wait.cancel()

    def close_nowait(self) -> bool:
        """Close the connection without a wait, if its stream can; see :meth:`Channel.close_nowait`."""
        self._closed = True
        return self._close_nowait()

    async def aclose(self) -> None:
        """Close the connection at once. Never raises but for cancellation, and closes even then."""
        await self._break()
        await trio.lowlevel.checkpoint()

    async def _break(self) -> None:
        if not self.close_nowait():
            await close_at_once(self._stream)

    def _check_open(self) -> None:
        if self._closed:
            raise self._was_closed()

    def _was_closed(self) -> ChannelClosedError:
        return ChannelClosedError("this connection was closed", endpoint=self.endpoint, hint="open a new one")


def _without(sent: int, parts: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    """Return what is left of some parts once so many of their bytes are sent."""
    for index, part in enumerate(parts):
        if sent < len(part):
            return [memoryview(part)[sent:], *parts[index + 1 :]]
        sent -= len(part)
    return []


async def close_at_once(resource: trio.abc.AsyncResource) -> None:
    """Close without grace, and raise nothing; for ``finally`` and ``except`` blocks.

    :func:`trio.aclose_forcefully` raises Cancelled where an outer scope is cancelled, too, and that would
    take the place of the exception on its way: a KeyboardInterrupt, for one, would be lost.
    """
    if isinstance(resource, Channel | LocalStream) and resource.close_nowait():
        return  # and no scope: they were a fifth of what it costs to connect, call once and close
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        await resource.aclose()


def too_late(limit_ms: int, endpoint: str, *, in_frame: bool) -> ReadTimeoutError:
    """Return the error of a wait for a frame, or for the rest of one, that has taken too long."""
    doing = "for the rest of a frame" if in_frame else "for a frame to begin"
    return ReadTimeoutError(
        f"timed out waiting {doing}, the limit read_timeout_ms is {limit_ms}",
        endpoint=endpoint,
        hint="see whether the peer is stuck or overloaded, or raise read_timeout_ms",
    )


class FramedChannelListener(trio.abc.Listener[Channel]):
    """Gives a :class:`FramedChannel` for each connection of a listener of local streams.

    Args:
        listener: where connections come from. It is owned, and closed with this one.
        config: for every channel.
    """

    def __init__(self, listener: trio.abc.Listener[LocalStream], config: IpcConfig) -> None:
        self._listener = listener
        self._config = config

    async def accept(self) -> Channel:
        """Wait for the next connection; raises what the wrapped listener raises."""
        return framed(await self._listener.accept(), self._config)

    async def aclose(self) -> None:
        """Close the listener and remove its endpoint."""
        await self._listener.aclose()


def framed(stream: LocalStream, config: IpcConfig) -> FramedChannel:
    """Return a channel over a local stream, which it owns."""
    return FramedChannel(stream, config, endpoint=stream.endpoint, peer=stream.peer)
