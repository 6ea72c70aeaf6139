"""Endpoints in memory: what a Unix socket does, without a file, a system call or a real clock.

A :class:`MemoryStream` behaves as a connected Unix stream socket on every system, down to what its peer
sees after a close; its buffer is bounded, so that a peer that does not read is felt. Everything happens in
one Trio program, so a mock clock rules all there is. This module must never be kinder than a socket: a test
that passes here and fails there is its defect.
"""

from __future__ import annotations

import copy
import operator
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from trio_ipc.channel import Channel, FramedChannelListener, framed
from trio_ipc.config import IpcConfig
from trio_ipc.endpoint import endpoint_problem
from trio_ipc.errors import (
    ConnectError,
    ConnectTimeoutError,
    EndpointInUseError,
    ServerNotFoundError,
    ServerRefusedError,
)
from trio_ipc.transports import LocalStream, PeerCredentials, PeerPolicy

from .endpoints import IpcEndpoint, StreamWrapper

#: Bytes that one side of a stream takes before its sender waits. A Unix socket takes some 200 KiB.
BUFFER_BYTES: Final = 65_536

#: Connections that wait to be accepted before connecting waits, as transports/unix.py asks for.
BACKLOG: Final = 128


def _nothing() -> None:
    pass


class MemoryStream(LocalStream, trio.abc.HalfCloseableStream):
    """One end of a connection in memory. Made by :func:`memory_streams` or a :class:`MemoryEndpoint`.

    Its methods do, raise and are cancelled as those of a Unix socket's stream.

    Args:
        endpoint: what it was reached by.
        peer: who is said to be at the other end.
        buffer_bytes: how many bytes it takes before its peer's sending waits.

    Attributes:
        endpoint, peer: as given.
        on_close: called when this end is closed, once; for tests that count what is open.
    """

    def __init__(self, endpoint: str, peer: PeerCredentials, buffer_bytes: int = BUFFER_BYTES) -> None:
        if buffer_bytes < 1:
            raise ValueError(f"buffer_bytes must be at least 1, not {buffer_bytes}")
        self.endpoint = endpoint
        self.peer = peer
        self.on_close: Callable[[], None] = _nothing
        self._capacity = buffer_bytes
        self._arrived = bytearray()
        self._closed = False
        self._eof_sent = False
        self._eof_arrived = False
        self._peer_closed = False
        self._reset = False
        self._sending = False
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()
        self._other = self

    def _connect(self, other: MemoryStream) -> None:
        self._other, other._other = other, self

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes and return them; ``b""`` once the peer has closed its sending side.

        Args:
            max_bytes: how many bytes at the most; None for as many as there are.

        Raises:
            trio.BrokenResourceError: the peer closed with bytes of ours unread. Once, as a socket does.
            trio.BusyResourceError: another task is receiving.
            trio.ClosedResourceError: this stream was closed, before or meanwhile.

        Cancellation loses no bytes.
        """
        if max_bytes is None:
            max_bytes = self._capacity
        elif operator.index(max_bytes) < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        await trio.lowlevel.checkpoint_if_cancelled()
        data = self.receive_nowait(max_bytes)
        if data is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return data
        while True:
            if self._readers:
                raise trio.BusyResourceError("another task is receiving on this stream")
            await self._readers.park()
            data = self.receive_nowait(max_bytes)
            if data is not None:
                return data

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        """Return the bytes that are there (``b""`` at end of file), or None if that means to wait."""
        self._check_open()
        if self._arrived:
            data = bytes(self._arrived[:max_bytes])
            del self._arrived[:max_bytes]
            self._other._writers.unpark_all()
            return data
        if self._reset:
            self._reset = False
            raise trio.BrokenResourceError("the connection is broken: the peer closed with bytes unread")
        return b"" if self._eof_arrived else None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Put all of the data into the peer's buffer, as it makes room.

        Raises:
            trio.BrokenResourceError: the peer has closed.
            trio.BusyResourceError: another task is sending.
            trio.ClosedResourceError: this stream was closed, or its sending side was.

        Cancellation may leave a part sent; the caller must then close.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        sent = self.send_nowait(data)
        if sent == len(data):
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        with memoryview(data) as view:
            while sent < len(view):
                await self.wait_send_all_might_not_block()
                with view[sent:] as rest:
                    sent += self.send_nowait(rest)

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Put into the peer's buffer what it has room for, and return how many bytes that was."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if self._eof_sent:
            raise trio.ClosedResourceError("the sending side was closed by send_eof()")
        self._check_open()
        if self._peer_closed:
            raise trio.BrokenResourceError("the connection is broken: the peer has closed")
        sent = min(len(data), self._room())
        if sent:
            self._other._arrived += memoryview(data)[:sent]
            self._other._readers.unpark_all()
        return sent

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room for some bytes; see :class:`trio.abc.SendStream`."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._check_open()
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            while not (self._closed or self._peer_closed or self._eof_sent or self._room()):
                await self._writers.park()
        finally:
            self._sending = False
        self._check_open()

    async def send_eof(self) -> None:
        """Close the sending side; the peer reads end of file and may still answer. Idempotent."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        await trio.lowlevel.checkpoint()
        if self._eof_sent:
            return
        self._check_open()
        self._eof_sent = True
        self._other._eof_arrived = True
        self._other._readers.unpark_all()

    def peer_is_gone(self) -> bool:
        """Return whether nobody will read what is sent, or both have closed their sending sides."""
        both = self._eof_sent and self._eof_arrived
        return self._closed or self._peer_closed or self._reset or both

    def is_quiet(self) -> bool:
        """Return whether nothing has come: no bytes, no end of file, no error."""
        return not (self._closed or self._arrived or self._eof_arrived or self._reset)

    async def aclose(self) -> None:
        """Close both directions at once. A task that waits in this stream wakes. Idempotent."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close_nowait(self) -> bool:
        """Close without a wait; see :meth:`LocalStream.close_nowait`."""
        self.close()
        return True

    def close(self) -> None:
        """Close as :meth:`aclose` does, from a function that can't wait."""
        if self._closed:
            return
        self._closed = True
        other = self._other
        other._peer_closed = other._eof_arrived = True
        other._reset = bool(self._arrived)
        self._arrived.clear()
        for stream in (self, other):
            stream._readers.unpark_all()
            stream._writers.unpark_all()
        self.on_close()

    def _room(self) -> int:
        return self._other._capacity - len(self._other._arrived)

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")


def memory_streams(
    endpoint: str = "memory",
    *,
    buffer_bytes: int = BUFFER_BYTES,
    client: PeerCredentials | None = None,
    server: PeerCredentials | None = None,
) -> tuple[MemoryStream, MemoryStream]:
    """Return the two ends of a new connection: the client's and the server's.

    Args:
        endpoint: what both call it.
        buffer_bytes: what either end takes before the other's sending waits.
        client: whom the server's end sees; this process's credentials if None.
        server: whom the client's end sees; this process's credentials if None.
    """
    near = MemoryStream(endpoint, server or PeerCredentials.of_this_process(), buffer_bytes)
    far = MemoryStream(endpoint, client or PeerCredentials.of_this_process(), buffer_bytes)
    near._connect(far)
    return near, far


class MemoryListener(trio.abc.Listener[MemoryStream]):
    """Accepts connections in memory. Made by :meth:`MemoryEndpoint.listen_streams`.

    Attributes:
        endpoint: its name.
    """

    def __init__(self, owner: MemoryEndpoint) -> None:
        self.endpoint = owner.path
        self._owner = owner
        self._closed = False
        self._waiting: deque[MemoryStream | Exception] = deque()
        self._acceptors = trio.lowlevel.ParkingLot()

    async def accept(self) -> MemoryStream:
        """Wait for the next client.

        Raises:
            OSError: what :meth:`MemoryEndpoint.fail_accept` was given.
            trio.BusyResourceError: another task is accepting.
            trio.ClosedResourceError: this listener was closed, before or meanwhile.

        Cancellation loses no client.
        """
        if self._acceptors:
            raise trio.BusyResourceError("another task is accepting on this listener")
        await trio.lowlevel.checkpoint()
        while not (self._waiting or self._closed):
            await self._acceptors.park()
        if self._closed:
            raise trio.ClosedResourceError("this listener was closed")
        accepted = self._waiting.popleft()
        self._owner._changed()
        if isinstance(accepted, Exception):
            raise accepted
        return accepted

    async def aclose(self) -> None:
        """Stop listening. Who was not accepted yet is closed, as a socket's backlog is. Idempotent."""
        self._close()
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for stream in self._waiting:
            if isinstance(stream, MemoryStream):
                stream.close()
        self._waiting.clear()
        self._acceptors.unpark_all()
        self._owner._listener_closed(self)

    def _offer(self, offered: MemoryStream | Exception) -> None:
        self._waiting.append(offered)
        self._acceptors.unpark_all()

    @property
    def _backlog_used(self) -> int:
        return len(self._waiting)


class MemoryEndpoint(IpcEndpoint):
    """An endpoint in memory: servers listen at it and clients connect to it, in one Trio program.

    Args:
        name: what it is called. It also is the ``endpoint_path`` of its settings; a bare name becomes one
            that this system takes for a path.
        buffer_bytes: what either end of a connection takes before the other's sending waits.
        backlog: connections that may wait to be accepted before connecting waits.
        client: whom servers see; this process's credentials if None.
        server: whom clients see; this process's credentials if None.

    Attributes:
        path: its name as ``endpoint_path`` has it.
        client, server: as given. A change holds for the connections made from then on.
        tries: how often somebody has tried to connect.
    """

    def __init__(
        self,
        name: str = "memory",
        *,
        buffer_bytes: int = BUFFER_BYTES,
        backlog: int = BACKLOG,
        client: PeerCredentials | None = None,
        server: PeerCredentials | None = None,
    ) -> None:
        self.path = name if endpoint_problem(name) is None else f"/{name}"
        self.client = client or PeerCredentials.of_this_process()
        self.server = server or PeerCredentials.of_this_process()
        self.tries = 0
        self._buffer_bytes = buffer_bytes
        self._backlog = backlog
        self._listener: MemoryListener | None = None
        self._refusal: ConnectError | None = None
        self._hangs = False
        self._connectors = trio.lowlevel.ParkingLot()

    # --- What a test may do to it ---

    def refuse(self, error: ConnectError | None = None) -> None:
        """Let connecting fail from now on, until :meth:`admit`. Connections that exist stay.

        Args:
            error: what it fails by; :exc:`~trio_ipc.ServerRefusedError` if None, as if a server had died.
        """
        self._refusal = error or ServerRefusedError(
            "connection refused: nobody listens at this endpoint", endpoint=self.path, hint="start the server"
        )
        self._changed()

    def hang(self) -> None:
        """Let connecting wait from now on, until :meth:`admit`, as at a server that is stopped."""
        self._hangs = True

    def admit(self) -> None:
        """Let connecting succeed again, also for those who wait in :meth:`hang`."""
        self._refusal, self._hangs = None, False
        self._changed()

    def fail_accept(self, error: OSError) -> None:
        """Let the server's next accept raise this once, as one without descriptors does (EMFILE).

        Raises:
            ServerNotFoundError: nobody listens.
        """
        self._listening()._offer(error)

    # --- What servers and clients do with it ---

    async def listen_streams(self, peers: PeerPolicy | None = None) -> MemoryListener:
        """Listen here.

        Raises:
            EndpointInUseError: somebody does already.
        """
        del peers  # as with a Unix socket, judged by who accepts
        await trio.lowlevel.checkpoint()
        if self._listener is not None:
            raise EndpointInUseError(
                "another server listens at this endpoint", endpoint=self.path, hint="stop it first"
            )
        self._listener = MemoryListener(self)
        self._changed()
        return self._listener

    async def connect(self) -> MemoryStream:
        """Connect. The caller sets the deadline.

        Raises:
            ServerNotFoundError: nobody listens.
            ConnectError: what :meth:`refuse` was given.

        Cancellation leaves nothing open.
        """
        self.tries += 1
        await trio.lowlevel.checkpoint()
        while self._hangs or (self._refusal is None and self._listening()._backlog_used >= self._backlog):
            await self._connectors.park()
        if self._refusal is not None:
            # A new one each time: what raises it adds its traceback.
            raise copy.copy(self._refusal)
        near, far = memory_streams(
            self.path, buffer_bytes=self._buffer_bytes, client=self.client, server=self.server
        )
        self._listening()._offer(far)
        return near

    async def listen(self, config: IpcConfig, peers: PeerPolicy | None = None) -> trio.abc.Listener[Channel]:
        """Listen here for channels of these settings; raises as :meth:`listen_streams` does."""
        return FramedChannelListener(await self.listen_streams(peers), config)

    async def open_channel(self, config: IpcConfig, *, wrap: StreamWrapper | None = None) -> Channel:
        """Connect, as the client of :func:`trio_ipc.open_client` does.

        Args:
            config: the channel's settings.
            wrap: put around the stream, such as :meth:`trio_ipc.testing.Faults.wrap`.

        Raises:
            ConnectError: as :meth:`connect` raises it.
            ConnectTimeoutError: ``accept_timeout_ms`` went by.
        """
        with trio.move_on_after(config.accept_timeout_ms / 1000):
            stream: LocalStream = await self.connect()
            return framed(stream if wrap is None else wrap(stream), config)
        raise ConnectTimeoutError(
            f"the server did not take the connection in time, the limit accept_timeout_ms is "
            f"{config.accept_timeout_ms}",
            endpoint=self.path,
            hint="the endpoint in memory hangs, or its backlog is full",
        )

    def _listening(self) -> MemoryListener:
        if self._listener is None:
            raise ServerNotFoundError(
                "no server: nobody listens at this endpoint in memory",
                endpoint=self.path,
                hint="start the server first, at the same MemoryEndpoint",
            )
        return self._listener

    def _changed(self) -> None:
        self._connectors.unpark_all()

    def _listener_closed(self, listener: MemoryListener) -> None:
        if self._listener is listener:
            self._listener = None
            self._changed()

    def __repr__(self) -> str:
        """Give its name."""
        return f"MemoryEndpoint({self.path!r})"


class MemoryNetwork:
    """Several endpoints in memory, found by their names; for clients of several collectors.

    ``open_resilient_client(…, connect=network.open_channel)`` connects by each endpoint's
    ``endpoint_path``.
    """

    def __init__(self) -> None:
        self._endpoints: dict[str, MemoryEndpoint] = {}

    def endpoint(self, name: str) -> MemoryEndpoint:
        """Return the endpoint of this name, a new one if there is none yet."""
        made = MemoryEndpoint(name)
        return self._endpoints.setdefault(made.path, made)

    def add(self, endpoint: MemoryEndpoint) -> None:
        """Add an endpoint that was made with settings of its own.

        Raises:
            ValueError: there is one of that name.
        """
        if endpoint.path in self._endpoints:
            raise ValueError(f"there is an endpoint {endpoint.path} already")
        self._endpoints[endpoint.path] = endpoint

    async def open_channel(self, config: IpcConfig) -> Channel:
        """Connect to the endpoint that ``config.endpoint_path`` names.

        Raises:
            ServerNotFoundError: there is none of that name, or nobody listens.
            ConnectError: as :meth:`MemoryEndpoint.open_channel` raises it.
        """
        return await self.endpoint(config.endpoint_path).open_channel(config)
