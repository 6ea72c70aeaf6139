"""What peers can make a server's process hold is bounded by its configuration; docs/security.md has the sum.

As the kernel sees it, and so on Linux only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from subprocess import PIPE

import trio

from tests.hardening import amplification
from tests.hardening.amplification import (
    COMPILED,
    COMPILED_OF,
    DECODER,
    IN_PYTHON,
    IN_PYTHON_OF,
    KINDS,
    WORST_RESPONSE,
    factors,
    memory,
)
from tests.hardening.record import ROOT, Attack
from tests.platforms import needs_proc
from tests.support import success, task
from trio_ipc import Crc32Variant, IpcConfig, open_client
from trio_ipc.daemoneye import DETECTION
from trio_ipc.transports import LocalStream, connect
from trio_ipc.wire import FrameEncoder

pytestmark = needs_proc

#: docs/security.md, "Memory": for each of max_connections, in max_frame_bytes and in bytes.
FRAMES_EACH = DECODER.requests + 8
BYTES_EACH = 256 * 1024

#: A server that holds what asks for it, answers largely what asks for that, and says when it holds one.
PROGRAM = """
import sys
import trio
from tests.support import succeed
from trio_ipc import IpcConfig, serve
from trio_ipc.daemoneye import DETECTION, DetectionResult

config = IpcConfig(
    endpoint_path=sys.argv[1], transport=sys.argv[2], max_frame_bytes=int(sys.argv[3]),
    max_connections=int(sys.argv[4]), read_timeout_ms=600_000, write_timeout_ms=600_000,
    accept_timeout_ms=600_000,
)

async def handle(task, call):
    if task.task_id == "hold":
        print("held", flush=True)
        await trio.sleep_forever()
    if task.task_id == "large":
        return DetectionResult(task_id="large", error_message="x" * (config.max_frame_bytes - 100))
    return await succeed(task, call)

async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, handle, DETECTION, config)
        print("ready", flush=True)

trio.run(main)
"""


@asynccontextmanager
async def server_process(config: IpcConfig) -> AsyncIterator[tuple[int, trio.abc.ReceiveStream]]:
    """Run the server; give its process id and its standard output."""
    arguments = [
        config.endpoint_path,
        str(config.transport),
        str(config.max_frame_bytes),
        str(config.max_connections),
    ]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, [sys.executable, "-c", PROGRAM, *arguments], stdout=PIPE, cwd=ROOT)
        process = await nursery.start(run)
        await read_lines(process.stdout, 1)  # it is ready
        yield process.pid, process.stdout
        nursery.cancel_scope.cancel()


async def read_lines(stream: trio.abc.ReceiveStream, count: int) -> None:
    seen = 0
    while seen < count:
        data = await stream.receive_some()
        assert data
        seen += data.count(b"\n")


async def all_closed(pid: int, idle: int) -> None:
    """Wait until the process has as few descriptors as when nobody was connected."""
    while len(os.listdir(f"/proc/{pid}/fd")) > idle:  # noqa: ASYNC110 - nothing to wait for
        await trio.sleep(0.01)


async def send_until_stuck(stream: LocalStream, data: bytes) -> int:
    """Send until nothing is taken for a while; return how many bytes were."""
    sent = idle = 0
    while idle < 20:
        taken = stream.write(data[sent % len(data) :])
        sent += taken
        idle = 0 if taken else idle + 1
        await trio.sleep(0.01)
    return sent


async def test_what_clients_make_a_server_hold_stays_within_the_documented_sum(
    config: IpcConfig, attack: Attack
) -> None:
    limit, places = 65_536, 16
    config = config.replace(max_frame_bytes=limit, max_connections=places)
    encoder = FrameEncoder(limit, Crc32Variant.IEEE)
    marked = b"\x0a\x04hold"
    worst = encoder.encode(marked + amplification.payload("request", DECODER.worst, limit - len(marked)))
    large = encoder.encode(task("large").SerializeToString()) * 1_000
    async with server_process(config) as (pid, output):
        idle = len(os.listdir(f"/proc/{pid}/fd"))
        async with open_client(DETECTION, config) as client:
            assert await client.call(task()) == success()
        before = memory(pid)
        for _ in range(3):
            await all_closed(pid, idle)
            async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
                # Every place held by the worst request, and as many again that wait, each with most of
                # another behind. (With more, the server would not notice that its client has left.)
                streams = [
                    await stack.enter_async_context(await connect(config.endpoint_path))
                    for _ in range(2 * places)
                ]
                for stream in streams:
                    nursery.start_soon(stream.send_all, worst + worst[: limit // 2])
                await read_lines(output, places)
            await all_closed(pid, idle)
            async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
                # Every place held by one that never reads its responses.
                for _ in range(places):
                    stream = await stack.enter_async_context(await connect(config.endpoint_path))
                    nursery.start_soon(send_until_stuck, stream, large)
        await all_closed(pid, idle)
        grown = memory(pid, "VmHWM") - before
        async with open_client(DETECTION, config) as client:
            assert await client.call(task()) == success()
    bound = places * (FRAMES_EACH * limit + BYTES_EACH)
    held = places * 20 * limit
    print(f"grown by {grown:,}, the bound is {bound:,}")
    assert held < grown < bound  # it was really held, and no more than that
    attack(
        "every place taken by the request that decodes to most, as many waiting with one, and then responses "
        "never read",
        tried=144,
        outcome="the process grew within the sum in [security.md](security.md#memory); an honest client "
        "answered afterwards",
    )


def test_no_message_of_the_schema_takes_more_memory_than_documented(attack: Attack) -> None:
    measured = factors()
    assert len(measured) == sum(map(len, KINDS.values())) == 21
    found = {kind: max(max(figures) for of, _, figures in measured if of == kind) for kind in KINDS}
    print(found)
    assert 20 < found["request"] <= DECODER.requests
    assert 60 < found["response"] <= DECODER.responses
    attack(
        "messages of at most 1 MiB made to take as much memory as can be",
        tried=42,
        outcome="at most 32 bytes for each byte of a request, 100 of a response, as the bounds assume",
    )


def test_by_the_decoder_in_python_it_is_as_much_as_documented_for_that(attack: Attack) -> None:
    """It is what there is where protobuf has no wheel: on some systems with musl or ARM, and on PyPy."""
    measured = factors(IN_PYTHON.worst, WORST_RESPONSE, in_python=True)
    found = {kind: max(figures) for kind, _, figures in measured}
    print(found)
    # More than the compiled one takes, or it would need no figures of its own.
    assert COMPILED.requests < found["request"] <= IN_PYTHON.requests
    assert COMPILED.responses < found["response"] <= IN_PYTHON.responses
    attack(
        "the worst of these, where protobuf decodes in Python",
        tried=4,
        outcome="at most 96 bytes for each byte of a request, 240 of a response, as the bounds for it assume",
    )


def test_the_page_computes_with_these_figures() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").partition("### Memory")[2]
    for is_old, which in ((False, "from 7.36 on"), (True, "5.26.1 to 7.35")):
        compiled, python = COMPILED_OF[is_old], IN_PYTHON_OF[is_old]
        for kind, decoder in (("compiled", compiled), ("in Python", python)):
            # 4 for the buffers of the connection, 1 for the response, 3 for the connection that waits.
            row = f"| {which}, {kind} | {decoder.requests} | {decoder.responses} | {decoder.requests + 8} |"
            assert row in page
    assert (
        f"where {COMPILED_OF[False].requests} of the {COMPILED_OF[False].requests + 8} are the decoded"
        in page
    )
