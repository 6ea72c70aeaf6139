r"""Named pipes for the legacy transport: overlapped operations, each with an event that is waited for.

The default waits at Trio's completion port; here an operation sets an event, for which a thread waits.
Reading keeps at most one operation under way, into memory of the channel's own: a cancelled wait
leaves it there, and what it brings is the next reader's. The same promises as the default's, by code of its
own: only the owner (and SYSTEM) reaches the pipe, no other machine does, and a name that somebody else holds
is never shared. This module must never close a handle or free memory that the kernel still works on. Only
for Windows.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from trio_ipc.channel import Channel
from trio_ipc.config import IpcConfig
from trio_ipc.endpoint import pipe_path
from trio_ipc.transports import (
    Handover,
    PeerCredentials,
    PeerPolicy,
    TransferableListener,
    credentials,
    refusals,
    win32,
)

from .channel import ConnectionCount, LegacyChannel
from .frames import checksum_of

if TYPE_CHECKING:
    from outcome import Outcome

assert sys.platform == "win32", "for Windows only"  # noqa: S101  # mypy skips the rest elsewhere

_logger = logging.getLogger(__name__)

#: Bytes asked for by one read, and bytes that each direction of a pipe holds.
_READ_SIZE: Final = 65_536
_BUFFER_BYTES: Final = 65_536

#: How long to wait for the clients of a server that is gone to let go of its pipe. Seconds.
_RECLAIM_PATIENCE: Final = 1.0
_RECLAIM_PAUSE: Final = 0.02

#: GENERIC_WRITE would ask for the right to serve, too ("Named Pipe Security and Access Rights").
_CLIENT_ACCESS: Final = win32.GENERIC_READ | win32.FILE_WRITE_DATA

#: The server may learn who the client is, and may not act in its name ("Impersonation Levels").
_CLIENT_FLAGS: Final = (
    win32.FILE_FLAG_OVERLAPPED | win32.SECURITY_SQOS_PRESENT | win32.SECURITY_IDENTIFICATION
)

_SERVER_MODE: Final = (
    win32.PIPE_TYPE_BYTE | win32.PIPE_READMODE_BYTE | win32.PIPE_WAIT | win32.PIPE_REJECT_REMOTE_CLIENTS
)


class _Operation:
    """One overlapped operation at a time on a handle, and the event that it sets in the end.

    The thread that waits for the event does so as long as the operation is under way, also when no task waits
    any more, and the event stays open for it. (`trio.lowlevel.WaitForSingleObject` stops its thread by a
    handle, and closes that at once. A thread that is late waits for what else has the number by then: Trio's
    issue 1271. Under Wine that may be the system's own handle of a write, which then seems to have failed.)
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._event = win32.create_event()
        self._overlapped = win32.OVERLAPPED()
        # There while a thread waits, and set when it does no more; by the thread itself if the run is over.
        self._thread_over: trio.Event | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._outcome: Outcome[None] | None = None
        self.under_way = False

    @trio.lowlevel.enable_ki_protection
    def begin(self, start: Callable[[win32.OVERLAPPED], None]) -> None:
        """Begin. Raises OSError if that failed, and then nothing is under way."""
        if self.under_way:
            raise trio.BusyResourceError("an operation is under way already")
        self._overlapped = win32.operation(self._event)
        start(self._overlapped)
        self.under_way = True

    def has_completed(self) -> bool:
        return win32.has_completed(self._overlapped)

    def result(self) -> int:
        """Return how many bytes it moved. Blocks until it has completed; raises OSError if it failed."""
        self.under_way = False
        return win32.result_of(self._handle, self._overlapped)

    async def wait(self) -> None:
        """Wait until it has completed. Returns, too, when this is closed; the caller finds out."""
        if not self._is_pending():
            await trio.lowlevel.checkpoint()
        # The thread may still have been there for the operation before.
        while self._is_pending():
            await self._thread().wait()
            if self._outcome is not None:
                self._outcome.unwrap()

    def _is_pending(self) -> bool:
        return self.under_way and not self.has_completed()

    @trio.lowlevel.enable_ki_protection
    def _thread(self) -> trio.Event:
        """Have a thread wait for the event, and return what says that it does no more."""
        if self._thread_over is None:
            token = trio.lowlevel.current_trio_token()

            def deliver(outcome: Outcome[None]) -> None:
                try:
                    token.run_sync_soon(self._thread_ended, outcome)
                except trio.RunFinishedError:
                    self._thread_ended(outcome)

            trio.lowlevel.start_thread_soon(partial(win32.wait_for_event, self._event), deliver)
            self._thread_over = trio.Event()
        return self._thread_over

    def _thread_ended(self, outcome: Outcome[None]) -> None:
        self._outcome = outcome
        with self._lock:
            over, self._thread_over = self._thread_over, None
            if self._closed:
                win32.close_handle(self._event)
        assert over is not None  # noqa: S101 - for the type checker
        over.set()

    @trio.lowlevel.enable_ki_protection
    def cancel(self) -> bool:
        """Cancel what is under way, and return once the kernel is done. True if it was done before that."""
        if not self.under_way:
            return False
        win32.cancel_operation(self._handle, self._overlapped)
        try:
            self.result()  # at once: a pipe's operations can be cancelled
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Cancel, and give the event up. Who waits for it wakes."""
        self.cancel()
        with self._lock:
            self._closed = True
            if self._thread_over is None:
                win32.close_handle(self._event)
            else:
                # It may have been late, and the event have been reset for an operation that did not begin.
                win32.set_event(self._event)


class PipeChannel(LegacyChannel):
    """A channel over a connected end of a byte-mode pipe.

    Args:
        handle: an overlapped one, on which nothing is under way. The channel owns it from when this returns.
        count: of the listener that accepted it, if one did.
    """

    def __init__(
        self,
        handle: int,
        config: IpcConfig,
        *,
        endpoint: str,
        peer: PeerCredentials | None,
        count: ConnectionCount | None = None,
    ) -> None:
        self._closed = True  # for __del__, should the next lines fail
        reading = _Operation(handle)
        try:
            writing = _Operation(handle)
        except BaseException:
            reading.close()
            raise
        super().__init__(config, endpoint=endpoint, peer=peer, count=count)
        self._handle = handle
        self._reading, self._writing = reading, writing
        self._memory = bytearray(_READ_SIZE)
        self._target = (ctypes.c_char * _READ_SIZE).from_buffer(self._memory)
        self._unread = memoryview(b"")
        self._outgoing = b""

    def _read_now(self, room: memoryview) -> int | None:
        try:
            while not self._unread:
                if not self._reading.under_way:
                    self._reading.begin(lambda state: win32.begin_read(self._handle, self._target, state))
                if not self._reading.has_completed():
                    return None
                # A peer may write no bytes at all, and the reader is told so (WriteFile). Read on then.
                self._unread = memoryview(self._memory)[: self._reading.result()]
        except OSError:
            return 0  # broken is closed, just less politely
        count = min(len(room), len(self._unread))
        room[:count] = self._unread[:count]
        self._unread = self._unread[count:]
        return count

    async def _wait_readable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        if self._unread or not self._reading.under_way:
            await trio.lowlevel.checkpoint()
            return
        await self._reading.wait()
        if self._closed:
            raise trio.ClosedResourceError

    def _begin_write(self, parts: list[bytes]) -> bool:
        self._outgoing = b"".join(parts)
        try:
            self._writing.begin(lambda state: win32.begin_write(self._handle, self._outgoing, state))
        except OSError as exc:
            raise trio.BrokenResourceError(f"cannot write: {exc.strerror}") from exc
        if not self._writing.has_completed():
            return False
        self._judge_write()
        return True

    async def _finish_write(self) -> None:
        await self._writing.wait()
        if self._closed:
            raise trio.ClosedResourceError
        self._judge_write()

    def _judge_write(self) -> None:
        size, self._outgoing = len(self._outgoing), b""
        try:
            written = self._writing.result()
        except OSError as exc:
            raise trio.BrokenResourceError(f"cannot write: {exc.strerror}") from exc
        if written != size:
            # A pipe that blocks takes everything or fails ("Named Pipe Type, Read, and Wait Modes").
            raise trio.BrokenResourceError(f"only {written} of {size} bytes were written")

    def _is_gone(self) -> bool:
        if self._closed:
            return True
        try:
            win32.peek_named_pipe(self._handle)
        except OSError:
            return True
        return False

    def _has_nothing(self) -> bool:
        if self._unread or (self._reading.under_way and self._reading.has_completed()):
            return False
        try:
            return win32.peek_named_pipe(self._handle) == 0
        except OSError:
            return False

    def _close(self) -> None:
        self._reading.close()
        self._writing.close()
        win32.close_handle(self._handle)

    def __del__(self) -> None:
        if not self._closed:
            warnings.warn("a named pipe was not closed", ResourceWarning, source=self, stacklevel=1)
            self._break()


class PipeListener(TransferableListener[Channel]):
    """Accepts channels. Made by :func:`listen` and :func:`adopt`.

    It always holds one instance that a client can connect to, so that no client is told that there is no
    server while there is one, and nobody else can take the name.

    Args:
        handover: an instance that waits for its client, which the listener owns when this returns.
        config: for every channel.

    Attributes:
        endpoint: the pipe's name, in full.
        connections: how many of its channels are open.
    """

    def __init__(self, handover: Handover, config: IpcConfig) -> None:
        self._connecting = _Operation(handover.handle)
        self._descriptor = handover.descriptor
        self._handle = handover.handle
        self._has_client = handover.has_client
        self._on_port = handover.on_port
        self._config = config
        self._accepting = False
        self._owns = True
        self.endpoint = handover.endpoint
        self.connections = ConnectionCount()

    async def accept(self) -> Channel:
        """Wait for the next client.

        Raises:
            OSError: with EMFILE, ENOBUFS or ENOMEM if the system is short of resources for the instance that
                must wait for the next client. This one is kept; the caller should wait a moment and go on.
            EndpointError: the pipe's descriptor forbids this process to make that instance.
            trio.BusyResourceError: another task is accepting.
            trio.ClosedResourceError: this listener was closed, before or meanwhile.

        Cancellation loses no client.
        """
        if self._accepting:
            raise trio.BusyResourceError("another task is accepting from this pipe")
        self._accepting = True
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._check_open()
            if self._has_client:
                await trio.lowlevel.cancel_shielded_checkpoint()
            else:
                await self._wait_for_client()
            self._check_open()
            return self._take_client()
        finally:
            self._accepting = False

    def _check_open(self) -> None:
        if not self._owns:
            raise trio.ClosedResourceError("this listener was closed")

    async def _wait_for_client(self) -> None:
        try:
            self._connecting.begin(lambda state: win32.connect_named_pipe(self._handle, state))
        except OSError as exc:
            if exc.winerror not in {win32.ERROR_PIPE_CONNECTED, win32.ERROR_NO_DATA}:
                raise
            self._has_client = True
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        try:
            await self._connecting.wait()
        finally:
            # Nothing is under way when this is left. A client that came with a cancellation is kept.
            if self._connecting.under_way:
                self._has_client = self._connecting.cancel()

    @trio.lowlevel.enable_ki_protection
    def _take_client(self) -> PipeChannel:
        # The next instance is there before this one is handed out.
        with contextlib.ExitStack() as undo:
            successor = self._create_successor()
            undo.callback(win32.close_handle, successor)
            connecting = _Operation(successor)
            undo.callback(connecting.close)
            channel = PipeChannel(
                self._handle,
                self._config,
                endpoint=self.endpoint,
                peer=credentials.client_of(self._handle),
                count=self.connections,
            )
            undo.pop_all()
        self._connecting.close()
        self._connecting, self._handle = connecting, successor
        self._has_client = self._on_port = False
        return channel

    def _create_successor(self) -> int:
        try:
            return _create_instance(self.endpoint, self._descriptor)
        except OSError as exc:
            if exc.winerror == win32.ERROR_NO_SYSTEM_RESOURCES:
                raise OSError(errno.ENOBUFS, exc.strerror) from exc
            if exc.winerror == win32.ERROR_ACCESS_DENIED:
                raise refusals.no_further_instance(self.endpoint) from exc
            raise

    async def aclose(self) -> None:
        """Stop listening; the name is free once the last channel of it is closed too. Idempotent."""
        if self._owns:
            self.let_go()
            win32.close_handle(self._handle)
        await trio.lowlevel.checkpoint()

    def hand_over(self) -> Handover:
        """Return the instance that waits for a client; see :meth:`TransferableListener.hand_over`."""
        self._check_open()
        if self._accepting:
            raise trio.BusyResourceError("a task is accepting from this pipe")
        return Handover(
            endpoint=self.endpoint,
            descriptor=self._descriptor,
            handle=self._handle,
            has_client=self._has_client,
            on_port=self._on_port,
        )

    def let_go(self) -> None:
        """Be closed, and leave all to the new owner; see :meth:`TransferableListener.let_go`."""
        self._owns = False
        self._connecting.close()
        _logger.info(
            "%s: the legacy transport accepts no more; %d of its connections are open",
            self.endpoint,
            self.connections.open,
            extra={"endpoint": self.endpoint, "connections": self.connections.open},
        )

    def __del__(self) -> None:
        if getattr(self, "_owns", False):
            warnings.warn("a named pipe was not closed", ResourceWarning, source=self, stacklevel=1)
            self._connecting.close()
            win32.close_handle(self._handle)


# --- Connecting ---------------------------------------------------------------------------------------------


async def connect(config: IpcConfig) -> Channel:
    """Connect to the configured pipe. The caller sets the deadline.

    While every instance is taken this tries again and again, as long as it may.

    Raises:
        ServerNotFoundError: there is no such pipe.
        EndpointPermissionError: the pipe's descriptor does not admit this user.
        ConnectError: any other refusal by the system.

    Cancellation leaves nothing open.
    """
    path = pipe_path(config.endpoint_path)
    pause = 0.001
    while True:
        await trio.lowlevel.checkpoint()
        try:
            return _open(path, config)
        except OSError as exc:
            if exc.winerror != win32.ERROR_PIPE_BUSY:
                raise refusals.connect_error(exc, path) from exc
        await trio.sleep(pause)
        pause = min(2 * pause, 0.05)


@trio.lowlevel.enable_ki_protection
def _open(path: str, config: IpcConfig) -> PipeChannel:
    handle = win32.create_file(path, _CLIENT_ACCESS, _CLIENT_FLAGS)
    try:
        return PipeChannel(handle, config, endpoint=path, peer=credentials.server_of(handle))
    except BaseException:
        win32.close_handle(handle)
        raise


# --- Listening ----------------------------------------------------------------------------------------------


async def listen(config: IpcConfig, peers: PeerPolicy) -> PipeListener:
    """Create the configured pipe, for its owner, SYSTEM and whom the policy allows, and listen.

    Raises:
        ConfigError: a user of the policy is no security identifier.
        EndpointInUseError: another server has the pipe.
        EndpointError: the system refuses, or clients hold on to the pipe of a server that is gone.

    Cancellation leaves nothing behind.
    """
    path = pipe_path(config.endpoint_path)
    descriptor = win32.security_descriptor(credentials.descriptor_for(peers))
    patience = trio.current_time() + _RECLAIM_PATIENCE
    while True:
        await trio.lowlevel.checkpoint()
        try:
            return _first(path, descriptor, config)
        except OSError as exc:
            # A pipe lasts until its last handle is closed. Clients of a server that died have one each
            # until they notice, which should not keep the next server from starting.
            if exc.winerror != win32.ERROR_ACCESS_DENIED or trio.current_time() > patience:
                raise refusals.listen_error(exc, path) from exc
            _refuse_live_server(exc, path)
        await trio.sleep(_RECLAIM_PAUSE)


def adopt(handover: Handover, config: IpcConfig) -> PipeListener:
    """Return a listener on what another one hands over.

    Raises:
        ImportError: a library that the channels need is missing. Better now than at each connection.
        OSError: the system refuses.
    """
    checksum_of(config.crc32_variant)
    return PipeListener(handover, config)


@trio.lowlevel.enable_ki_protection
def _first(path: str, descriptor: bytes, config: IpcConfig) -> PipeListener:
    handle = _create_instance(path, descriptor, win32.FILE_FLAG_FIRST_PIPE_INSTANCE)
    try:
        handover = Handover(
            endpoint=path, descriptor=descriptor, handle=handle, has_client=False, on_port=False
        )
        return PipeListener(handover, config)
    except BaseException:
        win32.close_handle(handle)
        raise


def _create_instance(path: str, descriptor: bytes, flags: int = 0) -> int:
    return win32.create_named_pipe(
        path,
        win32.PIPE_ACCESS_DUPLEX | win32.FILE_FLAG_OVERLAPPED | flags,
        _SERVER_MODE,
        instances=win32.PIPE_UNLIMITED_INSTANCES,
        buffer_bytes=_BUFFER_BYTES,
        descriptor=descriptor,
    )


def _refuse_live_server(refusal: OSError, path: str) -> None:
    """Raise if a server has the pipe; return if nobody serves it."""
    pid = None
    try:
        handle = win32.create_file(path, win32.FILE_READ_ATTRIBUTES, _CLIENT_FLAGS)
    except OSError as exc:
        if exc.winerror == win32.ERROR_FILE_NOT_FOUND:
            return
    else:
        pid = credentials.server_of(handle).pid
        win32.close_handle(handle)
    raise refusals.in_use(path, pid) from refusal
