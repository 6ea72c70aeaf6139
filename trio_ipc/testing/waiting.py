"""How a connection ends beside its own streams: seen by who does not read, as a reset, or not at all.

What is made to wait for ever ends with the connection, or by saying that nothing else goes on. This module
must never end a wait that something could end yet.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterator
from typing import Final

import trio
import trio._core._run as scheduler  # nothing public tells whether Trio is a guest

from trio_ipc.transports import Duplex, PeerState

from .memorystream import MemoryStream
from .wrapping import WrappedStream

#: How often a stream of the system is asked whether its peer has gone, in seconds. Nothing else tells while
#: somebody reads from it.
_PAUSE: Final = 0.02

#: Seconds from which on a wait of Trio's is one without an end: it asks the system for no more than a day.
_FOR_EVER: Final = 3_600.0

#: What in Trio waits for a thread, or for a signal.
_FROM_OUTSIDE: Final = {"to_thread_run_sync", "SignalReceiver.__anext__"}
_TRIO: Final = os.path.join(os.path.dirname(trio.__file__), "")

#: Looks in a row without a step of any task, where a clock jumps as soon as all is idle: one is the clock's,
#: one may be that of a task which waits until all others are blocked.
_IDLE_LOOKS: Final = 4


async def wait_until_gone(stream: Duplex) -> None:
    """Wait until the peer of this stream has gone, or the stream is closed here. Can be cancelled freely."""
    innermost = _innermost(stream)
    if isinstance(innermost, MemoryStream):
        await innermost.wait_until_gone()
        return
    await trio.lowlevel.checkpoint()
    while stream.peer_state() is not PeerState.GONE:  # noqa: ASYNC110 - nothing would set an event
        await trio.sleep(_PAUSE)


def reset(stream: Duplex) -> None:
    """Close at once, so that the peer sees a reset where that can be done: in memory."""
    innermost = _innermost(stream)
    if isinstance(innermost, MemoryStream):
        innermost.reset()
    stream.close()


def _innermost(stream: Duplex) -> Duplex:
    while isinstance(stream, WrappedStream):
        stream = stream.duplex
    return stream


class _NothingElse(trio.abc.Instrument):
    """Cancels a scope once nothing in this run can happen any more.

    Which is so when every task waits, no deadline is set and nothing outside is waited for: no socket, no
    thread.
    """

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope
        self._token = trio.lowlevel.current_trio_token()
        self._looks = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._looks = 0

    def before_io_wait(self, timeout: float) -> None:
        if not _nothing_will_happen():
            self._looks = 0
            return
        self._looks += 1
        if timeout >= _FOR_EVER or self._looks == _IDLE_LOOKS:
            self._token.run_sync_soon(self._scope.cancel, idempotent=True)


def _nothing_will_happen() -> bool:
    if scheduler.GLOBAL_RUN_CONTEXT.runner.is_guest:
        return False  # the host may do anything, at any time
    now = trio.lowlevel.current_statistics()
    waiting = (
        getattr(now.io_statistics, f"tasks_waiting{of}", 0) for of in ("", "_read", "_write", "_overlapped")
    )
    return (
        now.tasks_runnable == 0
        and now.seconds_to_next_deadline == math.inf
        and now.run_sync_soon_queue_size == 0
        and sum(waiting) <= 1  # Trio's own, for calls from other threads
        and trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
        and not any(_waits_for_outside(task) for task in _all_tasks())
        and not any(map(_may_call_in, threading.enumerate()))
    )


def _may_call_in(thread: threading.Thread) -> bool:
    """Whether another thread may wake a task of this run: one that serves others, as Trio's, does not."""
    return thread is not threading.current_thread() and not thread.daemon


def _all_tasks() -> Iterator[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    tasks = [] if root is None else [root]
    while tasks:
        task = tasks.pop()
        yield task
        for nursery in task.child_nurseries:
            tasks.extend(nursery.child_tasks)


def _waits_for_outside(task: trio.lowlevel.Task) -> bool:
    """Whether a task waits for what Trio does not count: a thread of any limiter, or a signal."""
    return any(
        frame.f_code.co_qualname in _FROM_OUTSIDE and frame.f_code.co_filename.startswith(_TRIO)
        for frame, _ in task.iter_await_frames()
    )


@contextlib.contextmanager
def stalled(what: str) -> Iterator[None]:
    """Let a block wait for ever, unless the whole run would do nothing else.

    Raises:
        RuntimeError: every task waits, and nothing but this block will ever go on.
    """
    with trio.CancelScope() as scope:
        watch = _NothingElse(scope)
        trio.lowlevel.add_instrument(watch)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(watch)
    if scope.cancelled_caught:
        raise RuntimeError(
            f"only {what} keeps this run going: every task waits, and no deadline is set; put one around "
            f"what waits for it"
        )
