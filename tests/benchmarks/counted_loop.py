"""What is counted: ``python -m tests.benchmarks.counted_loop ROLE CONTENDER PATH NUMBER``.

``serve`` until standard input ends, or ``serve-timed``, by the real clock; ``call`` or ``connect`` so often;
ask for ``large`` results, and tell the page faults of each; or both sides in one process, as ``round-trip``,
where everything happens in the same order each time. But for ``serve-timed`` the clock stands still, so that
no alarm rings in one run and not in another.
"""

from __future__ import annotations

import resource
import sys
import threading
from typing import Final

import trio
import trio.testing

from trio_ipc import IpcConfig, open_client
from trio_ipc.daemoneye import DETECTION

from .contenders import load
from .contenders.on_trio import TrioContender
from .jobs import end_with_stdin
from .loads import Job, Use
from .messages import LARGEST, MINIMAL, request

_SERVERS: Final = frozenset({"serve", "serve-timed"})

#: Calls until the C library has found out what it is asked for.
_WARM_UP: Final = 20


async def calls(contender: TrioContender, use: Use, path: str, number: int) -> None:
    async with contender.load(Job("call", use, MINIMAL, path, 0)) as clients:
        [call] = clients.operations
        for _ in range(number):
            await call()


async def large_calls(path: str, number: int) -> None:
    """Tell the page faults of a call whose result is let go before the next one."""
    async with open_client(DETECTION, IpcConfig(endpoint_path=path)) as client:
        for _ in range(_WARM_UP):
            await client.call(request(LARGEST))
        before = _page_faults()
        for _ in range(number):
            await client.call(request(LARGEST))
        print((_page_faults() - before) / number)


def _page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


async def round_trips(contender: TrioContender, path: str, number: int) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(contender.serving, path)
        await calls(contender, Use.ONE, path, number)
        nursery.cancel_scope.cancel()


async def play(role: str, contender: TrioContender, path: str, number: int) -> None:
    if role in _SERVERS:
        await contender.serving(path)
    elif role == "large":
        await large_calls(path, number)
    elif role == "round-trip":
        await round_trips(contender, path, number)
    else:
        await calls(contender, Use.CONNECT if role == "connect" else Use.ONE, path, number)


def main(role: str, name: str, path: str, number: str) -> None:
    if role in _SERVERS:
        threading.Thread(target=end_with_stdin, daemon=True).start()
    contender = load(name)
    assert isinstance(contender, TrioContender)
    clock = None if role == "serve-timed" else trio.testing.MockClock()
    trio.run(play, role, contender, path, int(number), clock=clock)


if __name__ == "__main__":
    main(*sys.argv[1:])
