"""A client that takes back what it has begun to write, beside an honest one.

For a minute instead of some seconds: ``TRIO_IPC_TEST_HOSTILE_SECONDS=60``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Final

import pytest
import trio

if sys.platform != "win32":
    pytest.skip("only Windows counts what a writer still waits to be rid of", allow_module_level=True)
assert sys.platform == "win32"

from tests.hardening.record import Attack  # noqa: E402
from tests.support import read_to_end, serving, succeed, success, task  # noqa: E402
from trio_ipc import IpcConfig, open_client  # noqa: E402
from trio_ipc.daemoneye import DETECTION  # noqa: E402

SECONDS: Final = float(os.environ.get("TRIO_IPC_TEST_HOSTILE_SECONDS", "5"))

#: Seconds that one call of the honest client may take, on a machine whose every core is busy. A server that
#: waits for bytes that were taken back waits as long as the hostile client likes.
LONGEST: Final = 2.0

#: Says how many writes it has taken back. Keeps its connections open, so that nothing else ends a read.
HOSTILE: Final = """
import random, sys, time
from trio_ipc.transports.windows import win32

name, seconds = sys.argv[1], float(sys.argv[2])
header = (1 << 20).to_bytes(4, "little") + bytes(4)  # announces more than it ever sends
access, flags = win32.GENERIC_READ | win32.FILE_WRITE_DATA, win32.FILE_FLAG_OVERLAPPED
event = win32.create_event()
rng, taken_back, fresh, used = random.Random(1), 0, [], []

def begin(handle, data):
    operation = win32.operation(event)
    win32.begin_write(handle, data, operation)
    return operation

def write_and_take_back(handle):
    win32.result_of(handle, begin(handle, header))
    writing = begin(handle, bytes(140_000))
    time.sleep(rng.random() * 0.002)
    win32.cancel_operation(handle, writing)
    win32.result_of(handle, writing)

print("ready", flush=True)
over = time.monotonic() + seconds
while time.monotonic() < over:
    try:
        fresh.append(win32.create_file(name, access, flags))
        if len(fresh) > 10:
            used.append(fresh.pop(0))
            write_and_take_back(used[-1])
    except OSError as error:
        taken_back += error.winerror == win32.ERROR_OPERATION_ABORTED
    if len(used) > 30:
        win32.close_handle(used.pop(0))
print(taken_back, flush=True)
"""


async def test_a_client_that_takes_back_its_writes_delays_nobody(config: IpcConfig, attack: Attack) -> None:
    config = config.replace(max_connections=100)
    calls, longest = 0, 0.0
    over = trio.Event()
    with trio.fail_after(SECONDS + 60):
        async with serving(succeed, config), open_client(DETECTION, config) as honest:
            command = [sys.executable, "-c", HOSTILE, config.endpoint_path, str(SECONDS)]
            async with trio.open_nursery() as nursery:
                hostile = await trio.lowlevel.open_process(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                )
                assert hostile.stdout is not None
                assert (await hostile.stdout.receive_some()).startswith(b"ready")

                async def wait() -> None:
                    await hostile.wait()
                    over.set()

                nursery.start_soon(wait)
                while not over.is_set():
                    begun = time.perf_counter()
                    assert await honest.call(task(str(calls))) == success(str(calls))
                    longest = max(longest, time.perf_counter() - begun)
                    calls += 1
            async with hostile.stdout:
                said = await read_to_end(hostile.stdout)
    taken_back = int(said)
    assert taken_back > 10
    assert calls > 10
    assert longest < LONGEST
    print(f"{calls} calls, the longest {longest:.3f} s, beside {taken_back} writes that were taken back")
    attack(
        "a client of `serve` that takes back what it has begun to write, for some seconds",
        tried=1,
        outcome="an honest client's calls are answered throughout, each within 2 s",
    )
