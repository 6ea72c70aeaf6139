"""What the clients and servers of both adapters have in common: whose they are, and how they end.

An adapter waits in one of two ways, which are its users'; this module must never wait.
"""

from __future__ import annotations

import os
import threading
import warnings
from concurrent.futures import Future
from typing import Any, Generic, NoReturn, TypeVar

import trio
from anyio.from_thread import BlockingPortal

from trio_ipc.errors import ChannelClosedError, IpcError, shown_argument, writable

from .kept import Kept
from .thread import PortalThread

T = TypeVar("T")


def check_portal(portal: object) -> None:
    """Raise :exc:`TypeError` if this is neither a portal nor None."""
    if portal is not None and not isinstance(portal, BlockingPortal):
        raise TypeError(
            f"portal is {shown_argument(portal)}, must be a portal of anyio's, such as start_blocking_portal("
            '"trio") gives, or None for one of its own'
        )


class Adapter(Generic[T]):
    """Something of Trio's for somebody elsewhere, who has to open and close it.

    Args:
        kept: what is to be open.
        portal: where; None for a thread of its own.
    """

    _closed = True

    def __init__(self, kept: Kept[T], portal: BlockingPortal | None) -> None:
        if not isinstance(kept, Kept):
            what = f"{self._room}.{type(self).__name__}"
            raise TypeError(f"{what} is not made by itself: {self._room} has functions that open one")
        self._kept = kept
        self._portal = portal
        self._thread = PortalThread() if portal is None else None
        self._pid = os.getpid()
        self._begun = False

    def __repr__(self) -> str:
        """Tell where it is, and whether it is open."""
        at = "" if self._kept.endpoint is None else f" at {writable(self._kept.endpoint)}"
        return f"<{self._room}.{type(self).__name__}{at}, {'closed' if self._closed else 'open'}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied: the copy's end would be this one's."""
        raise TypeError(f"{self!r} can be neither pickled nor copied: open one in each process")

    def __del__(self, _warn: Any = warnings.warn, _getpid: Any = os.getpid) -> None:
        """Say that it was not closed, and have it closed. No wait: nobody knows whose thread this is."""
        if not self._closed and _getpid() == self._pid:
            try:
                _warn(
                    f"unclosed {self!r}: use it in a with block, or close it when you are done",
                    ResourceWarning,
                    source=self,
                    stacklevel=2,
                )
            finally:  # where warnings are errors, too
                self._give_up()

    # --- Opening, step by step ------------------------------------------------------------------------------

    def _prepare(self) -> Future[object] | None:
        """Start the thread, if it has one; return what has to be waited for before :meth:`_begin`.

        Raises:
            IpcError: there can be no further thread, or this one runs Trio.
        """
        self._closed = False  # from now on there is something to close
        if self._thread is None:
            return None
        if trio.lowlevel.in_trio_task():
            raise IpcError(
                "this thread runs Trio, whose other tasks would stand still",
                endpoint=self._kept.endpoint,
                hint="on Trio use trio_ipc itself, or open this in a thread, by trio.to_thread.run_sync",
            )
        try:
            self._thread.start()
        except RuntimeError as exc:
            raise IpcError(
                f"its thread cannot be started: {exc}",
                endpoint=self._kept.endpoint,
                hint="have fewer threads, as one portal can serve several clients; some versions of Python "
                "start none for a program that ends",
            ) from exc
        return self._thread.started

    def _begin(self) -> None:
        """Have it opened, which its ``opened`` tells.

        Raises:
            IpcError: the portal has ended, or this is its own thread.
        """
        portal = self._portal if self._thread is None else self._thread.portal
        assert portal is not None  # noqa: S101 - it has either
        try:
            portal.start_task_soon(self._kept.keep)
        except RuntimeError as exc:
            raise IpcError(
                f"nothing can be opened by this portal: {exc}",
                endpoint=self._kept.endpoint,
                hint="use it in another thread than its own, and while its block lasts",
            ) from exc
        self._begun = True

    def _give_up(self) -> list[Future[object]]:
        """Have it end at once; return what has to be waited for until all of it has."""
        ends = []
        self._kept.abandon()
        if self._thread is not None:
            ends.append(self._thread.stop())
        elif self._begun:
            ends.append(self._kept.left)
        self._closed = True
        return ends

    def _join(self) -> None:
        """See the thread off, once its end was waited for."""
        if self._thread is not None:
            self._thread.join()

    @property
    def _room(self) -> str:
        return type(self).__module__.rpartition(".")[0]

    # --- Use ------------------------------------------------------------------------------------------------

    @property
    def _is_of_this_process(self) -> bool:
        return os.getpid() == self._pid

    def _check_process(self) -> None:
        """Raise :exc:`ChannelClosedError` in a fork: there is no Trio thread that could end a wait."""
        if not self._is_of_this_process:
            raise ChannelClosedError(
                f"it was opened by process {self._pid}, and this is a fork of it, process {os.getpid()}",
                endpoint=self._kept.endpoint,
                hint="open a new one in each process, after the fork",
            )

    def _check_open(self) -> None:
        """Raise :exc:`IpcError` if this cannot be asked for anything, here and now."""
        self._check_process()
        if self._closed:
            raise ChannelClosedError("it was closed", endpoint=self._kept.endpoint, hint="open a new one")
        if threading.get_ident() == self._kept.thread:
            raise IpcError(
                "it was used in the thread of its own portal, which would wait for itself",
                endpoint=self._kept.endpoint,
                hint="a contract's functions run there: they must not call",
            )
