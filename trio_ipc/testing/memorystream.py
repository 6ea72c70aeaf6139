"""One connection in memory: what a Unix socket does, without a file, a system call or a real clock.

A :class:`MemoryStream` behaves as a connected Unix stream socket on every system, down to what its peer sees
after a close, and to how much can be sent before a peer that does not read is felt. This module must never be
kinder than a socket: a test that passes here and fails there is its defect.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from trio_ipc.errors import shown_argument
from trio_ipc.transports import LocalStream, PeerCredentials, PeerState

from .checking import check_whole
from .socketbuffer import SocketBuffer


def _nothing() -> None:
    pass


class _Direction:
    """What is between one end that sends and the other that reads."""

    def __init__(self, buffer_bytes: int | None) -> None:
        self.buffer: SocketBuffer = SocketBuffer(buffer_bytes)
        self.ended: bool = False
        self.reset: bool = False
        self.reader_gone: bool = False
        self.readers: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self.writers: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self.watchers: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()

    def wake_all(self) -> None:
        for lot in (self.readers, self.writers, self.watchers):
            lot.unpark_all()


class MemoryStream(LocalStream, trio.abc.HalfCloseableStream):
    """One end of a connection in memory. Made by :func:`memory_streams` or a :class:`MemoryEndpoint`.

    Its methods do, raise and are cancelled as those of a Unix socket's stream.

    Attributes:
        endpoint: what it was reached by.
        peer: who is said to be at the other end.
        on_close: called when this end is closed, once; for tests that count what is open.
    """

    def __init__(self, endpoint: str, peer: PeerCredentials, inward: _Direction, outward: _Direction) -> None:
        super().__init__(endpoint, peer)
        self.on_close: Callable[[], None] = _nothing
        self._in = inward
        self._out = outward
        self._closed = False
        self._eof_sent = False

    def read(self, max_bytes: int) -> bytes | None:
        """Return bytes that are there; see :meth:`Duplex.read`. A reset is told once, as a socket does."""
        self._check_open()
        if self._in.buffer:
            data = self._in.buffer.take(max_bytes)
            if self._in.buffer.is_writable:
                self._in.writers.unpark_all()
            return data
        if self._in.reset:
            self._in.reset = False
            raise trio.BrokenResourceError("the connection is broken: the peer closed with bytes unread")
        return b"" if self._in.ended else None

    async def wait_readable(self) -> None:
        """Wait until there is something to read; see :meth:`Duplex.wait_readable`.

        Cancellation loses no bytes.
        """
        self._check_open()
        if self._in.readers:
            raise trio.BusyResourceError("another task is receiving on this stream")
        if self._in.buffer or self._in.reset or self._in.ended:
            await trio.lowlevel.checkpoint()
        else:
            await self._in.readers.park()
        self._check_open()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Put into the buffer what it has room for; see :meth:`Duplex.write`."""
        if self._eof_sent:
            raise trio.ClosedResourceError("the sending side was closed by send_eof()")
        self._check_open()
        if self._out.reader_gone:
            raise trio.BrokenResourceError("the connection is broken: the peer has closed")
        sent = self._out.buffer.put(data)
        if sent:
            self._out.readers.unpark_all()
        return sent

    async def write_some(self, data: bytes | bytearray | memoryview) -> int:
        """Wait for room, and put into it what fits; see :meth:`Duplex.write_some`.

        Cancellation hands over nothing.
        """
        while True:
            await self._wait_for_room()
            sent = self.write(data)
            if sent:
                return sent

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room for some bytes; see :class:`trio.abc.SendStream`.

        Cancellation changes nothing.
        """
        with self._sending:
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        self._check_open()
        await trio.lowlevel.checkpoint()
        while not (self._is_gone or self._out.buffer.is_writable):  # after send_eof() as before it
            await self._out.writers.park()
        self._check_open()

    async def send_eof(self) -> None:
        """Close the sending side; the peer reads end of file and may still answer. Idempotent.

        Cancellation leaves the sending side open.
        """
        with self._sending:
            await trio.lowlevel.checkpoint()
            if self._eof_sent:
                return
            self._check_open()
            self._eof_sent = self._out.ended = True
            self._out.wake_all()
            # If both sides have sent it, the connection is over.
            self._in.watchers.unpark_all()
            self._in.writers.unpark_all()

    def peer_state(self) -> PeerState:
        """Return what has become of the peer; see :meth:`Duplex.peer_state`."""
        if self._is_gone:
            return PeerState.GONE
        if self._in.buffer:
            return PeerState.HAS_INPUT
        return PeerState.HALF_CLOSED if self._in.ended else PeerState.OPEN

    async def wait_until_gone(self) -> None:
        """Wait until the peer is gone as :meth:`peer_state` has it.

        Cancellation changes nothing.
        """
        await trio.lowlevel.checkpoint()
        while not self._is_gone:
            await self._in.watchers.park()

    @property
    def _is_gone(self) -> bool:
        return self._closed or self._out.reader_gone or (self._eof_sent and self._in.ended)

    def close(self) -> bool:
        """Close both directions at once. A task that waits in this stream wakes. Idempotent."""
        self._close(reset=bool(self._in.buffer))
        return True

    def reset(self) -> None:
        """Close as a socket does that has bytes unread, even if there are none: the peer sees a reset."""
        self._close(reset=True)

    def _close(self, *, reset: bool) -> None:
        if self._closed:
            return
        self._closed = self._in.reader_gone = self._out.ended = True
        self._in.buffer.clear()
        self._out.reset = reset
        self._in.wake_all()
        self._out.wake_all()
        self.on_close()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")


def check_credentials(name: str, value: object) -> None:
    """Raise if these are no credentials, nor None.

    Raises:
        TypeError: they are something else.
    """
    if not isinstance(value, PeerCredentials | None):
        raise TypeError(f"{name} is {shown_argument(value)}, must be PeerCredentials or None")


def memory_streams(
    endpoint: str = "memory",
    *,
    buffer_bytes: int | None = None,
    client: PeerCredentials | None = None,
    server: PeerCredentials | None = None,
) -> tuple[MemoryStream, MemoryStream]:
    """Return the two ends of a new connection: the client's and the server's.

    Args:
        endpoint: what both call it.
        buffer_bytes: how many bytes either end takes before the other's sending waits, if that is less than
            a socket takes; None for what a socket takes.
        client: whom the server's end sees; this process's credentials if None.
        server: whom the client's end sees; this process's credentials if None.

    Raises:
        TypeError, ValueError: an argument can't be.
    """
    if not isinstance(endpoint, str):
        raise TypeError(f"endpoint is {shown_argument(endpoint)}, must be a str")
    check_whole("buffer_bytes", buffer_bytes, 1, optional=True)
    check_credentials("client", client)
    check_credentials("server", server)
    to_server, to_client = _Direction(buffer_bytes), _Direction(buffer_bytes)
    near = MemoryStream(endpoint, server or PeerCredentials.of_this_process(), to_client, to_server)
    far = MemoryStream(endpoint, client or PeerCredentials.of_this_process(), to_server, to_client)
    return near, far
