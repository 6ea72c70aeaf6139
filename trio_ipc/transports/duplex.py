"""What a channel needs of a connection: one small interface, and the public stream made of it once.

A platform says how to read and write without a wait, how to wait, and what has become of its peer.
Everything that :class:`trio.abc.Stream` promises beyond that is built here, for all of them. This module must
never import a platform, and never know what the bytes mean.
"""

from __future__ import annotations

import abc
import enum
from typing import TYPE_CHECKING, Final, TypeVar

import trio

if TYPE_CHECKING:
    from types import TracebackType

    from .credentials import PeerCredentials

_StreamT_co = TypeVar("_StreamT_co", bound="LocalStream", covariant=True)

#: Bytes asked for by one read. The allocator serves this from its heap; from 128 KiB on it maps and
#: unmaps memory for each read, which was measured to add 75 µs to a round trip.
READ_SIZE: Final = 65_536


class PeerState(enum.Enum):
    """What can be seen of the peer without taking anything from the connection."""

    OPEN = "open"
    """It is there, and nothing of it waits to be read."""
    HAS_INPUT = "has input"
    """Something of it waits to be read. It may have closed behind that, where the system does not tell."""
    HALF_CLOSED = "half closed"
    """It sends no more, and may still read."""
    GONE = "gone"
    """Nobody will read what is sent, or this side was closed."""


class Duplex(abc.ABC):
    """A connection as bytes, by what can be done without a wait and what can be waited for.

    Attributes:
        writes_at_once: whether :meth:`write` ever takes anything. Where it does not, there is no use in
            trying it again before waiting.
    """

    writes_at_once: bool = True

    @abc.abstractmethod
    def read(self, max_bytes: int) -> bytes | bytearray | None:
        """Return bytes that are there, ``b""`` at end of file, or None if that means to wait.

        Raises:
            trio.BrokenResourceError: the peer closed with bytes of ours unread, or the system failed.
            trio.ClosedResourceError: this side was closed.
        """

    @abc.abstractmethod
    async def wait_readable(self) -> None:
        """Wait until :meth:`read` may have something. Looks for nothing first.

        Raises:
            trio.BusyResourceError: another task waits here.
            trio.ClosedResourceError: this side was closed, before or meanwhile.

        Cancellation loses no bytes.
        """

    @abc.abstractmethod
    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Hand over what the system takes without a wait, and return how many bytes that was.

        A connection that cannot write without a wait takes nothing.

        Raises:
            trio.BrokenResourceError: the peer has closed.
            trio.ClosedResourceError: this side was closed, or its sending side was.
        """

    def write_both(self, first: bytes, second: bytes) -> int:
        """Hand over two pieces as :meth:`write` does one, without joining them where that can be spared."""
        return self.write(first + second)

    @abc.abstractmethod
    async def write_some(self, data: bytes | bytearray | memoryview) -> int:
        """Wait for room, hand over a part or all of the data, and return how many bytes that was, from 1.

        Raises what :meth:`write` raises.

        Cancellation may leave a part handed over, nobody knows how much: the caller must close.
        """

    @abc.abstractmethod
    def peer_state(self) -> PeerState:
        """Return what has become of the peer. Takes nothing, and does not block."""

    @abc.abstractmethod
    def close(self) -> bool:
        """Close both directions without a wait, and return whether that could be done. Idempotent.

        Tasks that wait in this connection wake up. A connection that cannot be closed like this is closed by
        ``aclose()`` alone.
        """


class OneAtATime:
    """Tells a second task that another one is there already, as Trio's own streams do.

    Args:
        doing: what the first one does, for the error.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._busy = False

    def __enter__(self) -> None:
        if self._busy:
            raise trio.BusyResourceError(f"another task is {self._doing}")
        self._busy = True

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._busy = False


class DuplexStream(Duplex, trio.abc.Stream):
    """A :class:`Duplex` of which this class makes a :class:`trio.abc.Stream`, for any program of Trio's."""

    def __init__(self) -> None:
        self._receiving = OneAtATime("receiving on this stream")
        self._sending = OneAtATime("sending on this stream")

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Wait for bytes and return them; ``b""`` once the peer has closed its sending side.

        Args:
            max_bytes: how many bytes at the most, ``READ_SIZE`` if None.

        Raises:
            trio.BrokenResourceError: the peer closed with bytes of ours unread, or the system failed.
            trio.BusyResourceError: another task is receiving.
            trio.ClosedResourceError: this stream was closed, before or meanwhile.

        Cancellation loses no bytes.
        """
        if max_bytes is None:
            max_bytes = READ_SIZE
        elif not isinstance(max_bytes, int):
            raise TypeError(f"max_bytes must be an int, not {max_bytes!r}")
        elif max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        await trio.lowlevel.checkpoint_if_cancelled()
        with self._receiving:
            data = self.read(max_bytes)
            if data is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return data
            while data is None:
                await self.wait_readable()
                data = self.read(max_bytes)
            return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Hand all of the data over to the system.

        Raises:
            trio.BrokenResourceError: the peer has closed.
            trio.BusyResourceError: another task is sending.
            trio.ClosedResourceError: this stream was closed, or its sending side was.

        Cancellation may leave a part sent; the caller must then close.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        with self._sending, memoryview(data).cast("B") as view:
            sent = self.write(view)
            if sent == len(view):
                await trio.lowlevel.cancel_shielded_checkpoint()
                return
            while sent < len(view):
                with view[sent:] as rest:
                    sent += await self.write_some(rest)

    async def aclose(self) -> None:
        """Close both directions at once. A task that waits in this stream wakes. Idempotent.

        What was sent may still be read by the peer.

        Cancellation closes all the same.
        """
        self.close()
        await trio.lowlevel.checkpoint()


class LocalStream(DuplexStream):
    """A stream to another process of this machine. A platform implements :class:`Duplex` in it.

    Attributes:
        endpoint: the path or name it was reached by.
        peer: who is at the other end.
    """

    endpoint: str
    peer: PeerCredentials

    def __init__(self, endpoint: str, peer: PeerCredentials) -> None:
        super().__init__()
        self.endpoint = endpoint
        self.peer = peer


class LocalListener(trio.abc.Listener[_StreamT_co]):
    """What gives local streams, so that it can be told from a listener of channels."""


class StreamDuplex(Duplex):
    """Any :class:`trio.abc.Stream` as a connection, for who makes channels of streams that are not local.

    Nothing can be done without a wait, and a peer that leaves is seen only by reading.

    Args:
        stream: the stream, which is owned.
    """

    writes_at_once = False

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._arrived: bytes | bytearray | None = None
        self._ended = False
        self._closed = False

    def read(self, max_bytes: int) -> bytes | bytearray | None:
        """Return what :meth:`wait_readable` has received."""
        self._check_open()
        data = self._arrived
        if data is None or self._ended:
            return data
        self._arrived = data[max_bytes:] or None
        return data[:max_bytes]

    async def wait_readable(self) -> None:
        """Receive something, and keep it for :meth:`read`.

        Cancellation loses what the stream's own ``receive_some()`` loses then.
        """
        self._check_open()
        if self._arrived is None:
            self._arrived = await self._stream.receive_some(READ_SIZE)
            self._ended = not self._arrived
        else:
            await trio.lowlevel.checkpoint()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take nothing: a stream may have to wait."""
        self._check_open()
        return 0

    async def write_some(self, data: bytes | bytearray | memoryview) -> int:
        """Send all of it.

        Cancellation may leave a part sent; the caller must then close.
        """
        await self._stream.send_all(data)
        return len(data)

    def peer_state(self) -> PeerState:
        """Return what reading has told."""
        if self._ended or self._closed:
            return PeerState.GONE
        return PeerState.OPEN if self._arrived is None else PeerState.HAS_INPUT

    def close(self) -> bool:
        """Close nothing: a stream may have to wait."""
        return False

    async def aclose(self) -> None:
        """Close the stream.

        Cancellation closes it by force, as :class:`trio.abc.AsyncResource` has it.
        """
        self._closed = True
        await self._stream.aclose()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
