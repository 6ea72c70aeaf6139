r"""Named pipes for the legacy transport: a channel, and connecting.

Reading keeps at most one operation in progress, into memory of the channel's own: a cancelled wait leaves it
there, and what it brings is the next reader's. A client lends the server nothing of its own rights. This
module must never free memory that the kernel still works on. Only for Windows.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from typing import Final

import trio

from trio_ipc.channel import Channel
from trio_ipc.config import IpcConfig
from trio_ipc.endpoint import pipe_path
from trio_ipc.legacy.channel import READS_IN_A_ROW, LegacyChannel
from trio_ipc.legacy.frames import HEADER_BYTES
from trio_ipc.legacy.listener import ConnectionCount
from trio_ipc.transports import PeerCredentials, PeerState, credentials, os_errors
from trio_ipc.transports.attempts import until_made
from trio_ipc.transports.windows import win32

assert sys.platform == "win32", "for Windows only"  # noqa: S101  # mypy skips the rest elsewhere

from trio_ipc.legacy.operations import Operation  # noqa: E402

#: Bytes asked for by one read.
_READ_SIZE: Final = 65_536

#: The most that one write asks for. The kernel locks that much memory until the reader has taken it.
_WRITE_SIZE: Final = 1024 * 1024

#: GENERIC_WRITE would ask for the right to serve, too ("Named Pipe Security and Access Rights").
_CLIENT_ACCESS: Final = win32.GENERIC_READ | win32.FILE_WRITE_DATA

#: The server may learn who the client is, and may not act in its name ("Impersonation Levels").
CLIENT_FLAGS: Final = win32.FILE_FLAG_OVERLAPPED | win32.SECURITY_SQOS_PRESENT | win32.SECURITY_IDENTIFICATION


class PipeChannel(LegacyChannel):
    """A channel over a connected end of a byte-mode pipe.

    Args:
        handle: an overlapped one, on which nothing is in progress. The channel owns it from when this
            returns.
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
        reading = Operation(handle)
        try:
            writing = Operation(handle)
        except BaseException:
            reading.close()
            raise
        super().__init__(config, endpoint=endpoint, peer=peer, count=count)
        self._handle = handle
        self._reading, self._writing = reading, writing
        self._memory = bytearray(_READ_SIZE)
        self._target = (ctypes.c_char * _READ_SIZE).from_buffer(self._memory)
        self._arrived = bytearray()
        self._most_ahead = HEADER_BYTES + config.max_frame_bytes
        self._at_eof = False
        self._outgoing = b""

    def _read_now(self, at_most: int) -> bytes | None:
        if self._closed:
            raise trio.ClosedResourceError
        if not self._arrived:
            self._look()
        if self._arrived:
            data = bytes(self._arrived[:at_most])
            del self._arrived[:at_most]
            return data
        return b"" if self._at_eof else None

    def _look(self) -> bool:
        """Take what the read in progress has brought; return whether that was anything.

        One that brought nothing is no end: a peer may write no bytes at all, and the reader is told so
        (WriteFile).
        """
        try:
            if not self._reading.in_flight:
                self._reading.begin(lambda state: win32.begin_read(self._handle, self._target, state))
            if not self._reading.has_completed():
                return False
            size = self._reading.result()
        except OSError:
            self._at_eof = True  # broken is closed, just less politely
            return False
        self._arrived += memoryview(self._memory)[:size]
        return size > 0

    async def _read(self, at_most: int) -> bytes:
        while True:
            await self._reading.wait()
            data = self._read_now(at_most)
            if data is not None:
                return data

    def _write(self, data: memoryview) -> int:
        if self._closed:
            raise trio.ClosedResourceError
        try:
            if not self._writing.in_flight:
                self._outgoing = bytes(data[:_WRITE_SIZE])
                self._writing.begin(lambda state: win32.begin_write(self._handle, self._outgoing, state))
            if not self._writing.has_completed():
                return 0
            written = self._writing.result()
        except OSError as exc:
            raise trio.BrokenResourceError(f"cannot write: {exc.strerror}") from exc
        if written != len(self._outgoing):
            # A pipe that blocks takes everything or fails ("Named Pipe Type, Read, and Wait Modes").
            raise trio.BrokenResourceError(f"only {written} of {len(self._outgoing)} bytes were written")
        self._outgoing = b""
        return written

    async def _wait_writable(self) -> None:
        await self._writing.wait()

    @trio.lowlevel.enable_ki_protection
    def peer_state(self) -> PeerState:
        """Return what has become of the peer; see :meth:`Channel.peer_state`.

        A pipe tells that its peer has closed only once all was read, so that this reads ahead.
        """
        if self._closed:
            return PeerState.GONE
        for _ in range(READS_IN_A_ROW):
            if self._at_eof or len(self._arrived) >= self._most_ahead or not self._look():
                break
        if self._at_eof:
            return PeerState.GONE
        return PeerState.HAS_INPUT if self._arrived else PeerState.OPEN

    def _close(self) -> None:
        self._reading.close()
        self._writing.close()
        win32.close_handle(self._handle)

    def __del__(self) -> None:
        if not self._closed:
            warnings.warn("a named pipe was not closed", ResourceWarning, source=self, stacklevel=1)
            self.close()


async def connect(config: IpcConfig) -> Channel:
    """Connect to the configured pipe. The caller sets the deadline.

    While every instance is taken this tries again and again, as long as it may.

    Raises:
        ServerNotFoundError: there is no such pipe.
        EndpointPermissionError: the pipe's descriptor does not admit this user.
        OutOfResourcesError: this process or system lacks handles or memory for it.
        ConnectError: any other refusal by the system.

    Cancellation leaves nothing open.
    """
    return await until_made(lambda: connect_nowait(config))


def connect_nowait(config: IpcConfig) -> Channel | None:
    """Connect to the configured pipe, if that takes no wait, else return None.

    Raises what :func:`connect` raises.
    """
    path = pipe_path(config.endpoint_path)
    try:
        return _open(path, config)
    except OSError as exc:
        if exc.winerror == win32.ERROR_PIPE_BUSY:
            return None
        raise os_errors.connect_error(exc, path) from exc


@trio.lowlevel.enable_ki_protection
def _open(path: str, config: IpcConfig) -> PipeChannel:
    handle = win32.create_file(path, _CLIENT_ACCESS, CLIENT_FLAGS)
    try:
        return PipeChannel(handle, config, endpoint=path, peer=credentials.server_of(handle))
    except BaseException:
        win32.close_handle(handle)
        raise
