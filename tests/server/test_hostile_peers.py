"""A hostile local client changes nothing for the others. All through the real socket."""

from __future__ import annotations

import random
import struct
from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.support import MIB, frame, read_to_end, serving, succeed, success, task
from trio_ipc import Call, IpcConfig, open_client
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.transports import connect

Attack = Callable[[str, random.Random], Awaitable[None]]


async def garbage(path: str, rng: random.Random) -> None:
    async with await connect(path) as stream:
        try:
            await stream.send_all(rng.randbytes(rng.randrange(1, 5_000)))
        except trio.BrokenResourceError:
            return
        if rng.random() < 0.5 and isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
            await read_to_end(stream)


async def half_a_frame(path: str, rng: random.Random) -> None:
    whole = frame(task("x" * 200))
    async with await connect(path) as stream:
        await stream.send_all(whole[: rng.randrange(1, len(whole))])


async def byte_by_byte(path: str, rng: random.Random) -> None:
    async with await connect(path) as stream:
        for byte in frame(task("drip")):
            await stream.send_all(bytes([byte]))
            await trio.lowlevel.checkpoint()
        assert await stream.receive_some() == frame(success("drip"))


async def leave_in_mid_answer(path: str, rng: random.Random) -> None:
    async with await connect(path) as stream:
        await stream.send_all(frame(task("large")))
        await stream.receive_some(rng.randrange(1, 1_000))


async def ask_and_never_read(path: str, rng: random.Random) -> None:
    async with await connect(path) as stream:
        await stream.send_all(frame(task("large")) * 3)


async def connect_and_leave(path: str, rng: random.Random) -> None:
    for _ in range(20):
        await (await connect(path)).aclose()


async def announce_much(path: str, rng: random.Random) -> None:
    async with await connect(path) as stream:
        await stream.send_all(struct.pack("<II", MIB, rng.getrandbits(32)) + bytes(100))


async def claim_four_gibibytes(path: str, rng: random.Random) -> None:
    async with await connect(path) as stream:
        await stream.send_all(b"\xff" * 8)
        assert b"protocol violation" in await read_to_end(stream)


ATTACKS: list[Attack] = [
    garbage,
    half_a_frame,
    byte_by_byte,
    leave_in_mid_answer,
    ask_and_never_read,
    connect_and_leave,
    announce_much,
    claim_four_gibibytes,
]


async def handler(task: DetectionTask, call: Call) -> DetectionResult:
    if task.task_id == "large":
        return DetectionResult(task_id="large", error_message="x" * (MIB - 100))
    return await succeed(task, call)


@pytest.mark.parametrize("seed", range(3))
async def test_hostile_clients_change_nothing_for_an_honest_one(config: IpcConfig, seed: int) -> None:
    config = config.replace(max_connections=64)
    over = trio.Event()

    async def attack() -> None:
        rng = random.Random(seed)
        for _ in range(80):
            await rng.choice(ATTACKS)(config.endpoint_path, rng)
        over.set()

    async with serving(handler, config) as server, open_client(DETECTION, config) as honest:
        calls = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attack)
            while not over.is_set():
                assert await honest.call(task(str(calls))) == success(str(calls))
                calls += 1
        assert calls > 0
        server.stop()
        await server.wait_stopped()
        assert server.snapshot().connections_active == 0


async def test_who_holds_every_place_is_outlived_by_who_waits_for_one(
    config: IpcConfig, autojump_clock: trio.testing.MockClock
) -> None:
    """Idle connections are closed after the read timeout; until then a newcomer is told, not left."""
    config = config.replace(max_connections=4, read_timeout_ms=2_000)
    async with serving(succeed, config) as server:
        holders = [await connect(config.endpoint_path) for _ in range(4)]
        await trio.testing.wait_all_tasks_blocked()
        async with open_client(DETECTION, config) as client:
            with trio.move_on_after(1):
                await trio.sleep_forever()
            assert server.snapshot().connections_active == 4
            await trio.sleep(1.5)
            assert await client.call(task()) == success()
        assert server.snapshot().timeouts["read"] == 4
        for holder in holders:
            await holder.aclose()
