"""``python -m tests.hardening.latency``: what an honest client's calls take while others attack the server.

Server, attacker and honest client are three processes. Each attacker is stopped and let go on in turns, so
that the quiet times and those under attack are of the same minute, and a ratio of theirs means something on a
machine that does other work. Nothing is asserted: a time is no test. Unix only.
"""

from __future__ import annotations

import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from tests.hardening import amplification
from tests.hardening.record import ROOT
from tests.support import frame, succeed, task
from trio_ipc import Client, Crc32Variant, IpcConfig, open_client, serve
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.transports import LocalStream, connect
from trio_ipc.wire import FrameEncoder

_ROUNDS: Final = 6
_CALLS: Final = 400
_LARGE: Final = frame(task("x" * 1_000_000))
_WORST: Final = FrameEncoder(amplification.MIB, Crc32Variant.IEEE).encode(
    amplification.payload("request", amplification.DECODER.worst)
)


async def _again_and_again(path: str, attack: Callable[[LocalStream], Awaitable[None]], pause: float) -> None:
    while True:
        try:
            async with await connect(path) as stream:
                await attack(stream)
        except trio.BrokenResourceError:
            pass
        await trio.sleep(pause)


async def _drip(stream: LocalStream) -> None:
    while True:
        for byte in frame(task("drip")):
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.1)


async def _hold(stream: LocalStream) -> None:
    await stream.receive_some()


async def _leave(stream: LocalStream) -> None:
    await trio.lowlevel.checkpoint()


async def _lie(stream: LocalStream) -> None:
    await stream.send_all(struct.pack("<II", 2**32 - 1, 0))
    await stream.receive_some()


async def _never_read(stream: LocalStream) -> None:
    while True:
        await stream.send_all(frame(task("x" * 100)) * 100)


async def _send_large(stream: LocalStream) -> None:
    await stream.send_all(_LARGE)
    while await stream.receive_some():
        await stream.send_all(_LARGE)


async def _amplify(stream: LocalStream) -> None:
    while True:
        await stream.send_all(_WORST)
        await stream.receive_some()


#: By name: how many at a time, what each does, and how long it rests before it comes again, in seconds.
ATTACKS: Final[dict[str, tuple[int, Callable[[LocalStream], Awaitable[None]], float]]] = {
    "100 that send a byte each 0.1 s": (100, _drip, 0),
    "200 that connect and hold": (200, _hold, 0.1),
    "10 that connect and leave, 100 times a second each": (10, _leave, 0.01),
    "10 that announce 4 GiB, 100 times a second each": (10, _lie, 0.01),
    "20 that ask and never read": (20, _never_read, 0),
    "one that calls with 1 MB, without a rest": (1, _send_large, 0),
    "one that calls with the worst of 1 MiB, without a rest": (1, _amplify, 0),
}


async def _serve(path: str) -> None:
    config = IpcConfig(endpoint_path=path, max_connections=128)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, succeed, DETECTION, config)
        print("ready", flush=True)


async def _attack(name: str, path: str) -> None:
    count, attack, pause = ATTACKS[name]
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(_again_and_again, path, attack, pause)
        print("ready", flush=True)


def _started(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.hardening.latency", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT)
    assert process.stdout is not None
    process.stdout.readline()
    return process


async def _calls(client: Client[DetectionTask, DetectionResult]) -> list[float]:
    taken = []
    for number in range(_CALLS):
        began = time.perf_counter()
        await client.call(task(str(number)))
        taken.append(time.perf_counter() - began)
    return taken[20:]


async def _measure(name: str, path: str) -> str:
    """Call in turns with and without the attack, on a connection that was there before it."""
    quiet: list[float] = []
    attacked: list[float] = []
    async with open_client(DETECTION, IpcConfig(endpoint_path=path)) as client:
        attacker = _started("attack", name, path)
        try:
            for _ in range(_ROUNDS):
                attacker.send_signal(signal.SIGCONT)
                await trio.sleep(0.3)
                attacked += await _calls(client)
                attacker.send_signal(signal.SIGSTOP)
                await trio.sleep(0.1)
                quiet += await _calls(client)
        finally:
            attacker.kill()
            attacker.wait()
    one, other = _median(quiet), _median(attacked)
    slowest = sorted(attacked)[len(attacked) * 99 // 100] * 1e6
    return f"{one:8.0f} µs {other:8.0f} µs {other / one:7.1f} {slowest:9.0f} µs  {name}"


def _median(values: list[float]) -> float:
    return statistics.median(values) * 1e6


def main() -> None:
    print("median quiet, median under attack, ratio of the medians, slowest hundredth under attack")
    with tempfile.TemporaryDirectory(prefix="ipc-") as directory:
        for name in ATTACKS:
            path = os.path.join(directory, "s")
            server = _started("serve", path)
            try:
                print(trio.run(_measure, name, path), flush=True)
            finally:
                server.kill()
                server.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        trio.run(_serve, sys.argv[2])
    elif sys.argv[1:2] == ["attack"]:
        trio.run(_attack, sys.argv[2], sys.argv[3])
    else:
        main()
