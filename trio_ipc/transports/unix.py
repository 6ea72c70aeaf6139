"""Connected Unix stream sockets as a :class:`trio.abc.HalfCloseableStream`.

How a socket is made and reached at its path is :mod:`.unix_binding`'s. This module must never know what the
bytes mean.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

import trio

from trio_ipc.transports import forks, unix_binding
from trio_ipc.transports.attempts import until_made
from trio_ipc.transports.credentials import peer_credentials
from trio_ipc.transports.duplex import LocalStream, PeerState

assert sys.platform != "win32", "for Unix only"  # noqa: S101  # mypy skips the rest elsewhere

#: A host program may have set SIGPIPE back to its deadly default (send(2)).
_SEND_FLAGS: Final = getattr(socket, "MSG_NOSIGNAL", 0)

#: To read it from its class takes CPython 3.11 0.1 µs, as enumerations have a ``__getattr__`` there.
_OPEN: Final = PeerState.OPEN


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
        if sock.gettimeout() != 0:  # else it is one system call too many
            sock.setblocking(False)
        super().__init__(endpoint, peer_credentials(sock))
        self._sock = sock
        self._eof_sent = False
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._blocking_poll: select.poll | None = None
        self._close_when_free: Callable[[Callable[[], None]], None] | None = None

    def read(self, max_bytes: int) -> bytes | None:
        """Return bytes that are there; see :meth:`Duplex.read`."""
        try:
            return self._sock.recv(max_bytes)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise _stream_error(exc) from exc

    def wait_readable(self) -> Coroutine[Any, Any, None]:
        """Wait until there is something to read; see :meth:`Duplex.wait_readable`.

        Await it at once: it is for the descriptor that the stream has now. Cancellation loses no bytes.
        """
        fd = self._sock.fileno()
        if fd == -1:
            return _closed()  # it raises where it is awaited, as other streams do
        # Trio's own coroutine: one around it would take its part in each falling asleep and waking.
        return trio.lowlevel.wait_readable(fd)  # noqa: ASYNC105 - the caller awaits it

    def block_until_readable(self, seconds: float) -> None:
        """Wait in this thread, whatever else it has to do, until :meth:`read` may have something.

        For who is not on Trio. A close in another thread ends it.
        """
        if self._blocking_poll is None:
            self._blocking_poll = select.poll()  # of its own: one poll object serves one thread at a time
            self._blocking_poll.register(self._open_fd(), select.POLLIN)
        self._open_fd()
        self._blocking_poll.poll(seconds * 1000)

    def second_socket(self) -> socket.socket:
        """Return another socket of this connection, which the caller owns, for who waits in another thread.

        A close of this stream ends a wait there: the connection is shut down. A forked child has it closed.
        """
        self._open_fd()
        second = self._sock.dup()
        try:
            forks.keep_from_children(second)
        except BaseException:
            second.close()
            raise
        return second

    def lend(self, close_when_free: Callable[[Callable[[], None]], None]) -> None:
        """Let other threads read and write here without waiting, also while this is being closed.

        If the descriptor were closed under a thread that reads, its number could be another file's at once,
        and that file be read.

        Args:
            close_when_free: called once by :meth:`close`, in the same thread, after the connection was shut
                down. Its argument is a function that closes the descriptor; it must see to it that this is
                called once no other thread uses the descriptor. A function that nobody keeps closes it, too.
        """
        self._close_when_free = close_when_free

    def _open_fd(self) -> int:
        # Asked for each time: in a forked child the socket is closed behind this stream's back.
        fd = self._sock.fileno()
        if fd == -1:
            raise trio.ClosedResourceError("this stream was closed")
        return fd

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Hand over what the system takes; see :meth:`Duplex.write`."""
        if self._eof_sent:
            raise trio.ClosedResourceError("the sending side was closed by send_eof()")
        try:
            return self._sock.send(data, _SEND_FLAGS)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise _stream_error(exc) from exc

    def write_both(self, first: bytes, second: bytes) -> int:
        """Hand over what the system takes of two pieces; see :meth:`Duplex.write_both`."""
        if self._eof_sent:
            raise trio.ClosedResourceError("the sending side was closed by send_eof()")
        try:
            return self._sock.sendmsg((first, second), (), _SEND_FLAGS)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise _stream_error(exc) from exc

    async def write_some(self, data: bytes | bytearray | memoryview) -> int:
        """Wait for room, and hand over what the system takes; see :meth:`Duplex.write_some`.

        Cancellation hands over nothing.
        """
        while True:
            await trio.lowlevel.wait_writable(self._open_fd())
            sent = self.write(data)
            if sent:
                return sent

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the system has room for some bytes; see :class:`trio.abc.SendStream`.

        Cancellation changes nothing.
        """
        with self._sending:
            await trio.lowlevel.wait_writable(self._open_fd())

    async def send_eof(self) -> None:
        """Close the sending side; the peer reads end of file and may still answer. Idempotent.

        Raises:
            trio.BrokenResourceError: the connection is broken.
            trio.BusyResourceError: another task is sending.
            trio.ClosedResourceError: this stream was closed.

        Cancellation leaves the sending side open.
        """
        with self._sending:
            await trio.lowlevel.checkpoint()
            if self._eof_sent:
                return
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError as exc:
                raise _stream_error(exc) from exc
            self._eof_sent = True

    def peer_state(self) -> PeerState:
        """Return what has become of the peer; see :meth:`Duplex.peer_state`.

        POLLHUP is set for a stream socket only when both directions are down (poll(2)); after end of file
        alone the peer may only have closed its sending side, and wait for a response.
        """
        if self._sock.fileno() == -1:
            return PeerState.GONE
        found = self._poll.poll(0)
        if not found:
            return _OPEN
        if found[0][1] & (select.POLLHUP | select.POLLERR):
            return PeerState.GONE
        try:
            waiting = self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return PeerState.OPEN
        except OSError:
            return PeerState.GONE
        return PeerState.HAS_INPUT if waiting else PeerState.HALF_CLOSED

    def close(self) -> bool:
        """Close both directions at once. A task that waits in this stream wakes. Idempotent.

        The connection is shut down first: a child that was forked meanwhile has the descriptor, too, and
        would keep the connection from being seen closed (fork(2), shutdown(2)).
        """
        if self._sock.fileno() != -1:
            trio.lowlevel.notify_closing(self._sock)
            with contextlib.suppress(OSError):  # the peer has closed, and there is nothing left to shut down
                self._sock.shutdown(socket.SHUT_RDWR)
            if self._close_when_free is None:
                self._sock.close()
            else:
                self._close_when_free(_Descriptor(self._sock.detach()).close)
        return True


class _Descriptor:
    """One that is closed when that is asked for, or when nobody has it any longer."""

    def __init__(self, number: int) -> None:
        self._number = number

    def close(self, _close: Callable[[int], None] = os.close) -> None:
        """Close it. Idempotent."""
        number, self._number = self._number, -1
        if number != -1:
            _close(number)

    __del__ = close


async def connect_unix(endpoint: str) -> UnixStream:
    """Connect to a server's socket. The caller sets the deadline.

    While the server's backlog is full this waits, as long as it may. Otherwise it does what
    :func:`connect_nowait` does.

    Cancellation leaves nothing open.
    """
    return await until_made(lambda: connect_nowait(endpoint))


@trio.lowlevel.enable_ki_protection
def connect_nowait(endpoint: str) -> UnixStream | None:
    """Connect to a server's socket, if that takes no wait.

    Args:
        endpoint: absolute path of the socket.

    Returns:
        The connected stream, or None where the server's backlog is full. The stream's ``peer`` is the process
        that listens (unix(7), SO_PEERCRED); whether that one is to be trusted is the caller's decision.

    Raises:
        ConnectError: in the precise form that fits; see :func:`.unix_binding.connected_nowait`.
    """
    return unix_binding.connected_nowait(endpoint, lambda sock: UnixStream(sock, endpoint))


async def _closed() -> None:
    raise trio.ClosedResourceError("this stream was closed")


def _stream_error(exc: OSError) -> trio.ClosedResourceError | trio.BrokenResourceError:
    if exc.errno == errno.EBADF:
        return trio.ClosedResourceError("this stream was closed")
    return trio.BrokenResourceError(f"the connection is broken: {exc.strerror}")
