r"""Windows named pipes as a :class:`trio.abc.Listener` and a :class:`trio.abc.Stream`.

What :mod:`.unix` is on other systems, with the same promises: only the owner (and SYSTEM) reaches the
pipe, no other machine does, a name that somebody else holds is never shared, and a client lends a server
nothing of its own rights. Every operation is an overlapped one on Trio's completion port, through the calls
that :mod:`trio.lowlevel` makes public. This module must never close a handle or free memory that the
kernel still works on, and never know what the bytes mean. Only for Windows.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import sys
import warnings
from collections.abc import Iterator
from typing import Final

import trio

from trio_ipc.endpoint import pipe_path
from trio_ipc.errors import ConfigError

from . import credentials, refusals, win32
from .handover import Handover, TransferableListener
from .stream import LocalStream

assert sys.platform == "win32", "for Windows only"  # noqa: S101  # mypy skips the rest elsewhere

#: Bytes asked for by one read, as much as a pipe's buffer holds.
READ_SIZE: Final = 65_536

#: Bytes that each direction of a pipe holds for a reader who is not there yet.
_BUFFER_BYTES: Final = 65_536

#: The most that one write asks for. The kernel locks that much memory until the reader has taken it.
_WRITE_SIZE: Final = 1024 * 1024

#: How long a thread blocks in WaitNamedPipe at a time, and so how late a cancellation may be noticed.
_WAIT_SLICE_MS: Final = 50

#: How often a busy pipe is tried again before a thread waits for it. A server that is about to make its next
#: instance needs no longer, and one in the same process needs just this.
_TURNS_BEFORE_WAITING: Final = 4

#: How long to wait for the clients of a server that is gone to let go of its pipe. Seconds.
_RECLAIM_PATIENCE: Final = 1.0
_RECLAIM_PAUSE: Final = 0.02

#: GENERIC_WRITE would ask for FILE_CREATE_PIPE_INSTANCE too, which is the server's right alone: a
#: descriptor that lets others connect should not let them take a server's place ("Named Pipe Security and
#: Access Rights").
_CLIENT_ACCESS: Final = win32.GENERIC_READ | win32.FILE_WRITE_DATA

#: The server may learn who the client is, and may not act in its name ("Impersonation Levels").
_CLIENT_FLAGS: Final = (
    win32.FILE_FLAG_OVERLAPPED | win32.SECURITY_SQOS_PRESENT | win32.SECURITY_IDENTIFICATION
)

#: What a read says once the peer has closed and all was read.
_PEER_CLOSED: Final = frozenset({win32.ERROR_BROKEN_PIPE, win32.ERROR_PIPE_NOT_CONNECTED})

_SERVER_MODE: Final = (
    win32.PIPE_TYPE_BYTE | win32.PIPE_READMODE_BYTE | win32.PIPE_WAIT | win32.PIPE_REJECT_REMOTE_CLIENTS
)


class _PipeEnd:
    """A handle that is closed only when no operation uses it any longer.

    Trio cancels an operation by its handle. Were the handle closed under a task that waits, a cancellation
    that comes before the task wakes would name a handle that is no more, or by then somebody else's. So
    closing only cancels what is pending; who leaves last closes.
    """

    def __init__(self, handle: int, *, registered: bool = False) -> None:
        self._handle = handle
        self._users = 0
        self._released = trio.Event()
        self.closed = False
        if registered:
            return  # to Trio's port, which a handle is for good
        try:
            trio.lowlevel.register_with_iocp(handle)
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def in_use(self) -> Iterator[int]:
        """Lend the handle to an operation, from before it begins until the kernel is done with it."""
        if self.closed:
            raise trio.ClosedResourceError("this pipe was closed")
        self._users += 1
        try:
            yield self._handle
        finally:
            self._users -= 1
            if self.closed and not self._users:
                self._release()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._users:
            win32.cancel_io(self._handle)
        else:
            self._release()

    def let_go(self) -> None:
        """Be closed, without closing the handle: it is somebody else's now. No operation may be under way."""
        self.closed = True
        self._released.set()

    async def aclose(self) -> None:
        """Close, and wait until the system has let go of the handle."""
        self.close()
        await self._released.wait()

    def _release(self) -> None:
        self._released.set()
        win32.close_handle(self._handle)

    def __del__(self) -> None:
        if not self.closed:
            warnings.warn("a named pipe was not closed", ResourceWarning, source=self, stacklevel=1)
            self.close()


class _OneAtATime:
    """Tells a second task that another one is there already."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._busy = False

    def __enter__(self) -> None:
        if self._busy:
            raise trio.BusyResourceError(f"another task is {self._doing}")
        self._busy = True

    def __exit__(self, *_: object) -> None:
        self._busy = False


class NamedPipeStream(LocalStream):
    """A connected end of a named pipe in byte mode.

    Made by :func:`open_named_pipe` and :meth:`NamedPipeListener.accept`. A pipe has no half-closing: who
    closes, closes both directions.

    Attributes:
        endpoint: the pipe's name, in full.
        peer: who is at the other end.
    """

    def __init__(self, end: _PipeEnd, endpoint: str, peer: credentials.PeerCredentials) -> None:
        self._end = end
        self._receiving = _OneAtATime("receiving from this pipe")
        self._sending = _OneAtATime("sending to this pipe")
        self.endpoint = endpoint
        self.peer = peer

    @trio.lowlevel.enable_ki_protection
    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Wait for bytes and return them; ``b""`` once the peer has closed and all it wrote was read.

        Args:
            max_bytes: how many bytes at the most, ``READ_SIZE`` if None.

        Raises:
            trio.BrokenResourceError: the system failed to read.
            trio.BusyResourceError: another task is receiving.
            trio.ClosedResourceError: this stream was closed, before or meanwhile.

        Cancellation loses no bytes: it returns once the kernel is done with the buffer, and if bytes
        came first they are returned instead.
        """
        if max_bytes is None:
            max_bytes = READ_SIZE
        elif not isinstance(max_bytes, int):
            raise TypeError(f"max_bytes must be an int, not {max_bytes!r}")
        elif max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        with self._receiving, self._end.in_use() as handle:
            buffer = bytearray(max_bytes)
            size = 0
            while not size:
                # A peer may write no bytes at all, and the reader is told so (WriteFile). That is not
                # end of file.
                try:
                    size = await trio.lowlevel.readinto_overlapped(handle, buffer)
                except OSError as exc:
                    await trio.lowlevel.checkpoint()
                    self._raise_if_closed(exc)
                    if exc.winerror in _PEER_CLOSED:
                        return b""
                    raise trio.BrokenResourceError(f"cannot read: {exc.strerror}") from exc
            del buffer[size:]
            return buffer

    @trio.lowlevel.enable_ki_protection
    def receive_nowait(self, max_bytes: int) -> bytes | None:
        """Return the bytes that are there (``b""`` at end of file), or None if that means to wait.

        Raises what :meth:`receive_some` raises.
        """
        with self._receiving, self._end.in_use() as handle:
            try:
                available = win32.peek_named_pipe(handle)
                # Nobody else reads, so that what is there stays there.
                return win32.read_file(handle, min(available, max_bytes)) if available else None
            except OSError as exc:
                if exc.winerror in _PEER_CLOSED:
                    return b""
                raise trio.BrokenResourceError(f"cannot read: {exc.strerror}") from exc

    @trio.lowlevel.enable_ki_protection
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Hand all of the data over to the system.

        What was handed over is the peer's to read, even if this end closes right after.

        Raises:
            trio.BrokenResourceError: the peer has closed.
            trio.BusyResourceError: another task is sending.
            trio.ClosedResourceError: this stream was closed, before or meanwhile.

        Cancellation may leave a part sent; the caller must then close.
        """
        with self._sending, self._end.in_use() as handle:
            if not data:
                await trio.lowlevel.checkpoint()
                return
            with memoryview(data).cast("B") as view:
                for start in range(0, len(view), _WRITE_SIZE):
                    with view[start : start + _WRITE_SIZE] as part:
                        await self._write(handle, part)

    async def _write(self, handle: int, part: memoryview) -> None:
        try:
            written = await trio.lowlevel.write_overlapped(handle, part)
        except OSError as exc:
            self._raise_if_closed(exc)
            raise trio.BrokenResourceError(f"cannot write: {exc.strerror}") from exc
        if written != len(part):
            # A pipe that blocks takes everything or fails ("Named Pipe Type, Read, and Wait Modes"). If
            # one ever does not, nobody knows what the peer has got.
            raise trio.BrokenResourceError(f"only {written} of {len(part)} bytes were written")

    def _raise_if_closed(self, cause: OSError) -> None:
        if self._end.closed:
            raise trio.ClosedResourceError("this pipe was closed meanwhile") from cause

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once, which :class:`trio.abc.SendStream` allows: Windows tells no pipe's free room."""
        with self._sending, self._end.in_use():
            await trio.lowlevel.checkpoint()

    def is_quiet(self) -> bool:
        """Return whether nothing has come, and the peer is there. Takes nothing and does not block."""
        try:
            with self._end.in_use() as handle:
                return win32.peek_named_pipe(handle) == 0
        except (OSError, trio.ClosedResourceError):
            return False

    def peer_is_gone(self) -> bool:
        """Return whether the peer has closed and nothing that it wrote is left to read."""
        # Asked of the system all the same: the caller may not have read to the end.
        try:
            with self._end.in_use() as handle:
                win32.peek_named_pipe(handle)
        except (OSError, trio.ClosedResourceError):
            return True
        return False

    def close_nowait(self) -> bool:
        """Close both directions at once; the system may let go of the handle a moment later."""
        self._end.close()
        return True

    async def aclose(self) -> None:
        """Close both directions at once. A task that waits in this stream wakes. Idempotent.

        What was sent may still be read by the peer. A cancelled call closes too; only the wait for the
        system to let go of the handle is cut short.
        """
        await self._end.aclose()


class NamedPipeListener(TransferableListener[NamedPipeStream]):
    """A named pipe that waits for clients. Made by :func:`open_named_pipe_listener`.

    It always holds one instance that a client can connect to, so that no client is told that there is no
    server while there is one, and nobody else can take the name.

    Attributes:
        endpoint: the pipe's name, in full.
    """

    def __init__(
        self, endpoint: str, descriptor: bytes, first: _PipeEnd, *, has_client: bool = False
    ) -> None:
        self.endpoint = endpoint
        self._descriptor = descriptor
        self._waiting = first
        self._has_client = has_client
        self._overlapped = win32.OVERLAPPED()
        self._accepting = _OneAtATime("accepting from this pipe")

    @trio.lowlevel.enable_ki_protection
    async def accept(self) -> NamedPipeStream:
        """Wait for the next client.

        A client that was gone again before it was accepted is returned all the same: what it wrote can be
        read.

        Raises:
            OSError: with EMFILE, ENOBUFS or ENOMEM if the system is short of resources for the instance that
                must wait for the next client. This one is kept; the caller should wait a moment and go on.
            EndpointError: the pipe's descriptor forbids this process to make that instance.
            trio.BusyResourceError: another task is accepting.
            trio.ClosedResourceError: this listener was closed, before or meanwhile.

        Cancellation loses no client.
        """
        with self._accepting:
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._has_client:
                await trio.lowlevel.cancel_shielded_checkpoint()
            else:
                await self._wait_for_client()
            # From here on nothing waits, so that nothing can come between a client and its stream. The
            # next instance is there before this one is handed out.
            with self._waiting.in_use() as handle:
                successor = self._create_successor()
                peer = credentials.client_of(handle)
            end, self._waiting, self._has_client = self._waiting, successor, False
            return NamedPipeStream(end, self.endpoint, peer)

    def _create_successor(self) -> _PipeEnd:
        try:
            return _create_instance(self.endpoint, self._descriptor)
        except OSError as exc:
            if exc.winerror == win32.ERROR_NO_SYSTEM_RESOURCES:
                raise OSError(errno.ENOBUFS, exc.strerror) from exc
            if exc.winerror == win32.ERROR_ACCESS_DENIED:
                raise refusals.no_further_instance(self.endpoint) from exc
            raise

    async def _wait_for_client(self) -> None:
        # The kernel writes into this until the wait is over, one way or the other. The one of the wait
        # before is kept as long: a cancellation that came too late has left Trio its address to look out
        # for, and no new operation should have the same.
        previous, self._overlapped = self._overlapped, win32.OVERLAPPED()
        with self._waiting.in_use() as handle:
            try:
                win32.connect_named_pipe(handle, self._overlapped)
            except OSError as exc:
                if exc.winerror not in {win32.ERROR_PIPE_CONNECTED, win32.ERROR_NO_DATA}:
                    raise
                await trio.lowlevel.cancel_shielded_checkpoint()
            else:
                await trio.lowlevel.wait_overlapped(handle, ctypes.addressof(self._overlapped))
            self._has_client = True
        del previous

    async def aclose(self) -> None:
        """Stop listening; the name is free once the last stream of it is closed too. Idempotent.

        A client that connected and was not accepted yet reads end of file. A cancelled call closes too;
        only the wait for the system to let go of the handle is cut short.
        """
        await self._waiting.aclose()

    def hand_over(self) -> Handover:
        """Return the instance that waits for a client; see :meth:`TransferableListener.hand_over`."""
        with self._accepting, self._waiting.in_use() as handle:
            return Handover(
                endpoint=self.endpoint,
                descriptor=self._descriptor,
                handle=handle,
                has_client=self._has_client,
                on_port=True,
            )

    def let_go(self) -> None:
        """Be closed, and leave the instance to its new owner; see :meth:`TransferableListener.let_go`."""
        self._waiting.let_go()


def adopt(handover: Handover) -> NamedPipeListener:
    """Return a listener on what another one hands over. Raises OSError if the system refuses."""
    if not handover.on_port:
        # Not by _PipeEnd: where this fails, the handle stays open, and the other listener's.
        trio.lowlevel.register_with_iocp(handover.handle)
    end = _PipeEnd(handover.handle, registered=True)
    return NamedPipeListener(handover.endpoint, handover.descriptor, end, has_client=handover.has_client)


# --- Connecting ---------------------------------------------------------------------------------------------


async def open_named_pipe(endpoint: str) -> NamedPipeStream:
    r"""Connect to a server's pipe. The caller sets the deadline.

    While every instance is taken this waits for one to become free, as long as it may.

    Args:
        endpoint: a bare name, or one in ``\\.\pipe\``.

    Returns:
        The connected stream. Its ``peer`` is the process that serves; whether that one is to be trusted is
        the caller's decision.

    Raises:
        ConfigError: the name is no pipe's on this machine.
        ServerNotFoundError: there is no such pipe.
        EndpointPermissionError: the pipe's descriptor does not admit this user.
        ConnectError: any other refusal by the system.

    Cancellation leaves nothing open. While every instance is taken it is noticed within 50 ms.
    """
    path = pipe_path(endpoint)
    # A thread for each connect that waits, and never one of the program's own share.
    limiter = trio.CapacityLimiter(1)
    for attempt in itertools.count(1):
        await trio.lowlevel.checkpoint()
        try:
            return _connect(path)
        except OSError as exc:
            if exc.winerror != win32.ERROR_PIPE_BUSY:
                raise refusals.connect_error(exc, path) from exc
        if attempt >= _TURNS_BEFORE_WAITING:
            await trio.to_thread.run_sync(_wait_for_instance, path, limiter=limiter)
    raise AssertionError("unreachable")


@trio.lowlevel.enable_ki_protection
def _connect(path: str) -> NamedPipeStream:
    end = _PipeEnd(win32.create_file(path, _CLIENT_ACCESS, _CLIENT_FLAGS))
    with end.in_use() as handle:
        return NamedPipeStream(end, path, credentials.server_of(handle))


def _wait_for_instance(path: str) -> None:
    # Whatever this ends with, opening the pipe again tells more.
    with contextlib.suppress(OSError):
        win32.wait_named_pipe(path, _WAIT_SLICE_MS)


# --- Listening ----------------------------------------------------------------------------------------------


async def listen(endpoint: str, peers: credentials.PeerPolicy) -> NamedPipeListener:
    """Listen as :func:`open_named_pipe_listener` does, on a pipe that admits whom the policy allows.

    Raises:
        ConfigError: also if a user of the policy is no security identifier.
    """
    return await open_named_pipe_listener(endpoint, sddl=credentials.descriptor_for(peers))


async def open_named_pipe_listener(endpoint: str, *, sddl: str | None = None) -> NamedPipeListener:
    r"""Create the pipe, for its owner and SYSTEM alone unless told otherwise, and listen.

    There is no backlog: one client at a time can connect ahead of :meth:`NamedPipeListener.accept`, others
    wait in :func:`open_named_pipe`.

    Args:
        endpoint: a bare name, or one in ``\\.\pipe\``.
        sddl: who may connect, in the security descriptor definition language; see
            :func:`credentials.descriptor_for`. It must let this process's user create instances. Other
            machines are refused whatever it says.

    Raises:
        ConfigError: the name is no pipe's on this machine, or the descriptor can't be read.
        EndpointInUseError: another server has the pipe.
        EndpointError: the system refuses, or clients hold on to the pipe of a server that is gone.

    Cancellation leaves nothing behind.
    """
    path = pipe_path(endpoint)
    if sddl is None:
        sddl = credentials.descriptor_for(credentials.PeerPolicy.own_user_and_root())
    descriptor = _descriptor(sddl)
    patience = trio.current_time() + _RECLAIM_PATIENCE
    while True:
        await trio.lowlevel.checkpoint()
        try:
            first = _create_instance(path, descriptor, win32.FILE_FLAG_FIRST_PIPE_INSTANCE)
        except OSError as exc:
            # A pipe lasts until its last handle is closed. Clients of a server that died have one each
            # until they notice, which should not keep the next server from starting.
            if exc.winerror != win32.ERROR_ACCESS_DENIED or trio.current_time() > patience:
                raise refusals.listen_error(exc, path) from exc
            _refuse_live_server(exc, path)
        else:
            return NamedPipeListener(path, descriptor, first)
        await trio.sleep(_RECLAIM_PAUSE)


def _descriptor(sddl: str) -> bytes:
    try:
        return win32.security_descriptor(sddl)
    except OSError as exc:
        raise ConfigError(
            f"the security descriptor is {sddl!r}, which Windows cannot read: {exc.strerror}",
            hint="write it in Microsoft's security descriptor definition language, such as "
            "D:P(A;;GA;;;SY)(A;;GA;;;BA)",
        ) from exc


@trio.lowlevel.enable_ki_protection
def _create_instance(path: str, descriptor: bytes, flags: int = 0) -> _PipeEnd:
    return _PipeEnd(
        win32.create_named_pipe(
            path,
            win32.PIPE_ACCESS_DUPLEX | win32.FILE_FLAG_OVERLAPPED | flags,
            _SERVER_MODE,
            # How many clients there may be is for the server to limit.
            instances=win32.PIPE_UNLIMITED_INSTANCES,
            buffer_bytes=_BUFFER_BYTES,
            descriptor=descriptor,
        )
    )


def _refuse_live_server(refusal: OSError, path: str) -> None:
    """Raise if a server has the pipe; return if nobody serves it."""
    try:
        handle = win32.create_file(path, win32.FILE_READ_ATTRIBUTES, _CLIENT_FLAGS)
    except OSError as exc:
        if exc.winerror == win32.ERROR_FILE_NOT_FOUND:
            return
        pid = None
    else:
        try:
            pid = credentials.server_of(handle).pid
        finally:
            win32.close_handle(handle)
    raise refusals.in_use(path, pid) from refusal
