"""Unix sockets for the legacy transport: what waits is done by :class:`trio.SocketStream` and Trio's sockets.

How a socket is made and reached at its path, which is what security depends on, both transports leave to
:mod:`trio_ipc.transports.unix_binding`. This module must never know what a payload means.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import sys
from typing import Final

import trio

from trio_ipc.channel import Channel
from trio_ipc.config import IpcConfig
from trio_ipc.legacy.channel import LegacyChannel
from trio_ipc.legacy.frames import load_checksums
from trio_ipc.legacy.listener import ConnectionCount, LegacyListener
from trio_ipc.logs import Log
from trio_ipc.transports import (
    Detached,
    EndpointState,
    PeerCredentials,
    PeerPolicy,
    PeerState,
    forks,
    unix_binding,
)
from trio_ipc.transports.attempts import until_made
from trio_ipc.transports.credentials import peer_credentials

assert sys.platform != "win32", "for Unix only"  # noqa: S101  # mypy skips the rest elsewhere

_log = Log(__name__)

#: So that a peer that is gone is an error and no signal (send(2)).
_NO_SIGNAL: Final = getattr(socket, "MSG_NOSIGNAL", 0)


class SocketChannel(LegacyChannel):
    """A channel over a connected Unix stream socket.

    Args:
        sock: a connected socket. The channel owns it, and makes it non-blocking.
        count: of the listener that accepted it, if one did.
    """

    def __init__(
        self,
        sock: socket.socket,
        config: IpcConfig,
        *,
        endpoint: str,
        peer: PeerCredentials | None,
        count: ConnectionCount | None = None,
    ) -> None:
        super().__init__(config, endpoint=endpoint, peer=peer, count=count)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        # For what Trio's stream cannot do: whatever is done without a wait.
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def _read_now(self, at_most: int) -> bytes | None:
        try:
            return self._sock.recv(at_most)
        except BlockingIOError:
            return None
        except OSError as exc:
            if exc.errno == errno.EBADF:
                raise trio.ClosedResourceError from exc
            return b""

    async def _read(self, at_most: int) -> bytes:
        try:
            return bytes(await self._stream.receive_some(at_most))
        except trio.BrokenResourceError:
            return b""

    def _write(self, data: memoryview) -> int:
        try:
            return self._sock.send(data, _NO_SIGNAL)
        except BlockingIOError:
            return 0
        except OSError as exc:
            if exc.errno == errno.EBADF:
                raise trio.ClosedResourceError from exc
            raise trio.BrokenResourceError(f"the connection is broken: {exc.strerror}") from exc

    async def _wait_writable(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    def peer_state(self) -> PeerState:
        """Return what has become of the peer; see :meth:`Channel.peer_state`. Reads nothing ahead.

        POLLHUP is set for a stream socket only when both directions are down (poll(2)); after end of file
        alone the peer may wait for a response.
        """
        if self._closed:
            return PeerState.GONE
        found = sum(events for _, events in self._poll.poll(0))
        if found & (select.POLLHUP | select.POLLERR):
            return PeerState.GONE
        if not found:
            return PeerState.OPEN
        try:
            return PeerState.HAS_INPUT if self._sock.recv(1, socket.MSG_PEEK) else PeerState.HALF_CLOSED
        except OSError:
            return PeerState.GONE

    def _close(self) -> None:
        # A child that was forked meanwhile has the descriptor, too (fork(2)); shut down, it is of no use.
        with contextlib.suppress(OSError):  # the peer has closed, and there is nothing left to shut down
            self._sock.shutdown(socket.SHUT_RDWR)
        self._stream.socket.close()


class SocketListener(LegacyListener):
    """Accepts channels. Made by :func:`listen` and :func:`adopt`.

    Not by :class:`trio.SocketListener`, which takes EPERM for the end of one client, and accepts the next at
    once. A security module that forbids to accept leaves the client where it is: that would never rest.

    Args:
        detached: a listening socket, which the listener owns from now on.
        config: for every channel.
    """

    def __init__(self, detached: Detached, config: IpcConfig) -> None:
        super().__init__(detached.endpoint, config)
        self._detached = detached
        self._sock = trio.socket.from_stdlib_socket(detached.socket)

    async def accept(self) -> Channel:
        """Wait for the next client.

        Raises:
            OSError: with EMFILE, ENFILE, ENOBUFS or ENOMEM if the system is short of resources, with EACCES
                or EPERM if a security module forbids it; the caller should wait a moment and go on.
            trio.BusyResourceError: another task is accepting.
            trio.ClosedResourceError: this listener was closed, before or meanwhile, or in a forked child.

        Cancellation loses no client.
        """
        while True:
            self._check_open()
            try:
                accepted, _ = await self._sock.accept()
            except OSError as exc:
                if exc.errno == errno.EBADF:
                    raise trio.ClosedResourceError("this listener was closed") from None
                if exc.errno not in unix_binding.ERRORS_OF_ONE_CLIENT:
                    raise
            else:
                channel = self._channel(accepted)
                if channel is not None:
                    return channel

    @trio.lowlevel.enable_ki_protection
    def _channel(self, accepted: trio.socket.SocketType) -> SocketChannel | None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, accepted.detach())
        forks.keep_from_children(sock)
        try:
            peer = peer_credentials(sock)
        except OSError as exc:
            # It was gone before it could be asked who it is. That costs one client, not the server.
            fields = {"endpoint": self.endpoint}
            _log.info(
                "%s: a client was lost while it was accepted: %s", self.endpoint, exc.strerror, extra=fields
            )
            sock.close()
            return None
        return SocketChannel(sock, self._config, endpoint=self.endpoint, peer=peer, count=self.connections)

    async def aclose(self) -> None:
        """Stop listening and remove the socket file, if it is still this listener's. Idempotent.

        Cancellation closes all the same.
        """
        if self._owns:
            # The file goes first, as long as this socket listens.
            unix_binding.remove(self._detached)
            self.release()
            self._sock.close()
        await trio.lowlevel.checkpoint()

    def detach(self) -> Detached:
        """Return the listening socket; see :meth:`DetachableListener.detach`."""
        self._check_open()
        return self._detached

    def look(self) -> EndpointState:
        """Return what has become of the socket file; see :meth:`DetachableListener.look`."""
        return unix_binding.look(self._detached)


async def connect(config: IpcConfig) -> Channel:
    """Connect to the configured socket. The caller sets the deadline.

    While the server's backlog is full this waits, as long as it may. Otherwise it does what
    :func:`connect_nowait` does.

    Cancellation leaves nothing open.
    """
    return await until_made(lambda: connect_nowait(config))


@trio.lowlevel.enable_ki_protection
def connect_nowait(config: IpcConfig) -> Channel | None:
    """Connect to the configured socket, if that takes no wait, else return None.

    Raises:
        ConnectError: in the precise form that fits; see
            :func:`trio_ipc.transports.unix_binding.connected_nowait`.
    """
    path = config.endpoint_path
    return unix_binding.connected_nowait(
        path, lambda sock: SocketChannel(sock, config, endpoint=path, peer=peer_credentials(sock))
    )


async def listen(config: IpcConfig, peers: PeerPolicy) -> SocketListener:
    """Create the configured socket, for its owner alone from its first instant, and listen.

    The policy does not matter here: ADR-0004 fixes the socket's mode, and a policy only narrows it. See
    :func:`trio_ipc.transports.unix_binding.listening` for errors.

    Cancellation leaves nothing behind but directories.
    """
    unix_binding.warn_of_unreachable(config.endpoint_path, peers, config.socket_group)
    return SocketListener(await unix_binding.listening(config.endpoint_path, config.socket_group), config)


def adopt(detached: Detached, config: IpcConfig) -> SocketListener:
    """Return a listener on what another one hands over."""
    load_checksums(config.crc32_variant)
    return SocketListener(detached, config)
