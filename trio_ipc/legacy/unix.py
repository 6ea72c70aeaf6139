"""Unix sockets for the legacy transport: the socket module's own calls, and waiting by file descriptor.

Each call is tried before anything waits. The same promises as the default's, by code of its own: only the
owner reaches the socket from the instant it exists, a live server's endpoint is never taken over, and what
is no socket is never touched. Which directory may be used, and whose turn it is, both transports ask
:func:`trio_ipc.transports.directories.claimed`. This module must never know what a payload means.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import stat
import sys
import tempfile
from typing import Final

import trio

from trio_ipc.channel import Channel
from trio_ipc.config import IpcConfig
from trio_ipc.endpoint import MAX_PATH_BYTES
from trio_ipc.transports import (
    EndpointState,
    Handover,
    PeerCredentials,
    PeerPolicy,
    TransferableListener,
    directories,
    refusals,
)
from trio_ipc.transports.credentials import peer_credentials

from .channel import ConnectionCount, LegacyChannel
from .frames import checksum_of

assert sys.platform != "win32", "for Unix only"  # noqa: S101  # mypy skips the rest elsewhere

_logger = logging.getLogger(__name__)

_BACKLOG: Final = 128

#: Linux gives a socket file the mode of the unbound socket (unix_bind_bsd() in net/unix/af_unix.c). Other
#: systems give it the umask's, so that it has to be made where nobody looks.
_BIND_HONOURS_FCHMOD: Final = sys.platform == "linux"

#: What accept(2) says of one client that is gone by now. The next one may be well.
_OF_ONE_CLIENT: Final = frozenset({errno.ECONNABORTED, errno.ECONNRESET, errno.EPROTO, errno.ETIMEDOUT})

#: So that a peer that is gone is an error and no signal (send(2)).
_NO_SIGNAL: Final = getattr(socket, "MSG_NOSIGNAL", 0)


class SocketChannel(LegacyChannel):
    """A channel over a connected Unix stream socket.

    Args:
        sock: it is connected and does not block. The channel owns it.
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
        self._sock = sock
        self._unsent: list[memoryview] = []

    def _read_now(self, room: memoryview) -> int | None:
        try:
            return self._sock.recv_into(room)
        except BlockingIOError:
            return None
        except OSError as exc:
            if exc.errno == errno.EBADF:
                raise trio.ClosedResourceError from exc
            return 0  # closed less politely, but just as closed

    async def _wait_readable(self) -> None:
        # A closed socket has no descriptor that could be waited for.
        if self._closed:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_readable(self._sock)

    def _begin_write(self, parts: list[bytes]) -> bool:
        self._unsent = [memoryview(part) for part in parts]
        return self._write_some()

    async def _finish_write(self) -> None:
        while True:
            await trio.lowlevel.wait_writable(self._sock)
            if self._write_some():
                return

    def _write_some(self) -> bool:
        """Hand over what the system takes. Return whether that was the rest."""
        try:
            sent = self._sock.sendmsg(self._unsent, (), _NO_SIGNAL)
        except BlockingIOError:
            return False
        except OSError as exc:
            self._unsent = []
            if exc.errno == errno.EBADF:
                raise trio.ClosedResourceError from exc
            raise trio.BrokenResourceError(f"the connection is broken: {exc.strerror}") from exc
        while self._unsent and sent >= len(self._unsent[0]):
            sent -= len(self._unsent.pop(0))
        if self._unsent:
            self._unsent[0] = self._unsent[0][sent:]
        return not self._unsent

    def _is_gone(self) -> bool:
        # POLLHUP is set for a stream socket only when both directions are down (poll(2)).
        return self._closed or bool(self._poll(0) & (select.POLLHUP | select.POLLERR))

    def _has_nothing(self) -> bool:
        return self._poll(select.POLLIN) == 0

    def _poll(self, events: int) -> int:
        poll = select.poll()
        poll.register(self._sock, events)
        return sum(found for _, found in poll.poll(0))

    def _close(self) -> None:
        self._unsent = []
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()


class SocketListener(TransferableListener[Channel]):
    """Accepts channels. Made by :func:`listen` and :func:`adopt`.

    Args:
        handover: a listening socket, which the listener owns from now on.
        config: for every channel.

    Attributes:
        endpoint: the socket's path.
        connections: how many of its channels are open.
    """

    def __init__(self, handover: Handover, config: IpcConfig) -> None:
        self._handover = handover
        self._sock = handover.socket
        self._config = config
        self._owns = True
        # Not in a child that the host program has forked: that is not the server.
        self._pid = os.getpid()
        self.endpoint = handover.endpoint
        self.connections = ConnectionCount()

    async def accept(self) -> Channel:
        """Wait for the next client.

        Raises:
            OSError: with EMFILE, ENFILE, ENOBUFS or ENOMEM if the system is short of resources, with EACCES
                or EPERM if a security module forbids it; the caller should wait a moment and go on.
            trio.BusyResourceError: another task is accepting.
            trio.ClosedResourceError: this listener was closed, before or meanwhile.

        Cancellation loses no client.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if not self._owns:
                raise trio.ClosedResourceError("this listener was closed")
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)
                continue
            except OSError as exc:
                if exc.errno not in _OF_ONE_CLIENT:
                    raise
                await trio.lowlevel.checkpoint()
                continue
            channel = self._channel(sock)
            await trio.lowlevel.cancel_shielded_checkpoint()
            if channel is not None:
                return channel

    def _channel(self, sock: socket.socket) -> SocketChannel | None:
        try:
            sock.setblocking(False)
            return SocketChannel(
                sock,
                self._config,
                endpoint=self.endpoint,
                peer=peer_credentials(sock),
                count=self.connections,
            )
        except OSError as exc:
            # It was gone before it could be asked who it is. That costs one client, not the server.
            fields = {"endpoint": self.endpoint}
            _logger.info(
                "%s: a client was lost while it was accepted: %s", self.endpoint, exc.strerror, extra=fields
            )
            sock.close()
            return None

    async def aclose(self) -> None:
        """Stop listening and remove the socket file, if it is still this listener's. Idempotent."""
        if self._owns:
            # The file goes first: while this socket listens, no starter takes the path for a dead
            # server's, so what is removed can't be somebody else's new socket.
            if os.getpid() == self._pid:
                _remove(self.endpoint, self._handover.inode)
            self.let_go()
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
        await trio.lowlevel.checkpoint()

    def hand_over(self) -> Handover:
        """Return the listening socket; see :meth:`TransferableListener.hand_over`."""
        if not self._owns:
            raise trio.ClosedResourceError("this listener was closed")
        return self._handover

    def let_go(self) -> None:
        """Be closed, and leave all to the new owner; see :meth:`TransferableListener.let_go`."""
        self._owns = False
        _logger.info(
            "%s: the legacy transport accepts no more; %d of its connections are open",
            self.endpoint,
            self.connections.open,
            extra={"endpoint": self.endpoint, "connections": self.connections.open},
        )

    def look(self) -> EndpointState:
        """Return what has become of the socket file; see :meth:`TransferableListener.look`."""
        return EndpointState.of(self.endpoint, self._handover.inode)


def _remove(path: str, inode: tuple[int, int]) -> None:
    try:
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == inode:
            os.unlink(path)
        else:
            _logger.warning("%s was replaced while it was served; left alone", path, extra={"endpoint": path})
    except FileNotFoundError:
        _logger.warning("%s was removed while it was served", path, extra={"endpoint": path})
    except OSError as exc:
        _logger.warning("%s could not be removed: %s", path, exc.strerror, extra={"endpoint": path})


# --- Connecting ---------------------------------------------------------------------------------------------


async def connect(config: IpcConfig) -> Channel:
    """Connect to the configured socket. The caller sets the deadline.

    Raises:
        ServerNotFoundError: there is no such file.
        ServerRefusedError: nobody listens.
        EndpointPermissionError: the modes of the socket or its directories forbid it.
        ConnectError: any other refusal by the system.

    Cancellation closes the half-made connection.
    """
    path = config.endpoint_path
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await _connect(sock, path)
        return SocketChannel(sock, config, endpoint=path, peer=peer_credentials(sock))
    except OSError as exc:
        sock.close()
        raise refusals.connect_error(exc, path) from exc
    except BaseException:
        sock.close()
        raise


async def _connect(sock: socket.socket, path: str) -> None:
    pause = 0.001
    while True:
        await trio.lowlevel.checkpoint()
        try:
            return sock.connect(path)
        except BlockingIOError:
            # The backlog is full, and the system offers nothing to wait for (connect(2), EAGAIN).
            await trio.sleep(pause)
            pause = min(2 * pause, 0.05)


# --- Listening ----------------------------------------------------------------------------------------------


async def listen(config: IpcConfig, _peers: PeerPolicy) -> SocketListener:
    """Create the configured socket, owner only from its first instant, and listen.

    The policy does not matter here: ADR-0004 fixes the socket's mode, and a policy only narrows it.

    Raises:
        EndpointInUseError: a server listens there.
        EndpointUnsafeError: the path is no socket or a symbolic link, or its directory is not safe.
        EndpointError: the system refuses, or another starter does not let go of the directory.

    Cancellation leaves nothing behind but directories.
    """
    path = config.endpoint_path
    async with directories.claimed(path) as directory_fd:
        name = os.path.basename(path)
        _judge(directory_fd, name, path)
        _clear(directory_fd, name, path)
        return _bound(directory_fd, name, path, config)


def adopt(handover: Handover, config: IpcConfig) -> SocketListener:
    """Return a listener on what another one hands over.

    Raises:
        ImportError: a library that the channels need is missing. Better now than at each connection.
    """
    checksum_of(config.crc32_variant)
    return SocketListener(handover, config)


def _judge(directory_fd: int, name: str, path: str) -> None:
    """Refuse what stands at the path, unless it is a socket or nothing."""
    try:
        mode = os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise refusals.no_socket(path, mode)


def _clear(directory_fd: int, name: str, path: str) -> None:
    """Remove a dead server's socket. A server that takes a connection, or has no room for one, is alive."""
    pid = None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(path)
        if code == 0:
            with contextlib.suppress(OSError):
                pid = peer_credentials(probe).pid
    if code == errno.ENOENT:
        return
    if code == errno.ECONNREFUSED:
        os.unlink(name, dir_fd=directory_fd)
        _logger.info("%s was left by a dead server; reclaimed", path, extra={"endpoint": path})
        return
    if code not in {0, errno.EAGAIN}:
        raise refusals.another_kind(path, os.strerror(code))
    raise refusals.in_use(path, pid)


def _bound(directory_fd: int, name: str, path: str, config: IpcConfig) -> SocketListener:
    """Make the socket and listen."""
    with contextlib.ExitStack() as undo:
        sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        sock.setblocking(False)
        if _BIND_HONOURS_FCHMOD:
            os.fchmod(sock.fileno(), directories.OWNER_ONLY_SOCKET)
            sock.bind(path)
        elif not stat.S_IMODE(os.fstat(directory_fd).st_mode) & ~directories.OWNER_ONLY_DIRECTORY:
            sock.bind(path)  # nobody else can pass the directory while the mode is wider
        else:
            _bind_aside(sock, path)
        # Raises where the path no longer leads into the directory that was judged.
        found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        undo.callback(os.unlink, name, dir_fd=directory_fd)
        if stat.S_IMODE(found.st_mode) != directories.OWNER_ONLY_SOCKET:
            os.chmod(name, directories.OWNER_ONLY_SOCKET, dir_fd=directory_fd)
        sock.listen(_BACKLOG)
        handover = Handover(endpoint=path, socket=sock, inode=(found.st_dev, found.st_ino))
        listener = SocketListener(handover, config)
        undo.pop_all()
    return listener


def _bind_aside(sock: socket.socket, path: str) -> None:
    """Bind where only this user can look, narrow the mode there, and only then move it into place."""
    directory = os.path.dirname(path)
    with tempfile.TemporaryDirectory(prefix=".", dir=directory) as private:
        aside = os.path.join(private, "s")
        if len(os.fsencode(aside)) > MAX_PATH_BYTES:
            raise refusals.too_long(aside, path, MAX_PATH_BYTES)
        sock.bind(aside)
        os.chmod(aside, directories.OWNER_ONLY_SOCKET)
        os.rename(aside, path)
