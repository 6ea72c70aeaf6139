"""How a client is loaded: calls one after another, or by many tasks at once; and what they cost."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias

import trio

from tests.benchmarks.loads import cpu_seconds

Call: TypeAlias = Callable[[], Awaitable[None]]


class Job(NamedTuple):
    """What a client process is asked to do."""

    curve: str
    point: float
    path: str
    server: int
    """The server's process id."""
    seconds: float
    """How long it is timed."""
    least: int
    """How many calls are made, however long they take."""
    warm: int
    """How many calls each caller or connection makes before that."""


class Sample(NamedTuple):
    """What calls cost, each. CPU time is that of whole processes."""

    us: float
    server_cpu_us: float
    client_cpu_us: float


class Watch:
    """What time and CPU time go by from its making on."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._began = self._now()

    def sample(self, calls: int) -> Sample:
        """Return what has gone by since, for each of so many calls."""
        return Sample(
            *((now - then) / calls * 1e6 for now, then in zip(self._now(), self._began, strict=True))
        )

    def _now(self) -> tuple[float, float, float]:
        server = cpu_seconds(self._server)
        if server is None:
            raise OSError("this system does not tell the CPU time of another process; Linux does")
        return time.perf_counter(), server, time.process_time()


async def in_turn(calls: Sequence[Call], job: Job, pause: float = 0.0) -> Sample:
    """Make one call at a time, each by the next of ``calls``, with a pause in seconds before each."""

    async def repeat(number: int, seconds: float = 0.0) -> int:
        until = time.perf_counter() + seconds
        for made, call in enumerate(itertools.cycle(calls)):
            if made >= number and time.perf_counter() >= until:
                return made
            if pause:
                # Not Trio's sleep, which ends at whole milliseconds. Nothing else runs here.
                time.sleep(pause)
            await call()
        raise AssertionError("there is no call")

    await repeat(job.warm * len(calls))
    watch = Watch(job.server)
    return watch.sample(await repeat(max(job.least, len(calls)), job.seconds))


async def at_once(calls: Sequence[Call], job: Job) -> Sample:
    """Repeat each of ``calls`` in a task of its own.

    Times and calls are read while all of them are at work, so that neither starting nor stopping counts.
    """
    made = awaited = 0
    over = False
    reached = trio.Event()

    async def caller(call: Call) -> None:
        nonlocal made
        while not over:
            await call()
            made += 1
            if made == awaited:
                reached.set()

    async def until(number: int) -> None:
        nonlocal awaited, reached
        if made < number:
            awaited, reached = number, trio.Event()
            await reached.wait()

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(caller, call)
        await until(job.warm * len(calls))
        watch, before = Watch(job.server), made
        await trio.sleep(job.seconds)
        await until(before + max(job.least, len(calls)))
        sample = watch.sample(made - before)
        over = True
    return sample
