"""How a client is loaded and timed: the same loop for every contender, with and without an event loop.

A load is operations, each repeated by a caller of its own until the time is up. This module must not
import trio_ipc, trio or asyncio.
"""

from __future__ import annotations

import enum
import os
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

OperationT = TypeVar("OperationT", bound=Callable[[], Any])
Operation: TypeAlias = Callable[[], None]
AsyncOperation: TypeAlias = Callable[[], Awaitable[None]]

#: Until memory and CPU time of a server that has nothing to do are looked at. Seconds.
SETTLE: Final = 0.05

#: Runs async functions at the same time, until all of them have returned.
Together: TypeAlias = Callable[[Iterable[AsyncOperation]], Awaitable[None]]


class Use(enum.StrEnum):
    """What a contender's client is used for. A load has one operation where nothing else is said."""

    ONE = "one"
    """One call at a time on an open connection."""
    MANY = "many"
    """So many callers at once on one client: an operation of one call for each."""
    PIPELINED = "pipelined"
    """So many calls at once on one connection: as many operations, or one of so many calls."""
    CONNECT = "connect"
    """Connect, one call, close."""
    SEPARATE = "separate"
    """So many callers, each on a connection of its own."""


class Load(NamedTuple, Generic[OperationT]):
    """What a client does: each operation is repeated in a task or a thread of its own."""

    operations: Sequence[OperationT]
    #: How many calls an operation makes.
    calls_each: int = 1


class Job(NamedTuple):
    """What a client process is asked to do."""

    action: str
    """``time`` the load, ``call`` once by each operation, or do that and see what ``idle`` ones cost."""
    use: Use
    message: str
    path: str
    server: int
    """The server's process id."""
    number: int = 1
    seconds: float = 0.0
    least: int = 3
    """How often each operation is done, however long that takes."""
    pause_us: int = 0
    """How long a caller sleeps between two operations; that is not in their times."""


class Sample(NamedTuple):
    """What a load took. Latencies are of operations, CPU seconds of the whole processes."""

    calls: int
    seconds: float
    median_us: float
    p99_us: float
    client_cpu_s: float
    server_cpu_s: float | None

    @property
    def us_per_call(self) -> float:
        return self.seconds / self.calls * 1e6


class Figures(NamedTuple):
    """What an idle load costs: CPU seconds of both processes, bytes of the server."""

    client_cpu_s: float = 0.0
    server_cpu_s: float | None = None
    memory: int | None = None


async def do(
    job: Job, load: Load[AsyncOperation], together: Together, sleep: Callable[[float], Awaitable[None]]
) -> Sample | Figures:
    """Do a job in an event loop."""
    if job.action == "time":
        await _repeat(load, job, job.seconds / 8, min(3, job.least), together)  # warms up
        watch = Watch(job.server)
        return watch.sample(load.calls_each, await _repeat(load, job, job.seconds, job.least, together))
    for operation in load.operations:
        await operation()
    if job.action == "call":
        return Figures()
    await sleep(SETTLE)
    watch = Watch(job.server)
    await sleep(job.seconds)
    return watch.figures()


def do_blocking(job: Job, load: Load[Operation]) -> Sample | Figures:
    """Do a job in threads, as :func:`do` does it in tasks."""
    if job.action == "time":
        _repeat_blocking(load, job, job.seconds / 8, min(3, job.least))
        watch = Watch(job.server)
        return watch.sample(load.calls_each, _repeat_blocking(load, job, job.seconds, job.least))
    for operation in load.operations:
        operation()
    if job.action == "call":
        return Figures()
    time.sleep(SETTLE)
    watch = Watch(job.server)
    time.sleep(job.seconds)
    return watch.figures()


async def _repeat(
    load: Load[AsyncOperation], job: Job, seconds: float, least: int, together: Together
) -> list[int]:
    times: list[int] = []
    pause = job.pause_us / 1e6
    until = time.perf_counter_ns() + int(seconds * 1e9)

    def caller(operation: AsyncOperation) -> AsyncOperation:
        async def repeat() -> None:
            now, note = time.perf_counter_ns, times.append
            number = end = 0
            while end < until or number < least:
                begin = now()
                await operation()
                end = now()
                note(end - begin)
                number += 1
                if pause:
                    time.sleep(pause)

        return repeat

    callers = [caller(operation) for operation in load.operations]
    if len(callers) == 1:
        await callers[0]()
    else:
        await together(callers)
    return times


def _repeat_blocking(load: Load[Operation], job: Job, seconds: float, least: int) -> list[int]:
    times: list[int] = []
    pause = job.pause_us / 1e6
    until = time.perf_counter_ns() + int(seconds * 1e9)

    def caller(operation: Operation) -> Operation:
        def repeat() -> None:
            now, note = time.perf_counter_ns, times.append
            number = end = 0
            while end < until or number < least:
                begin = now()
                operation()
                end = now()
                note(end - begin)
                number += 1
                if pause:
                    time.sleep(pause)

        return repeat

    callers = [caller(operation) for operation in load.operations]
    if len(callers) == 1:
        callers[0]()
    else:
        run_threads(callers)
    return times


def run_threads(functions: Sequence[Operation]) -> None:
    """Run functions at the same time, each in a thread, and raise the first error."""
    errors: list[BaseException] = []

    def run(function: Operation) -> None:
        try:
            function()
        except BaseException as exc:  # noqa: BLE001 - raised below, in the thread that waits
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Watch:
    """What time and CPU time go by from its making until it is read."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._server_cpu = cpu_seconds(server)
        self._client_cpu = time.process_time()
        self._begin = time.perf_counter_ns()

    def sample(self, calls_each: int, times: Sequence[int]) -> Sample:
        seconds = (time.perf_counter_ns() - self._begin) / 1e9
        client, server = self._cpu()
        return Sample(
            calls=len(times) * calls_each,
            seconds=seconds,
            median_us=statistics.median(times) / 1000,
            p99_us=percentile(times, 99) / 1000,
            client_cpu_s=client,
            server_cpu_s=server,
        )

    def figures(self) -> Figures:
        client, server = self._cpu()
        return Figures(client, server, memory_of(self._server))

    def _cpu(self) -> tuple[float, float | None]:
        client = time.process_time() - self._client_cpu
        server = cpu_seconds(self._server)
        if server is None or self._server_cpu is None:
            return client, None
        return client, server - self._server_cpu


def percentile(values: Sequence[int], percent: int) -> int:
    """Return the smallest value that so many percent of all values don't exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]


def cpu_seconds(pid: int) -> float | None:
    """Return what CPU time a process has used so far, in seconds; None where that isn't told.

    Of a process that runs right now it is as of the scheduler's last tick, up to 10 ms ago. Less than that
    is measured as 0.

    Linux gives every process a clock, whose id is made of the process id: ``MAKE_PROCESS_CPUCLOCK`` in
    include/linux/posix-timers.h, which clock_getcpuclockid(3) wraps.
    """
    if not os.path.exists("/proc/self/stat"):
        return None
    scheduler_clock = 2  # CPUCLOCK_SCHED
    return time.clock_gettime((~pid << 3) | scheduler_clock)


def memory_of(pid: int) -> int | None:
    """Return how many bytes of memory a process has to itself; None where that isn't told.

    That is anonymous memory, Pss_Anon of smaps_rollup (Linux, Documentation/filesystems/proc.rst): shared
    with nobody but by a fork. Pages of files would count less the more processes have the same library.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            lines = dict(line.split(":", 1) for line in file if line.count(":") == 1)
    except OSError:
        return None
    return int(lines["Pss_Anon"].split()[0]) * 1024
