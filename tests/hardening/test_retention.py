"""What a connection held is freed when it ends, and not when the garbage collector comes to it.

The collector counts objects, not bytes: a peer that sends a message of 30 MB, leaves, and comes again would
otherwise make the server hold many of them.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.hardening.record import Attack
from tests.support import MIB, frame, serving, success, task
from tests.test_leaks import objects_of_ours
from trio_ipc import Call, IpcConfig
from trio_ipc.daemoneye import DetectionResult, DetectionTask
from trio_ipc.transports import connect

#: What the client sends after its request.
BEHIND = {
    "violates": b"\xff" * 8,
    "damages": b"\x04\0\0\0" + bytes(8),
    "misspells": frame(DetectionTask(task_id="x")).replace(b"x", b"\xff"),
    "breaks off": b"\x01",
}


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def answer(how: str) -> DetectionResult:
    if how in {"leaves", "times out"}:
        await trio.sleep_forever()
    if how == "raises":
        raise ValueError("no")
    if how == "in a group":
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise ValueError("no")
    return DetectionResult(task_id="x" * MIB) if how == "too large" else success()


@pytest.mark.parametrize("how", ["leaves", "times out", "raises", "in a group", "too large", *BEHIND])
@pytest.mark.usefixtures("no_collector")
async def test_what_a_connection_held_is_freed_with_it_however_it_ends(
    config: IpcConfig, how: str, caplog: pytest.LogCaptureFixture, attack: Attack
) -> None:
    caplog.set_level("CRITICAL")
    config = config.replace(handler_timeout_ms=50 if how == "times out" else 30_000)
    requests: list[DetectionTask] = []

    async def handle(request: DetectionTask, _: Call) -> DetectionResult:
        requests.append(request)
        return await answer(how)

    async def come_and_go() -> None:
        async with await connect(config.endpoint_path) as stream:
            await stream.send_all(frame(task()) + BEHIND.get(how, b""))
            if how == "leaves":
                await wait_all_tasks_blocked()
            else:
                assert await stream.receive_some()

    async with serving(handle, config) as server:

        async def alive_after(times: int) -> Counter[str]:
            served = server.snapshot().connections_served
            for _ in range(times):
                await come_and_go()
            while server.snapshot().connections_served < served + times:
                await trio.lowlevel.checkpoint()
            while server.snapshot().connections_active:
                await trio.lowlevel.checkpoint()
            await wait_all_tasks_blocked()
            # The list's reference, and the one that getrefcount() itself holds.
            assert [sys.getrefcount(requests[index]) for index in range(len(requests))] == [2] * len(requests)
            requests.clear()
            return objects_of_ours()

        once = await alive_after(1)
        assert not await alive_after(10) - once
    attack(
        "clients that leave, violate, damage, misspell, break off, or make handlers fail, one after another",
        tried=11,
        outcome="what each had made the server hold was freed with its connection, without the collector",
    )
