"""The round trip of a minimal task through the whole stack, against a bare Trio echo of the same sizes.

``make bench``. Client and server are separate processes, the contenders take turns within one run, and
the result is their ratio: machines are noisy, and a time alone says nothing. Nothing asserts on it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import trio

from trio_ipc import Call, Crc32Variant, IpcConfig, open_client, serve
from trio_ipc.daemoneye import DetectionResult, DetectionTask
from trio_ipc.wire import FrameEncoder

TASK = DetectionTask(task_id="t")
RESULT = DetectionResult(task_id="t", success=True)

_encoder = FrameEncoder(1024, Crc32Variant.IEEE)
REQUEST_FRAME = _encoder.encode(TASK.SerializeToString())
RESPONSE_FRAME = _encoder.encode(RESULT.SerializeToString())

RoundTrip: TypeAlias = Callable[[], Awaitable[None]]


# --- The contenders: a server, and a client that gives one round trip ------------------------------------


async def serve_trio_ipc(path: str) -> None:
    async def succeed(task: DetectionTask, _: Call) -> DetectionResult:
        return DetectionResult(task_id=task.task_id, success=True)

    await serve(succeed, IpcConfig(endpoint_path=path))


@asynccontextmanager
async def call_trio_ipc(path: str) -> AsyncIterator[RoundTrip]:
    async with open_client(IpcConfig(endpoint_path=path)) as client:

        async def round_trip() -> None:
            if not (await client.call(TASK)).success:
                raise AssertionError("wrong answer")

        yield round_trip


async def serve_bare_echo(path: str) -> None:
    """Answer as many bytes by as many bytes: no frames, no deadlines, no messages."""
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await sock.bind(path)
    sock.listen()

    async def echo(stream: trio.SocketStream) -> None:
        while await stream.receive_some(65_536):
            await stream.send_all(RESPONSE_FRAME)

    await trio.serve_listeners(echo, [trio.SocketListener(sock)])


@asynccontextmanager
async def call_bare_echo(path: str) -> AsyncIterator[RoundTrip]:
    async with await trio.open_unix_socket(path) as stream:

        async def round_trip() -> None:
            await stream.send_all(REQUEST_FRAME)
            if await stream.receive_some(65_536) != RESPONSE_FRAME:
                raise AssertionError("wrong answer")

        yield round_trip


CONTENDERS: dict[
    str,
    tuple[Callable[[str], Awaitable[None]], Callable[[str], AbstractAsyncContextManager[RoundTrip]]],
] = {
    "trio_ipc": (serve_trio_ipc, call_trio_ipc),
    "bare Trio echo": (serve_bare_echo, call_bare_echo),
}


# --- The measurement ----------------------------------------------------------------------------------------


@asynccontextmanager
async def server_process(name: str, path: str) -> AsyncIterator[None]:
    command = [sys.executable, "-m", "tests.benchmarks.round_trip", "--serve", name, path]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL)
    try:
        with trio.fail_after(20):
            while True:
                try:
                    await (await trio.open_unix_socket(path)).aclose()
                    break
                except OSError:
                    await trio.sleep(0.02)
        yield
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


async def median_us(round_trip: RoundTrip, count: int) -> float:
    times = []
    for _ in range(count):
        start = time.perf_counter_ns()
        await round_trip()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000


async def measure(rounds: int, count: int) -> dict[str, list[float]]:
    """Return each contender's median of every round, in microseconds."""
    medians: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as directory:
        for index in range(rounds):
            for name, (_, connect) in CONTENDERS.items():
                path = f"{directory}/{index}-{name.replace(' ', '-')}"
                async with server_process(name, path), connect(path) as round_trip:
                    await median_us(round_trip, count // 10)  # warm up
                    medians[name].append(await median_us(round_trip, count))
    return medians


def report(medians: dict[str, list[float]]) -> None:
    ours, floor = (medians[name] for name in CONTENDERS)
    ratios = sorted(mine / bare for mine, bare in zip(ours, floor, strict=True))
    for name, values in medians.items():
        print(
            f"{name:16} {statistics.median(values):7.1f} us   (rounds {min(values):.1f} to {max(values):.1f})"
        )
    print(f"{'ratio':16} {statistics.median(ratios):7.2f}      (rounds {ratios[0]:.2f} to {ratios[-1]:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=5_000, help="round trips in each round")
    parser.add_argument("--serve", nargs=2, metavar=("CONTENDER", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        name, path = options.serve
        trio.run(CONTENDERS[name][0], path)
    else:
        report(trio.run(measure, options.rounds, options.count))


if __name__ == "__main__":
    main()
