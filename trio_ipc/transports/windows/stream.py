"""A connected end of a named pipe as a :class:`~trio_ipc.transports.LocalStream`.

Every operation is an overlapped one, on Trio's completion port through the calls that :mod:`trio.lowlevel`
makes public. This module must never let a peer stop the event loop, never free memory that the kernel still
works on, and never know what the bytes mean. Only for Windows.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from typing import Final

import trio

if sys.platform != "win32":  # mypy skips the rest elsewhere
    raise ImportError("for Windows only")

from trio_ipc.transports.credentials import PeerCredentials
from trio_ipc.transports.duplex import READ_SIZE, LocalStream, PeerState
from trio_ipc.transports.windows import win32
from trio_ipc.transports.windows.end import PipeEnd

#: The most that one write asks for. The kernel locks that much memory until the reader has taken it.
_WRITE_SIZE: Final = 1024 * 1024

#: How often to look whether the system has cancelled what it was told to. Seconds.
_CANCEL_PAUSE: Final = 0.001

#: What a read says once the peer has closed and all was read.
_PEER_CLOSED: Final = frozenset({win32.ERROR_BROKEN_PIPE, win32.ERROR_PIPE_NOT_CONNECTED})


class NamedPipeStream(LocalStream):
    """A connected end of a named pipe in byte mode.

    Made by :func:`open_named_pipe` and :meth:`NamedPipeListener.accept`. A pipe has no half-closing: who
    closes, closes both directions.

    Args:
        end: the connected end, which the stream owns.
        endpoint: the pipe's name, in full.
        peer: who is at the other end.

    Attributes:
        endpoint, peer: as given.
    """

    writes_at_once = False

    def __init__(self, end: PipeEnd, endpoint: str, peer: PeerCredentials) -> None:
        super().__init__(endpoint, peer)
        self._end = end
        # One read at a time fills this. What it brought stays there until read() is asked for it.
        self._memory = bytearray(READ_SIZE)
        self._kept = memoryview(b"")
        self._failure: OSError | None = None
        self._attempt: _Attempt | None = None
        self._waits = False

    # --- Reading ---

    @trio.lowlevel.enable_ki_protection
    def read(self, max_bytes: int) -> bytes | None:
        """Return bytes that are there; see :meth:`Duplex.read`. None as long as a task waits for them."""
        self._look(self._end.handle)
        if self._kept:
            data = bytes(self._kept[:max_bytes])
            self._kept = self._kept[max_bytes:]
            return data
        if self._failure is None:
            return None
        if self._failure.winerror in _PEER_CLOSED:
            return b""
        raise trio.BrokenResourceError(f"cannot read: {self._failure.strerror}") from self._failure

    def _look(self, handle: int) -> None:
        """Take what is there into the stream's memory, unless that is in use."""
        if self._kept or self._failure is not None or self._waits:
            return
        if self._attempt is None:
            try:
                # Mostly there is nothing, and to ask is one call where to try is five.
                if win32.peek_named_pipe(handle):
                    self._attempt = _Attempt(handle, self._memory)
                    self._attempt.cancel()
            except OSError as exc:
                self._fail(exc)
        self._finish_attempt()

    def _finish_attempt(self) -> None:
        if self._attempt is None or not self._attempt.is_over:
            return
        attempt, self._attempt = self._attempt, None
        try:
            self._kept = memoryview(self._memory)[: attempt.result()]
        except OSError as exc:
            self._fail(exc)

    def _fail(self, exc: OSError) -> None:
        # Its traceback leads to this stream, which only the garbage collector would free then.
        self._failure = exc.with_traceback(None)

    @trio.lowlevel.enable_ki_protection
    async def wait_readable(self) -> None:
        """Wait until something has come, and keep it for :meth:`read`; see :meth:`Duplex.wait_readable`.

        Cancellation loses no bytes: what came first is kept. It takes effect once the kernel is done with the
        stream's memory.
        """
        if self._waits:
            raise trio.BusyResourceError("another task is receiving on this stream")
        self._waits = True
        try:
            while self._attempt is not None:
                await trio.sleep(_CANCEL_PAUSE)
                self._finish_attempt()
            if self._kept or self._failure is not None:
                await trio.lowlevel.checkpoint()
            # A peer may write no bytes at all, and the reader is told so (WriteFile). That is not the end.
            while not self._kept and self._failure is None:
                await self._receive()
            self._end.check_open()
        finally:
            self._waits = False

    async def _receive(self) -> None:
        with self._end.in_use() as handle:
            try:
                size = await trio.lowlevel.readinto_overlapped(handle, self._memory)
            except OSError as exc:
                self._fail(exc)
                await trio.lowlevel.checkpoint()
            else:
                self._kept = memoryview(self._memory)[:size]

    # --- Writing ---

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take nothing; see :meth:`Duplex.write`.

        Windows does not tell how much room a pipe has, and a write that is begun cannot be taken back whole.
        """
        self._end.check_open()
        return 0

    @trio.lowlevel.enable_ki_protection
    async def write_some(self, data: bytes | bytearray | memoryview) -> int:
        """Wait until the system has taken the data, the first MiB of it at the most, and return how much.

        See :meth:`Duplex.write_some`. What was taken is the peer's to read, even if this end closes right
        after.

        Cancellation may leave a part taken, nobody knows how much: the caller must close.
        """
        with self._end.in_use() as handle, memoryview(data).cast("B")[:_WRITE_SIZE] as part:
            try:
                written = await trio.lowlevel.write_overlapped(handle, part)
            except OSError as exc:
                self._end.check_open()
                raise trio.BrokenResourceError(f"cannot write: {exc.strerror}") from exc
            if not written:
                # A pipe that blocks takes everything or fails ("Named Pipe Type, Read, and Wait Modes").
                raise trio.BrokenResourceError("cannot write: the system took nothing")
            return written

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once, which :class:`trio.abc.SendStream` allows: Windows tells no pipe's free room.

        Cancellation changes nothing.
        """
        with self._sending:
            self._end.check_open()
            await trio.lowlevel.checkpoint()

    # --- The peer, and the end ---

    @trio.lowlevel.enable_ki_protection
    def peer_state(self) -> PeerState:
        """Return what has become of the peer; see :meth:`Duplex.peer_state`.

        Windows tells that a peer has closed only once all that it wrote was read.
        """
        if self._end.closed:
            return PeerState.GONE
        self._finish_attempt()
        try:
            available = win32.peek_named_pipe(self._end.handle)
        except OSError:
            return PeerState.GONE
        if self._failure is not None:
            return PeerState.GONE
        return PeerState.HAS_INPUT if available or self._kept else PeerState.OPEN

    @trio.lowlevel.enable_ki_protection
    def close(self) -> bool:
        """Close both directions at once. A task that waits in this stream wakes. Idempotent.

        The system lets go of the handle once such a task has woken; :meth:`aclose` waits for that.
        """
        if self._attempt is not None:
            attempt, self._attempt = self._attempt, None
            attempt.abandon()
        self._end.close()
        return True

    async def aclose(self) -> None:
        """Close both directions at once. A task that waits in this stream wakes. Idempotent.

        What was sent may still be read by the peer.

        Cancellation closes all the same; only the wait for the system to let go of the handle is cut short.
        """
        self.close()
        await self._end.aclose()


class _Attempt:
    """A read that should be over at once, or else be cancelled.

    PeekNamedPipe also counts what a writer still waits to be rid of, and who gives up writing takes that
    back: what was seen may be gone when it is read, and a read that waited for it would wait for ever. The
    completion port hears nothing of this one.

    Args:
        handle: of a pipe's end.
        memory: where the bytes shall be. Nothing else may use it until this is over.
    """

    def __init__(self, handle: int, memory: bytearray) -> None:
        self._in_flight = False
        self._handle = handle
        self._target = (ctypes.c_char * len(memory)).from_buffer(memory)
        self._event = win32.create_event()
        self._overlapped = win32.operation(self._event)
        try:
            win32.begin_read(handle, self._target, self._overlapped)
        except BaseException:
            win32.close_handle(self._event)
            raise
        self._in_flight = True

    @property
    def is_over(self) -> bool:
        """Whether the kernel is done with the memory."""
        return win32.has_completed(self._overlapped)

    def cancel(self) -> None:
        """Tell the system that nobody waits. It may take a moment to obey."""
        if not self.is_over:
            win32.cancel_operation(self._handle, self._overlapped)

    def result(self) -> int:
        """Return how many bytes it brought, none if it was cancelled first. Blocks until it is over.

        Raises:
            OSError: it failed.
        """
        self._in_flight = False
        try:
            return win32.result_of(self._handle, self._overlapped)
        except OSError as exc:
            if exc.winerror == win32.ERROR_OPERATION_ABORTED:
                return 0
            raise
        finally:
            win32.close_handle(self._event)

    def abandon(self) -> None:
        """Forget what it brings, for the stream is closed.

        Blocks until the kernel is done with the memory, which depends on no peer: it was told to cancel.
        """
        with contextlib.suppress(OSError):
            self.cancel()
        with contextlib.suppress(OSError):
            self.result()

    def __del__(self) -> None:
        if self._in_flight:
            self.abandon()
