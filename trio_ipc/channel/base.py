"""The seam of the architecture: whole messages in and out of one connection, each under its deadline.

Server and client know channels and listeners of channels, never sockets; another implementation (the legacy
transport, a channel in memory) takes the default one's place whole. A channel says how it reads, writes and
looks; what deadlines and cancellation do to a frame is decided here, once for all of them. This module must
never know what a payload means.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Final

import trio

from trio_ipc.config import IpcConfig
from trio_ipc.errors import (
    ChannelClosedError,
    PeerClosedError,
    ProtocolError,
    ReadTimeoutError,
    WriteTimeoutError,
)
from trio_ipc.telemetry import Traffic
from trio_ipc.transports import LocalStream, PeerCredentials, PeerState

#: Seconds from which on a deadline that is noticed late says that this process was stopped meanwhile (by a
#: debugger, a frozen container, a suspended machine), and not that its peer was slow. What has come or gone
#: at once then shows that the peer is well, and the time begins anew.
STOPPED: Final = 0.1

#: What is left of a message that was handed over.
NOTHING: Final = memoryview(b"")

#: Bytes that a connection holds by default (net.core.wmem_default; socket(7)), and what each write is counted
#: for besides its own: a small one takes 768 (unix_stream_sendmsg(), Linux 6.18).
_HELD: Final = 212_992
_HELD_FOR_EACH: Final = 768

#: How often to look for the rest of a frame in which the caller's deadline passed: a read takes 64 KiB.
_LATE_LOOKS: Final = 16


class Channel(trio.abc.AsyncResource):
    """Whole payloads in both directions over one connection.

    One task may receive while another sends. A channel is usable only between whole frames: what stops
    a frame part-way (a deadline, a cancellation, an interrupt, an error) closes it.

    Attributes:
        endpoint: the path or name it leads to.
        peer: who is at the other end, or None where nobody can say.
        traffic: where it counts its frames; its owner may put a shared one in its place.
        transport: what telemetry calls the implementation.
        read_timeout: seconds that a frame may take to begin, and again from its first byte to its last.
        write_timeout: seconds that one hand-over may take.
        max_frame_bytes: the largest payload that fits into a frame, in bytes.
    """

    transport: str

    def __init__(self, config: IpcConfig, *, endpoint: str, peer: PeerCredentials | None) -> None:
        self.endpoint = endpoint
        self.peer = peer
        self.traffic: Traffic = Traffic()
        self.read_timeout: float = config.read_timeout_ms / 1000
        self.write_timeout: float = config.write_timeout_ms / 1000
        self.max_frame_bytes: int = config.max_frame_bytes
        # trio.current_time() takes 0.1 µs longer, and would be asked twice for each message.
        self._now = trio.lowlevel.current_clock().current_time

    # --- What an implementation says ---

    @property
    @abc.abstractmethod
    def in_frame(self) -> bool:
        """Whether a part of a frame is in hand, and the rest has to come."""

    @property
    @abc.abstractmethod
    def has_input(self) -> bool:
        """Whether :meth:`receive_nowait` has anything to look at, or an error to raise."""

    @abc.abstractmethod
    def receive_nowait(self, at_most: int) -> list[bytes]:
        """Return whole payloads that came with what was read before, in their order.

        Takes nothing from the connection.

        Args:
            at_most: how many.

        Returns:
            The payloads; fewer, or none, where :meth:`fill` has to read more first.

        Raises:
            ProtocolError: the peer broke the protocol; not before the payloads ahead of that were returned.
                The receiving side is dead; one last payload may be sent to say why.
            ChannelClosedError: the channel was closed.
        """

    @abc.abstractmethod
    async def fill(self, deadline: float | None = None) -> bool:
        """Read more of what the peer sends, for :meth:`receive_nowait`; wait if there is nothing yet.

        Args:
            deadline: until when to wait, on :func:`trio.current_time`'s clock. After it this looks once more:
                the process may have been stopped meanwhile. None for an owner that cancels from outside.

        Returns:
            Whether something came; False only after the deadline.

        Raises:
            PeerClosedError: the peer closed between two frames.
            TruncatedFrameError: it closed inside of one.
            ChannelClosedError: the channel was closed.

        Cancellation loses no bytes, and leaves the channel as it was.
        """

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
            trio.BusyResourceError: another task is in :meth:`flush`. None was sent.
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
    def peer_state(self) -> PeerState:
        """Return what has become of the peer; for use while a request is being handled.

        Does not wait. What has arrived may be read ahead to find out, up to one frame; it is kept. After a
        close by this side the peer is gone, too.
        """

    @abc.abstractmethod
    def is_reusable(self) -> bool:
        """Return whether this connection, idle so far, may be used for another request.

        False if it was closed, if the peer has closed, or if bytes have come that nobody asked for. Does
        not block and takes nothing from the stream. True is no promise: the peer may close right after.
        """

    @abc.abstractmethod
    def close(self) -> bool:
        """Close without a wait, if this channel can; return whether it did. Idempotent.

        Tasks that wait in it wake up.
        """

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Close at once. Raises nothing but cancellation, and closes even then. Idempotent."""

    def look(self) -> bool:
        """Read what is there, without a wait; return whether that was anything. False where it cannot do so.

        What it meets the next :meth:`fill` says.
        """
        return False

    async def keep_time(self) -> None:
        """Keep the deadlines of all that waits in :meth:`fill`, until the channel is closed.

        While this runs a wait needs no cancel scope, and a deadline that passes while nothing has come
        closes the connection. For the owner of a channel who closes it then anyway, in a nursery of its own.
        Returns at once where a channel has no use for it. Raises nothing but cancellation.
        """
        await trio.lowlevel.checkpoint()

    # --- What follows from it ---

    @trio.lowlevel.enable_ki_protection
    async def receive(self, *, deadline: float = math.inf) -> bytes:
        """Wait for the next payload.

        Args:
            deadline: when the caller's time is up, on :func:`trio.current_time`'s clock, if that is before
                the channel's own deadline. What has come by then is returned all the same.

        Raises:
            PeerClosedError: the peer closed between two frames.
            ProtocolError: the peer broke the protocol. The receiving side is dead; one last payload may
                be sent to say why.
            ReadTimeoutError: no frame began within ``read_timeout_ms``, or one did and was not whole
                after as long again.
            trio.TooSlowError: the caller's deadline passed first.
            ChannelClosedError: the channel was closed.
            trio.BusyResourceError: another task is receiving. Not every transport can tell.

        Cancellation between two frames leaves the channel as it was, and so does one that is there from the
        start; inside a frame it closes it.
        """
        in_frame = self.has_input
        if in_frame:
            await trio.lowlevel.checkpoint_if_cancelled()  # which stops no frame: none was begun here
        try:
            if in_frame:
                payloads = self.receive_nowait(1)
                if payloads:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    return payloads[0]
            # From its first byte on a frame has one budget for header and payload together: a peer that drips
            # bytes does not get longer.
            own = self._now() + self.read_timeout
            in_time = await self.fill(min(own, deadline))
            payloads = self.receive_nowait(1)
            if payloads:
                return payloads[0]
            return await self._receive_rest(deadline, own, in_time=in_time, was_in_frame=in_frame)
        except ProtocolError as exc:
            exc.endpoint = self.endpoint
            raise
        except trio.BusyResourceError:
            raise  # the frame is another task's, and goes on
        except BaseException:
            if self.in_frame:
                await close_at_once(self)
            raise

    async def _receive_rest(self, callers: float, own: float, *, in_time: bool, was_in_frame: bool) -> bytes:
        """Go on after a wait that has brought no whole payload, if there is time left."""
        late_looks = _LATE_LOOKS
        while True:
            now, in_frame = self._now(), self.in_frame
            begins_anew = in_frame is not was_in_frame
            if in_time and now >= callers and late_looks:
                late_looks -= 1  # what was there by then may take several reads
            elif not in_time or now >= callers or (own <= now < own + STOPPED and not begins_anew):
                if callers <= own:
                    raise trio.TooSlowError
                raise too_late(self.read_timeout, self.endpoint, in_frame=was_in_frame, peer=self.peer)
            else:
                begins_anew = begins_anew or now >= own  # the process was stopped
            if begins_anew:
                own = now + self.read_timeout
            was_in_frame = in_frame
            in_time = await self.fill(min(own, callers))
            payloads = self.receive_nowait(1)
            if payloads:
                return payloads[0]

    async def send(self, payload: bytes) -> None:
        """Hand over one payload.

        Raises:
            MessageError: the payload is empty or too large. Nothing was sent.
            PeerClosedError: the peer has closed. What it sent before may still be received.
            WriteTimeoutError: it could not be handed over within ``write_timeout_ms``.
            ChannelClosedError: the channel was closed.
            trio.BusyResourceError: another task waits until its own payloads are handed over. Nothing was
                sent.

        A cancellation that is there from the start leaves the channel as it was; one that comes while
        this waits for room closes it.
        """
        await self.send_many((payload,))

    @trio.lowlevel.enable_ki_protection
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


async def close_at_once(resource: trio.abc.AsyncResource) -> None:
    """Close without grace, and raise nothing; for ``finally`` and ``except`` blocks.

    :func:`trio.aclose_forcefully` raises Cancelled where an outer scope is cancelled, too, and that would
    take the place of the exception on its way: a KeyboardInterrupt, for one, would be lost.
    """
    if isinstance(resource, Channel | LocalStream) and resource.close():
        return  # and no scope: they were a fifth of what it costs to connect, call once and close
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        await resource.aclose()


class Held:
    """What may have come before a moment and not been read by then: no more than a connection holds.

    What is read later on may have been sent later. That cannot be told, but counted.
    """

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = _HELD

    def take(self, payloads: Sequence[bytes]) -> None:
        """Count payloads that were received since that moment."""
        self._left -= sum(map(len, payloads)) + len(payloads) * _HELD_FOR_EACH

    def __bool__(self) -> bool:
        """Return whether there may be more."""
        return self._left > 0


# --- Errors that every implementation says alike ---


def too_late(
    limit: float, endpoint: str, *, in_frame: bool, peer: PeerCredentials | None = None
) -> ReadTimeoutError:
    """Return the error of a wait for a frame, or for the rest of one, that has taken ``limit`` seconds."""
    doing = "for the rest of a frame" if in_frame else "for a frame to begin"
    hint = "see whether the peer is stuck or overloaded, or raise read_timeout_ms"
    if peer is not None and peer.still_runs() is False:
        # A process that native code had forked, for one: the connection stays, and nobody answers.
        hint = f"process {peer.pid} has ended, and another one still has its socket: find it by ss -xp"
    return ReadTimeoutError(
        f"timed out waiting {doing}, the limit read_timeout_ms is {limit * 1000:.0f}",
        endpoint=endpoint,
        hint=hint,
    )


def rest_of(data: memoryview, sent: int) -> memoryview:
    """Return what is left of data after so many bytes; of all of it nothing that keeps its memory.

    An empty slice would keep a large message for as long as its connection is idle. The next message would be
    made in other memory, which the core's cache does not have: a call for 1 MiB took 1.5 times as long.
    """
    return data[sent:] if sent < len(data) else NOTHING


def not_taken(limit: float, endpoint: str) -> WriteTimeoutError:
    """Return the error of a message that the peer did not take within ``limit`` seconds."""
    return WriteTimeoutError(
        f"timed out handing over a message, the limit write_timeout_ms is {limit * 1000:.0f}",
        endpoint=endpoint,
        hint="see whether the peer is stuck: it does not read",
    )


def closed_by_peer(endpoint: str, *, sending: bool = False) -> PeerClosedError:
    """Return the error for a peer that has closed between frames, or while something was sent to it."""
    said = "the peer closed the connection"
    return PeerClosedError(
        f"{said} before it took the whole message" if sending else said,
        endpoint=endpoint,
        hint="it is over its connection limit, stopping, or gone: connect again",
    )


def closed_here(endpoint: str) -> ChannelClosedError:
    """Return the error for a channel that this side has closed."""
    return ChannelClosedError("this connection was closed", endpoint=endpoint, hint="open a new one")
