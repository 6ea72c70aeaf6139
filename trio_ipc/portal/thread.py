"""A Trio run in a thread of its own, with anyio's portal to it.

An adapter has one for itself unless its user gives it a portal. The thread is a daemon: it never keeps a
program from ending. This module must never know what is kept open there.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from concurrent.futures import Future
from typing import Final

import anyio
import trio
from anyio.from_thread import BlockingPortal

from trio_ipc.errors import OutOfResourcesError

#: Seconds that the end of a program waits for a thread that was forgotten: it closes sockets, which takes a
#: thousandth of that.
_PATIENCE: Final = 1.0


def future_of_nobody_to_cancel() -> Future[object]:
    """Return a future that only its maker can end."""
    future: Future[object] = Future()
    future.set_running_or_notify_cancel()
    return future


def _no_room(exc: OSError) -> OutOfResourcesError:
    error = OutOfResourcesError(
        f"Trio cannot be started in a thread: {exc.strerror}",
        hint="close what is not needed, raise the limit of open files (ulimit -n), or share a portal",
    )
    error.__cause__ = exc
    return error


class PortalThread:
    """A thread that runs Trio, and nothing else, from :meth:`start` until it is told to stop.

    anyio's ``start_blocking_portal`` is a context manager that has to be left, by who may block. This one may
    be told to stop by the garbage collector, too, and be waited for by an event loop.

    Attributes:
        portal: leads to it, once :attr:`started` is done.
        started: done when the portal is there; its failure is why there is none.
    """

    portal: BlockingPortal

    def __init__(self) -> None:
        self.started: Future[object] = future_of_nobody_to_cancel()
        self._ended = future_of_nobody_to_cancel()
        self._pid = os.getpid()
        self._stopping = False
        self._stop = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = threading.Thread(target=self._run, name="trio_ipc portal", daemon=True)

    def start(self) -> None:
        """Start it; :attr:`started` tells the outcome. Does not wait for it."""
        atexit.register(self._at_exit)
        self._thread.start()

    def stop(self) -> Future[object]:
        """Have everything in it cancelled, and the thread end. Any thread may ask; does not wait. Idempotent.

        Returns:
            What is done when Trio has ended, if it was ever started.
        """
        self._stopping = True
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._stop.set, idempotent=True)
        elif not self._thread.ident and not self._ended.done():
            atexit.unregister(self._at_exit)
            self._ended.set_result(None)  # it was never started
        return self._ended

    def join(self) -> None:
        """Wait until it is gone, once what :meth:`stop` gave is done: that takes no time any more."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            anyio.run(self._main, backend="trio")
        except BaseException as exc:
            if self.started.done():
                raise  # a bug, told at the thread's end; the waiting caller was told
            self.started.set_exception(_no_room(exc) if isinstance(exc, OSError) else exc)
        finally:
            # Not before: who has told it to stop may have been cancelled, and wait for nothing any more.
            atexit.unregister(self._at_exit)
            if not self._ended.done():  # an interrupt has come in the middle of start()
                self._ended.set_result(None)

    async def _main(self) -> None:
        async with BlockingPortal() as self.portal:
            self._token = trio.lowlevel.current_trio_token()
            if self._stopping:
                self._stop.set()  # it was told to before there was anybody to tell
            self.started.set_result(None)
            await self._stop.wait()
            await self.portal.stop(cancel_remaining=True)

    def _at_exit(self) -> None:
        """Close what the program has forgotten to close: a server's endpoint would stay."""
        if os.getpid() == self._pid:  # and not in a fork, which has no such thread
            self.stop()
            self._thread.join(_PATIENCE)
