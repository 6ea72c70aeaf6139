r"""A named pipe that waits for clients, as a :class:`trio.abc.Listener`.

The same promises as :mod:`trio_ipc.transports.unix` makes: only the owner (and SYSTEM) reaches the pipe, no
other machine does, and a name that somebody else holds is never shared. This module must never lose a client
that has connected. Only for Windows.
"""

from __future__ import annotations

import ctypes
import errno
import sys
from typing import Final

import trio

if sys.platform != "win32":  # mypy skips the rest elsewhere
    raise ImportError("for Windows only")

from trio_ipc.endpoint import pipe_path
from trio_ipc.errors import ConfigError
from trio_ipc.transports import credentials, os_errors, policy
from trio_ipc.transports.detach import DetachableListener, Detached
from trio_ipc.transports.duplex import LocalListener, OneAtATime
from trio_ipc.transports.windows import win32
from trio_ipc.transports.windows.connecting import CLIENT_FLAGS
from trio_ipc.transports.windows.end import PipeEnd
from trio_ipc.transports.windows.stream import NamedPipeStream

#: Bytes that each direction of a pipe holds for a reader who is not there yet.
_BUFFER_BYTES: Final = 65_536

#: How long to wait for the clients of a server that is gone to let go of its pipe. Seconds.
_RECLAIM_LIMIT: Final = 1.0
_RECLAIM_PAUSE: Final = 0.02

_SERVER_MODE: Final = (
    win32.PIPE_TYPE_BYTE | win32.PIPE_READMODE_BYTE | win32.PIPE_WAIT | win32.PIPE_REJECT_REMOTE_CLIENTS
)


class NamedPipeListener(DetachableListener[NamedPipeStream], LocalListener[NamedPipeStream]):
    """A named pipe that waits for clients. Made by :func:`open_named_pipe_listeners`.

    It always holds an instance, and by that the name: no client is told that there is no server while there
    is one, and nobody else can take it. One client can connect to that instance ahead of :meth:`accept`. From
    then until :meth:`accept` has made the next one nobody else can: they are told that the pipe is busy, and
    wait in :func:`open_named_pipe`.

    Attributes:
        endpoint: the pipe's name, in full.
    """

    def __init__(self, endpoint: str, descriptor: bytes, first: PipeEnd, *, has_client: bool = False) -> None:
        self.endpoint = endpoint
        self._descriptor = descriptor
        self._waiting = first
        self._has_client = has_client
        self._overlapped = win32.OVERLAPPED()
        self._accepting = OneAtATime("accepting from this pipe")

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

    def _create_successor(self) -> PipeEnd:
        try:
            return _create_instance(self.endpoint, self._descriptor)
        except OSError as exc:
            if exc.winerror == win32.ERROR_NO_SYSTEM_RESOURCES:
                raise OSError(errno.ENOBUFS, exc.strerror) from exc
            if exc.winerror == win32.ERROR_ACCESS_DENIED:
                raise os_errors.no_further_instance(self.endpoint) from exc
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

        A client that connected and was not accepted yet reads end of file. What was accepted goes on.

        Cancellation closes all the same; only the wait for the system to let go of the handle is cut short.
        """
        await self._waiting.aclose()

    def detach(self) -> Detached:
        """Return the instance that waits for a client; see :meth:`DetachableListener.detach`."""
        with self._accepting, self._waiting.in_use() as handle:
            return Detached(
                endpoint=self.endpoint,
                descriptor=self._descriptor,
                handle=handle,
                has_client=self._has_client,
                on_port=True,
            )

    def release(self) -> None:
        """Be closed, and leave the instance to its new owner; see :meth:`DetachableListener.release`."""
        self._waiting.release()


def adopt(detached: Detached) -> NamedPipeListener:
    """Return a listener on what another one hands over. Raises OSError if the system refuses."""
    if not detached.on_port:
        # Not by PipeEnd: where this fails, the handle stays open, and the other listener's.
        trio.lowlevel.register_with_iocp(detached.handle)
    end = PipeEnd(detached.handle, registered=True)
    return NamedPipeListener(detached.endpoint, detached.descriptor, end, has_client=detached.has_client)


# --- Listening ----------------------------------------------------------------------------------------------


async def listen(
    endpoint: str, peers: policy.PeerPolicy, *, group: int | str | None = None
) -> NamedPipeListener:
    """Listen as :func:`open_named_pipe_listener` does, on a pipe that admits whom the policy allows.

    A group is what Unix sockets have; a configuration on Windows has none.

    Raises:
        ConfigError: also if a user of the policy is no security identifier.
    """
    return await open_named_pipe_listener(endpoint, sddl=policy.descriptor_for(peers))


async def open_named_pipe_listener(endpoint: str, *, sddl: str | None = None) -> NamedPipeListener:
    r"""Create the pipe, for its owner and SYSTEM alone unless told otherwise, and listen.

    There is no backlog: one client at a time can connect ahead of :meth:`NamedPipeListener.accept`, others
    wait in :func:`open_named_pipe`.

    Args:
        endpoint: a bare name, or one in ``\\.\pipe\``.
        sddl: who may connect, in the security descriptor definition language; see
            :func:`.policy.descriptor_for`. It must let this process's user create instances. Other
            machines are refused whatever it says.

    Raises:
        ConfigError: the name is no pipe's on this machine, or the descriptor can't be read.
        EndpointInUseError: another server has the pipe.
        EndpointError: the system refuses, or clients hold on to the pipe of a server that is gone.

    Cancellation leaves nothing behind.
    """
    path = pipe_path(endpoint)
    if sddl is None:
        sddl = policy.descriptor_for(policy.PeerPolicy.own_user_and_root())
    descriptor = _descriptor(sddl)
    deadline = trio.current_time() + _RECLAIM_LIMIT
    while True:
        await trio.lowlevel.checkpoint()
        try:
            first = _create_instance(path, descriptor, win32.FILE_FLAG_FIRST_PIPE_INSTANCE)
        except OSError as exc:
            # A pipe lasts until its last handle is closed. Clients of a server that died have one each
            # until they notice, which should not keep the next server from starting.
            if exc.winerror != win32.ERROR_ACCESS_DENIED or trio.current_time() > deadline:
                raise os_errors.listen_error(exc, path) from exc
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
def _create_instance(path: str, descriptor: bytes, flags: int = 0) -> PipeEnd:
    return PipeEnd(
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
        handle = win32.create_file(path, win32.FILE_READ_ATTRIBUTES, CLIENT_FLAGS)
    except OSError as exc:
        if exc.winerror == win32.ERROR_FILE_NOT_FOUND:
            return
        pid = None
    else:
        try:
            pid = credentials.server_of(handle).pid
        finally:
            win32.close_handle(handle)
    raise os_errors.in_use(path, pid) from refusal
