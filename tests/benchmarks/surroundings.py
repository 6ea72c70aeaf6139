"""What the machine is like while something is measured: quiet, one core for all, or busy.

Nothing of it outlives the block that it was made for.
"""

from __future__ import annotations

import enum
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import trio

from .workers import ContenderError


class Surroundings(enum.StrEnum):
    """What the machine is like."""

    QUIET = "quiet"
    """Nothing else runs, and every core may be used."""
    ONE_CORE = "one-core"
    """Client and server share one core."""
    BUSY = "busy"
    """A process on each core that does nothing but count, at the same priority."""


#: Ends with standard input, so that none outlives the suite however that ends.
_BURNER: Final = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
number = 0
while True:
    number += 1
"""


def cores() -> list[int]:
    """Return which cores this process may use.

    Raises:
        ValueError: this system does not tell, and cannot tie a process to a core.
    """
    if not hasattr(os, "sched_getaffinity"):
        raise ValueError("this system cannot tie a process to a core")
    return sorted(os.sched_getaffinity(0))


@asynccontextmanager
async def surrounded(by: Surroundings) -> AsyncIterator[None]:
    """Make the machine like that for the length of a block, for processes that are started in it."""
    if by is Surroundings.ONE_CORE:
        before = set(cores())
        _tie({min(before)})
        try:
            yield
        finally:
            _tie(before)
    elif by is Surroundings.BUSY:
        async with AsyncExitStack() as stack:
            for core in cores():
                await stack.enter_async_context(_burning(core))
            yield
    else:
        yield


def _tie(to: set[int]) -> None:
    """Have this process and those that it starts use these cores.

    A process inherits the affinity of the thread that starts it (sched_setaffinity(2)), which may be any:
    Trio has threads for that.
    """
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), to)


@asynccontextmanager
async def _burning(core: int) -> AsyncIterator[None]:
    # Ctrl-C is not for it. No session of its own: Linux may give each one an equal share of a core (sched(7),
    # "The autogroup feature"), and all of a run's processes together would get no more than this one.
    burner = await trio.lowlevel.open_process(
        [sys.executable, "-c", _BURNER], stdin=subprocess.PIPE, process_group=0
    )
    try:
        os.sched_setaffinity(burner.pid, {core})
        yield
        if burner.returncode is not None:
            raise ContenderError(f"what kept core {core} busy has ended, by {burner.returncode}")
    finally:
        with trio.CancelScope(shield=True):
            burner.kill()
            await burner.wait()
            assert burner.stdin is not None
            await burner.stdin.aclose()
