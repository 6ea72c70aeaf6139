"""Where a task waits, also where it waits within the handler of a server.

A server goes on with a handler by its own means, which Trio does not see through. This module must never
change what a task does.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import trio

from trio_ipc.server.handling import resume


def await_frames(task: trio.lowlevel.Task) -> Iterator[tuple[types.FrameType, int]]:
    """Give the frames that a task waits in, from the outermost on, each with its line."""
    waiting: Any = task
    while waiting is not None:
        frame = None
        # It asks for nothing but the coroutine.
        for frame, line in trio.lowlevel.Task.iter_await_frames(waiting):
            yield frame, line
        inner = frame.f_locals.get("coroutine") if frame and frame.f_code is resume.__code__ else None
        waiting = None if inner is None else types.SimpleNamespace(coro=inner)
