"""Unix stream sockets as a :class:`trio.abc.Listener` and a :class:`trio.abc.HalfCloseableStream`.

The security of the whole package begins here: only the owner reaches the socket, from the instant it
exists; a live server's endpoint is never taken over, a dead one's is reclaimed without a race, and what
is no socket is never touched (docs/security.md). This module must never know what the bytes mean.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import stat
import sys
import tempfile
from collections.abc import Sequence
from typing import Final

import trio

from trio_ipc.endpoint import MAX_PATH_BYTES

from . import directories, refusals
from .credentials import PeerPolicy, peer_credentials
from .handover import Handover, TransferableListener
from .lookout import EndpointState
from .stream import LocalStream

assert sys.platform != "win32", "for Unix only"  # noqa: S101  # mypy skips the rest elsewhere

_logger = logging.getLogger(__name__)

#: Bytes asked for by one read. The allocator serves this from its heap; from 128 KiB on it maps and
#: unmaps memory for each read, which was measured to add 75 µs to a round trip.
READ_SIZE: Final = 65_536

_BACKLOG: Final = 128

#: What accept(2) says of the one client it would have given, rather than of the listener.
_ERRORS_OF_ONE_CLIENT: Final = frozenset(
    {errno.ECONNABORTED, errno.ECONNRESET, errno.EPROTO, errno.ETIMEDOUT}
)

#: A host program may have set SIGPIPE back to its deadly default (send(2)).
_SEND_FLAGS: Final = getattr(socket, "MSG_NOSIGNAL", 0)

#: Linux gives a socket file the mode of the unbound socket (unix_bind_bsd() in net/unix/af_unix.c), so
#: that fchmod() before bind() leaves no moment in which it is wider. Other systems ignore that fchmod().
_BIND_HONOURS_FCHMOD: Final = sys.platform == "linux"

#: Buffers that one sendmsg(2) takes: IOV_MAX of Linux and macOS; POSIX promises 16.
_MOST_PARTS: Final = min(os.sysconf("SC_IOV_MAX"), 1024) if os.sysconf("SC_IOV_MAX") > 0 else 16


class UnixStream(LocalStream, trio.abc.HalfCloseableStream):
    """A connected Unix stream socket.

    Args:
        sock: a connected socket. The stream owns it and makes it non-blocking.
        endpoint: the path it was reached by.

    Attributes:
        endpoint: as given.
        peer: who is at the other end.
    """

    def __init__(self, sock: socket.socket, endpoint: str) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._sending = False
        self._eof_sent = False
        self.endpoint = endpoint
        self.peer = peer_credentials(sock)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes and return them; ``b""`` once the peer has closed its sending side.

        Args:
            max_bytes: how many bytes at the most, ``READ_SIZE`` if None.

        Raises:
            trio.BrokenResourceError: the peer closed with bytes of ours unread.
            trio.BusyResourceError: another task is receiving.
            trio.ClosedResourceError: this stream was closed, before or meanwhile.

        Cancellation loses no bytes.
        """
        if max_bytes is None:
            max_bytes = READ_SIZE
        elif max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        await trio.lowlevel.checkpoint_if_cancelled()
        data = self.receive_nowait(max_bytes)
        if data is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return data
        return await self.receive_awaited(max_bytes)

    async def receive_awaited(self, max_bytes: int) -> bytes:
        """Receive like :meth:`receive_some`, for a caller who knows that nothing has come yet."""
        while True:
            if self._sock.fileno() == -1:
                raise trio.ClosedResourceError("this stream was closed")
            await trio.lowlevel.wait_readable(self._sock)
            data = self.receive_nowait(max_bytes)
            if data is not None:
                return data

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        """Return the bytes that are there (``b""`` at end of file), or None if that means to wait.

        Raises what :meth:`receive_some` raises.
        """
        try:
            return self._sock.recv(max_bytes)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise _stream_error(exc) from exc

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Hand all of the data over to the system.

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
        """Hand over what the system takes without a wait, and return how many bytes that was.

        Raises what :meth:`send_all` raises.
        """
        self._check_sendable()
        try:
            return self._sock.send(data, _SEND_FLAGS)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise _stream_error(exc) from exc

    def send_parts_nowait(self, parts: Sequence[bytes | memoryview]) -> int:
        """Hand over several buffers, as :meth:`send_nowait` does for one, without putting them together."""
        self._check_sendable()
        try:
            return self._sock.sendmsg(parts[:_MOST_PARTS], (), _SEND_FLAGS)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise _stream_error(exc) from exc

    def _check_sendable(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if self._eof_sent:
            raise trio.ClosedResourceError("the sending side was closed by send_eof()")

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the system has room for some bytes; see :class:`trio.abc.SendStream`."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if self._sock.fileno() == -1:
            raise trio.ClosedResourceError("this stream was closed")
        self._sending = True
        try:
            await trio.lowlevel.wait_writable(self._sock)
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """Close the sending side; the peer reads end of file and may still answer. Idempotent."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        await trio.lowlevel.checkpoint()
        if self._eof_sent:
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            raise _stream_error(exc) from exc
        self._eof_sent = True

    def peer_is_gone(self) -> bool:
        """Return whether the peer has closed both directions, so that nobody will read what is sent.

        After end of file alone it may only have closed its sending side, and wait for an answer. Does
        not block (poll(2): POLLHUP is set for a stream socket only when both directions are down).
        """
        if self._sock.fileno() == -1:
            return True
        poll = select.poll()
        poll.register(self._sock, 0)
        return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))

    def is_quiet(self) -> bool:
        """Return whether nothing has come: no bytes, no end of file, no error.

        Takes nothing from the stream and does not block (poll(2): POLLIN is set for all of these).
        """
        if self._sock.fileno() == -1:
            return False
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return not poll.poll(0)

    def close_nowait(self) -> bool:
        """Close both directions at once. A task that waits in this stream wakes. Idempotent."""
        if self._sock.fileno() != -1:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
        return True

    async def aclose(self) -> None:
        """Close like :meth:`close_nowait`, which does not wait for a cancellation to be told."""
        self.close_nowait()
        await trio.lowlevel.checkpoint()


class UnixListener(TransferableListener[UnixStream]):
    """A listening Unix stream socket. Made by :func:`listen_unix`.

    Attributes:
        endpoint: the socket's path.
    """

    def __init__(self, sock: socket.socket, endpoint: str, inode: tuple[int, int]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._inode = inode
        self._let_go = False
        # A child that the host program has forked is not the server, and leaves its file alone.
        self._pid = os.getpid()
        self.endpoint = endpoint

    async def accept(self) -> UnixStream:
        """Wait for the next client.

        Raises:
            OSError: with EMFILE, ENFILE, ENOBUFS or ENOMEM if the system is short of resources, with EACCES
                or EPERM if a security module forbids it; the caller should wait a moment and go on.
            trio.BusyResourceError: another task is accepting.
            trio.ClosedResourceError: this listener was closed, before or meanwhile.

        Cancellation loses no client.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._let_go:
            raise trio.ClosedResourceError("this listener was handed over")
        while True:
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)
            except OSError as exc:
                if exc.errno == errno.EBADF:
                    raise trio.ClosedResourceError("this listener was closed") from None
                if exc.errno not in _ERRORS_OF_ONE_CLIENT:
                    raise
                await trio.lowlevel.checkpoint()
            else:
                stream = self._made_stream(sock)
                await trio.lowlevel.cancel_shielded_checkpoint()
                if stream is not None:
                    return stream

    def _made_stream(self, sock: socket.socket) -> UnixStream | None:
        try:
            return UnixStream(sock, self.endpoint)
        except OSError as exc:
            # It was gone before it could be asked who it is. That costs one client, not the server.
            _logger.info(
                "%s: a client was lost while it was accepted: %s",
                self.endpoint,
                exc.strerror,
                extra={"endpoint": self.endpoint},
            )
            sock.close()
            return None

    async def aclose(self) -> None:
        """Stop listening and remove the socket file, if it is still this listener's. Idempotent."""
        if not self._let_go and self._sock.fileno() != -1:
            # The file goes first: as long as this socket listens, no starter mistakes the path for a
            # dead server's, so what is removed can't be somebody else's new socket.
            if os.getpid() == self._pid:
                self._remove_file()
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
        await trio.lowlevel.checkpoint()

    def hand_over(self) -> Handover:
        """Return the listening socket; see :meth:`TransferableListener.hand_over`."""
        if self._let_go or self._sock.fileno() == -1:
            raise trio.ClosedResourceError("this listener was closed")
        return Handover(endpoint=self.endpoint, socket=self._sock, inode=self._inode)

    def let_go(self) -> None:
        """Be closed, and leave all to the new owner; see :meth:`TransferableListener.let_go`."""
        self._let_go = True

    def look(self) -> EndpointState:
        """Return what has become of the socket file; see :meth:`TransferableListener.look`."""
        return EndpointState.of(self.endpoint, self._inode)

    def _remove_file(self) -> None:
        fields = {"endpoint": self.endpoint}
        try:
            found = os.lstat(self.endpoint)
            if (found.st_dev, found.st_ino) == self._inode:
                os.unlink(self.endpoint)
            else:
                _logger.warning(
                    "%s was replaced while it was served; left alone", self.endpoint, extra=fields
                )
        except FileNotFoundError:
            _logger.warning("%s was removed while it was served", self.endpoint, extra=fields)
        except OSError as exc:
            _logger.warning("%s could not be removed: %s", self.endpoint, exc.strerror, extra=fields)


def adopt(handover: Handover) -> UnixListener:
    """Return a listener on what another one hands over."""
    return UnixListener(handover.socket, handover.endpoint, handover.inode)


# --- Connecting ---------------------------------------------------------------------------------------------


async def connect_unix(endpoint: str) -> UnixStream:
    """Connect to a server's socket. The caller sets the deadline.

    Args:
        endpoint: absolute path of the socket.

    Returns:
        The connected stream. Its ``peer`` is the process that listens (unix(7), SO_PEERCRED); whether
        that one is to be trusted is the caller's decision.

    Raises:
        ServerNotFoundError: there is no such file.
        ServerRefusedError: nobody listens.
        EndpointPermissionError: the modes of the socket or its directories forbid it.
        ConnectError: any other refusal by the system.

    Cancellation closes the half-made connection.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        pause = 0.001
        while True:
            await trio.lowlevel.checkpoint()
            try:
                sock.connect(endpoint)
            except BlockingIOError:
                # The backlog is full, and the system offers nothing to wait for (connect(2), EAGAIN).
                await trio.sleep(pause)
                pause = min(2 * pause, 0.05)
            except OSError as exc:
                raise refusals.connect_error(exc, endpoint) from exc
            else:
                return UnixStream(sock, endpoint)
    except BaseException:
        sock.close()
        raise


# --- Listening ----------------------------------------------------------------------------------------------


async def listen(endpoint: str, _peers: PeerPolicy) -> UnixListener:
    """Listen as :func:`listen_unix` does, whatever the policy: ADR-0004 fixes the socket's mode.

    A policy only narrows whom the mode lets in.
    """
    return await listen_unix(endpoint)


async def listen_unix(endpoint: str) -> UnixListener:
    """Create the socket, owner only from its first instant, and listen.

    Missing directories are created with mode 0700. Whatever stands at the path is judged first: a live
    server is left alone, a dead one's socket is removed, anything else is refused.

    Args:
        endpoint: absolute path of the socket.

    Raises:
        EndpointInUseError: a server listens there.
        EndpointUnsafeError: the path is no socket or a symbolic link, or the directory is one or can be
            written by others.
        EndpointError: the system refuses, or another starter does not let go of the directory.

    Cancellation leaves nothing behind but directories.
    """
    async with directories.claimed(endpoint) as directory_fd:
        name = os.path.basename(endpoint)
        _make_way(directory_fd, name, endpoint)
        return _bind(directory_fd, name, endpoint)


def _make_way(directory_fd: int, name: str, endpoint: str) -> None:
    """Remove a dead server's socket; refuse anything else that stands at the path."""
    try:
        mode = os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise refusals.no_socket(endpoint, mode)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(endpoint)
            pid = peer_credentials(probe).pid
        except ConnectionRefusedError:
            os.unlink(name, dir_fd=directory_fd)
            _logger.info("%s was left by a dead server; reclaimed", endpoint, extra={"endpoint": endpoint})
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pid = None  # alive, with a full backlog
        except OSError as exc:
            raise refusals.another_kind(endpoint, exc.strerror) from exc
    raise refusals.in_use(endpoint, pid)


def _bind(directory_fd: int, name: str, endpoint: str) -> UnixListener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind_owner_only(sock, directory_fd, endpoint)
        # Raises where the path no longer leads into the directory that was judged.
        found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        try:
            if stat.S_IMODE(found.st_mode) != directories.OWNER_ONLY_SOCKET:
                os.chmod(name, directories.OWNER_ONLY_SOCKET, dir_fd=directory_fd)
            sock.listen(_BACKLOG)
            return UnixListener(sock, endpoint, (found.st_dev, found.st_ino))
        except BaseException:
            os.unlink(name, dir_fd=directory_fd)
            raise
    except BaseException:
        sock.close()
        raise


def _bind_owner_only(sock: socket.socket, directory_fd: int, endpoint: str) -> None:
    if _BIND_HONOURS_FCHMOD:
        os.fchmod(sock.fileno(), directories.OWNER_ONLY_SOCKET)
        sock.bind(endpoint)
    elif not stat.S_IMODE(os.fstat(directory_fd).st_mode) & ~directories.OWNER_ONLY_DIRECTORY:
        sock.bind(endpoint)  # nobody else can pass the directory while the mode is wider
    else:
        _bind_aside(sock, endpoint)


def _bind_aside(sock: socket.socket, endpoint: str) -> None:
    """Bind inside a private directory, narrow the mode there, then move the socket into place.

    Elsewhere than on Linux the mode can only be set after bind(); here nobody sees it before that.
    """
    directory = os.path.dirname(endpoint)
    with tempfile.TemporaryDirectory(prefix=".", dir=directory) as private:
        aside = os.path.join(private, "s")
        if len(os.fsencode(aside)) > MAX_PATH_BYTES:
            raise refusals.too_long(aside, endpoint, MAX_PATH_BYTES)
        sock.bind(aside)
        os.chmod(aside, directories.OWNER_ONLY_SOCKET)
        os.rename(aside, endpoint)


# --- Shared -------------------------------------------------------------------------------------------------


def _stream_error(exc: OSError) -> trio.ClosedResourceError | trio.BrokenResourceError:
    if exc.errno == errno.EBADF:
        return trio.ClosedResourceError("this stream was closed")
    return trio.BrokenResourceError(f"the connection is broken: {exc.strerror}")
