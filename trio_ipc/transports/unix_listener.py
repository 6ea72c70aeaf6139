"""A listening Unix stream socket as a :class:`trio.abc.Listener`.

How its socket comes to be at its path, and goes from there, is :mod:`.unix_binding`'s. This module must never
know what the bytes of a connection mean.
"""

from __future__ import annotations

import errno
import socket
import sys

import trio

from trio_ipc.logs import Log
from trio_ipc.transports import forks, unix, unix_binding
from trio_ipc.transports.detach import DetachableListener, Detached
from trio_ipc.transports.duplex import LocalListener
from trio_ipc.transports.monitor import EndpointState
from trio_ipc.transports.policy import PeerPolicy

assert sys.platform != "win32", "for Unix only"  # noqa: S101  # mypy skips the rest elsewhere

_log = Log(__name__)


class UnixListener(DetachableListener[unix.UnixStream], LocalListener[unix.UnixStream]):
    """Accepts streams. Made by :func:`open_unix_listeners`.

    Args:
        detached: a listening socket, which the listener owns from now on.

    Attributes:
        endpoint: the socket's path.
    """

    def __init__(self, detached: Detached) -> None:
        self._detached = detached
        self._sock = detached.socket
        self._released = False
        self.endpoint: str = detached.endpoint

    async def accept(self) -> unix.UnixStream:
        """Wait for the next client.

        Returns:
            Its stream, which the caller owns.

        Raises:
            OSError: with EMFILE, ENFILE, ENOBUFS or ENOMEM if the system is short of resources, with EACCES
                or EPERM if a security module forbids it; the caller should wait a moment and go on.
            trio.BusyResourceError: another task is accepting.
            trio.ClosedResourceError: this listener was closed, before or meanwhile, or in a forked child.

        Cancellation loses no client.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._released:
            raise trio.ClosedResourceError("this listener was detached")
        has_waited = False
        while True:
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)
                has_waited = True
            except OSError as exc:
                if exc.errno == errno.EBADF:
                    raise trio.ClosedResourceError("this listener was closed") from None
                if exc.errno not in unix_binding.ERRORS_OF_ONE_CLIENT:
                    raise
                await trio.lowlevel.checkpoint()
            else:
                stream = self._made_stream(sock)
                # A wait was a checkpoint, and another one would keep its client waiting.
                if stream is None or not has_waited:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                if stream is not None:
                    return stream

    def _made_stream(self, sock: socket.socket) -> unix.UnixStream | None:
        try:
            forks.keep_from_children(sock)
            return unix.UnixStream(sock, self.endpoint)
        except OSError as exc:
            # It was gone before it could be asked who it is. That costs one client, not the server.
            _log.info(
                "%s: a client was lost while it was accepted: %s",
                self.endpoint,
                exc.strerror,
                extra={"endpoint": self.endpoint},
            )
            sock.close()
            return None

    async def aclose(self) -> None:
        """Stop listening and remove the socket file, if it is still this listener's. Idempotent.

        A client that connected and was not accepted yet reads end of file. What was accepted goes on.

        Cancellation closes all the same.
        """
        if not self._released and self._sock.fileno() != -1:
            unix_binding.remove(self._detached)
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
        await trio.lowlevel.checkpoint()

    def detach(self) -> Detached:
        """Return the listening socket; see :meth:`DetachableListener.detach`."""
        if self._released or self._sock.fileno() == -1:
            raise trio.ClosedResourceError("this listener was closed")
        return self._detached

    def release(self) -> None:
        """Be closed, and leave all to the new owner; see :meth:`DetachableListener.release`."""
        self._released = True

    def look(self) -> EndpointState:
        """Return what has become of the socket file; see :meth:`DetachableListener.look`."""
        return unix_binding.look(self._detached)


def adopt(detached: Detached) -> UnixListener:
    """Return a listener on what another one has left."""
    return UnixListener(detached)


async def listen(endpoint: str, peers: PeerPolicy, *, group: int | str | None = None) -> UnixListener:
    """Listen as :func:`listen_unix` does, whatever the policy: ADR-0004 fixes the socket's mode.

    A policy only narrows whom the mode lets in. Where it means to let a group in, and the socket has none, a
    warning in the log says so.
    """
    unix_binding.warn_of_unreachable(endpoint, peers, group)
    return await listen_unix(endpoint, group)


async def listen_unix(endpoint: str, group: int | str | None = None) -> UnixListener:
    """Create the socket, for its owner alone from its first instant, and listen.

    See :func:`.unix_binding.listening` for arguments and errors. Cancellation leaves nothing behind but
    directories.
    """
    return UnixListener(await unix_binding.listening(endpoint, group))
