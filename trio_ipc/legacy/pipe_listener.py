r"""A named pipe that waits for clients of the legacy transport.

The same promises as the default's, by code of its own: only the owner (and SYSTEM) reaches the pipe, no other
machine does, and a name that somebody else holds is never shared. This module must never lose a client that
has connected. Only for Windows.
"""

from __future__ import annotations

import contextlib
import errno
import sys
import warnings
from typing import Final

import trio

from trio_ipc.channel import Channel
from trio_ipc.config import IpcConfig
from trio_ipc.endpoint import pipe_path
from trio_ipc.legacy.frames import load_checksums
from trio_ipc.legacy.listener import LegacyListener
from trio_ipc.transports import Detached, PeerPolicy, credentials, os_errors, policy
from trio_ipc.transports.windows import win32

assert sys.platform == "win32", "for Windows only"  # noqa: S101  # mypy skips the rest elsewhere

from trio_ipc.legacy.operations import Operation  # noqa: E402
from trio_ipc.legacy.pipe import CLIENT_FLAGS, PipeChannel  # noqa: E402

#: Bytes that each direction of a pipe holds.
_BUFFER_BYTES: Final = 65_536

#: How long to wait for the clients of a server that is gone to let go of its pipe. Seconds.
_RECLAIM_LIMIT: Final = 1.0
_RECLAIM_PAUSE: Final = 0.02

_SERVER_MODE: Final = (
    win32.PIPE_TYPE_BYTE | win32.PIPE_READMODE_BYTE | win32.PIPE_WAIT | win32.PIPE_REJECT_REMOTE_CLIENTS
)


class PipeListener(LegacyListener):
    """Accepts channels. Made by :func:`listen` and :func:`adopt`.

    It always holds an instance, and by that the name: no client is told that there is no server while there
    is one, and nobody else can take it. One client can connect to that instance ahead of :meth:`accept`. From
    then until :meth:`accept` has made the next one nobody else can: they are told that the pipe is busy, and
    wait in :func:`connect`.

    Args:
        detached: an instance that waits for its client, which the listener owns when this returns.
        config: for every channel.
    """

    def __init__(self, detached: Detached, config: IpcConfig) -> None:
        self._connecting = Operation(detached.handle)
        super().__init__(detached.endpoint, config)
        self._descriptor = detached.descriptor
        self._handle = detached.handle
        self._has_client = detached.has_client
        self._on_port = detached.on_port
        self._accepting = False

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
            # Nothing is in progress when this is left. A client that came with a cancellation is kept.
            if self._connecting.in_flight:
                self._has_client = self._connecting.cancel()

    @trio.lowlevel.enable_ki_protection
    def _take_client(self) -> PipeChannel:
        # The next instance is there before this one is handed out.
        with contextlib.ExitStack() as undo:
            successor = self._create_successor()
            undo.callback(win32.close_handle, successor)
            connecting = Operation(successor)
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
                raise os_errors.no_further_instance(self.endpoint) from exc
            raise

    async def aclose(self) -> None:
        """Stop listening; the name is free once the last channel of it is closed too. Idempotent.

        Cancellation closes all the same.
        """
        if self._owns:
            self.release()
            win32.close_handle(self._handle)
        await trio.lowlevel.checkpoint()

    def detach(self) -> Detached:
        """Return the instance that waits for a client; see :meth:`DetachableListener.detach`."""
        self._check_open()
        if self._accepting:
            raise trio.BusyResourceError("a task is accepting from this pipe")
        return Detached(
            endpoint=self.endpoint,
            descriptor=self._descriptor,
            handle=self._handle,
            has_client=self._has_client,
            on_port=self._on_port,
        )

    def release(self) -> None:
        """Be closed, and leave all to the new owner; see :meth:`DetachableListener.release`."""
        super().release()
        self._connecting.close()

    def __del__(self) -> None:
        if getattr(self, "_owns", False):
            warnings.warn("a named pipe was not closed", ResourceWarning, source=self, stacklevel=1)
            self._connecting.close()
            win32.close_handle(self._handle)


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
    descriptor = win32.security_descriptor(policy.descriptor_for(peers))
    deadline = trio.current_time() + _RECLAIM_LIMIT
    while True:
        await trio.lowlevel.checkpoint()
        try:
            return _first(path, descriptor, config)
        except OSError as exc:
            # A pipe lasts until its last handle is closed. Clients of a server that died have one each
            # until they notice, which should not keep the next server from starting.
            if exc.winerror != win32.ERROR_ACCESS_DENIED or trio.current_time() > deadline:
                raise os_errors.listen_error(exc, path) from exc
            _refuse_live_server(exc, path)
        await trio.sleep(_RECLAIM_PAUSE)


def adopt(detached: Detached, config: IpcConfig) -> PipeListener:
    """Return a listener on what another one hands over.

    Raises:
        OSError: the system refuses.
    """
    load_checksums(config.crc32_variant)
    return PipeListener(detached, config)


@trio.lowlevel.enable_ki_protection
def _first(path: str, descriptor: bytes, config: IpcConfig) -> PipeListener:
    handle = _create_instance(path, descriptor, win32.FILE_FLAG_FIRST_PIPE_INSTANCE)
    try:
        detached = Detached(
            endpoint=path, descriptor=descriptor, handle=handle, has_client=False, on_port=False
        )
        return PipeListener(detached, config)
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
        handle = win32.create_file(path, win32.FILE_READ_ATTRIBUTES, CLIENT_FLAGS)
    except OSError as exc:
        if exc.winerror == win32.ERROR_FILE_NOT_FOUND:
            return
    else:
        pid = credentials.server_of(handle).pid
        win32.close_handle(handle)
    raise os_errors.in_use(path, pid) from refusal
