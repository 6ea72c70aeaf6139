"""What is measured in other ways than by timing a load: memory, start-up, polling's price, the codec."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from importlib.util import find_spec
from typing import Final

import trio

from .loads import Sample, Use
from .messages import MINIMAL, SLOW
from .pieces import MANY
from .processes import Pair
from .workers import ROOT, environment

#: Idle connections whose memory is measured: so many that what each takes is not lost in the allocator's
#: steps.
MANY_IDLE: Final = 128

#: Pauses between the calls of a caller, in microseconds.
PAUSES_US: Final = (50, 150, 500)

#: What is imported, each in a new process, if it is installed. The goal is about the first two.
IMPORTS: Final = {
    "trio_ipc": "trio_ipc.server, trio_ipc.client",  # of itself the package loads what is asked for
    "trio and protobuf": "trio, google.protobuf.message",
    "asyncio and protobuf": "asyncio, google.protobuf.message",
    "grpc.aio and protobuf": "grpc.aio, google.protobuf.message",
    "zmq and protobuf": "zmq, google.protobuf.message",
}


async def memory(pair: Pair) -> dict[str, float | None]:
    """Return a fresh server's bytes with no, 16 and many idle connections, and what each of many takes."""
    at = [(await pair.idle(number, 0.0)).memory for number in (0, MANY, MANY_IDLE)]
    if at[0] is None or at[2] is None:
        return {}
    return {
        "server_bytes_of_0": at[0],
        "server_bytes_of_16": at[1],
        "connection_bytes": (at[2] - at[0]) / MANY_IDLE,
    }


async def imports(repeats: int) -> dict[str, float]:
    """Return the milliseconds that each import takes, the median of several in turns."""
    installed = {
        name: modules for name, modules in IMPORTS.items() if find_spec(re.split(r"[.,]", modules)[0])
    }
    times: dict[str, list[float]] = {name: [] for name in installed}
    for turn in range(repeats + 1):
        for name, modules in installed.items():
            code = f"import time; t = time.perf_counter(); import {modules}; print(time.perf_counter() - t)"
            seconds = float(await _output("-c", code))
            if turn > 0:  # the first one may have to write the bytecode
                times[name].append(seconds * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


async def codec(seconds: float) -> dict[str, dict[str, float]]:
    """Return what :mod:`.codec` prints."""
    found: dict[str, dict[str, float]] = json.loads(
        await _output("-m", "tests.benchmarks.codec", str(seconds))
    )
    return found


async def _output(*arguments: str) -> bytes:
    run = await trio.run_process(
        [sys.executable, *arguments],
        capture_stdout=True,
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
    )
    output: bytes = run.stdout
    return output


async def idle_cpu(pairs: list[Pair], seconds: float) -> dict[str, dict[str, float]]:
    """Return the CPU time of each pair with one idle connection, and what each of many more adds.

    All pairs at the same time. What is there with one is mostly not the connection's: the client looks at the
    clock, and a server at its endpoint.
    """
    found: dict[str, dict[str, float]] = {}

    async def watch(pair: Pair) -> None:
        one, many = await pair.idle(1, seconds), await pair.idle(1 + MANY_IDLE, seconds)
        if one.server_cpu_s is not None and many.server_cpu_s is not None:
            alone = one.client_cpu_s + one.server_cpu_s
            more = many.client_cpu_s + many.server_cpu_s - alone
            found[pair.name] = {"idle_cpu_ms": alone * 1e3, "connection_idle_cpu_us": more / MANY_IDLE * 1e6}

    async with trio.open_nursery() as nursery:
        for pair in pairs:
            nursery.start_soon(watch, pair)
    return found


async def slow_handlers(pair: Pair, seconds: float, least: int) -> Sample:
    """One caller, handlers that sleep for 1 ms: what polling costs where it finds nothing.

    Longer than other work: what a call costs is mostly the system's, which puts a core to sleep in between
    or not, and differs from one moment to the next.
    """
    return await pair.time(Use.ONE, SLOW, 1, 4 * seconds, least)


async def paused(pair: Pair, seconds: float, least: int) -> dict[str, float | None]:
    """One caller that pauses between its calls: CPU time of a call, both sides, by the pause.

    How it falls out differs from one moment to the next, as for slow handlers.
    """
    found: dict[str, float | None] = {}
    for pause in PAUSES_US:
        sample = await pair.time(Use.ONE, MINIMAL, 1, 2 * seconds, least, pause_us=pause)
        cpu = None
        if sample.server_cpu_s is not None:
            cpu = (sample.client_cpu_s + sample.server_cpu_s) / sample.calls * 1e6
        found[f"paused_{pause}_cpu_us_per_call"] = cpu
        found[f"paused_{pause}_us"] = sample.median_us
    return found


async def many_connections(pair: Pair, seconds: float, least: int) -> Sample:
    """16 callers on as many connections: whether polling takes the others' time."""
    return await pair.time(Use.SEPARATE, MINIMAL, MANY, seconds, least)
