"""One end of a named pipe: a handle that is closed only when the kernel is done with it.

Streams and listeners do all they do with one of these. This module must never close a handle that an
operation still uses. Only for Windows.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator

import trio

if sys.platform != "win32":  # mypy skips the rest elsewhere
    raise ImportError("for Windows only")

from trio_ipc.transports.windows import win32


class PipeEnd:
    """A handle that is closed only when no operation uses it any longer.

    Trio cancels an operation by its handle. Were the handle closed under a task that waits, a cancellation
    that comes before the task wakes would name a handle that is no more, or by then somebody else's. So
    closing only cancels what is pending; who leaves last closes.

    Args:
        handle: an overlapped one. It is owned from when this is called, also if it raises.
        registered: whether it belongs to Trio's port already, which a handle does for good.

    Attributes:
        closed: whether nobody may begin another operation.
    """

    def __init__(self, handle: int, *, registered: bool = False) -> None:
        self._handle = handle
        self._users = 0
        self._released = trio.Event()
        self.closed = False
        if registered:
            return
        try:
            trio.lowlevel.register_with_iocp(handle)
        except BaseException:
            self.close()
            raise

    def check_open(self) -> None:
        """Raise :exc:`trio.ClosedResourceError` if this end was closed."""
        if self.closed:
            raise trio.ClosedResourceError("this pipe was closed")

    @property
    def handle(self) -> int:
        """The handle, for a call that does not wait. Raises as :meth:`check_open` does."""
        self.check_open()
        return self._handle

    @contextlib.contextmanager
    def in_use(self) -> Iterator[int]:
        """Lend the handle to one operation, from before it begins until the kernel is done with it.

        A caller with several to wait for comes back for each, since this end may be closed between two.
        Raises as :meth:`check_open` does.
        """
        handle = self.handle
        self._users += 1
        try:
            yield handle
        finally:
            self._users -= 1
            if self.closed and not self._users:
                self._close_handle()

    def close(self) -> None:
        """Cancel what is pending, and close the handle once nobody uses it. Idempotent."""
        if self.closed:
            return
        self.closed = True
        if self._users:
            win32.cancel_io(self._handle)
        else:
            self._close_handle()

    def release(self) -> None:
        """Be closed, but leave the handle open: somebody else owns it. No operation may be in progress."""
        self.closed = True
        self._released.set()

    async def aclose(self) -> None:
        """Close, and wait until the system has let go of the handle.

        Cancellation closes all the same; only the wait is cut short.
        """
        self.close()
        await self._released.wait()

    def _close_handle(self) -> None:
        self._released.set()
        win32.close_handle(self._handle)

    def __del__(self) -> None:
        if not self.closed:
            warnings.warn("a named pipe was not closed", ResourceWarning, source=self, stacklevel=1)
            self.close()
