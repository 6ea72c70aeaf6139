"""Clients over connections whose other end a test has in hand, as bytes."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest
import trio

from tests.support import IN_MEMORY, ME, MIB, DetectionClient, frame, success, task
from trio_ipc import Channel, ChannelClosedError, Contract, FramedChannel, IpcConfig, client
from trio_ipc.client.nursery import nursery_of_our_own
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import MemoryStream, memory_streams
from trio_ipc.testing.socketbuffer import SocketBuffer
from trio_ipc.wire import FrameDecoder

CONFIG = IpcConfig(endpoint_path=IN_MEMORY)

#: What holds for one call at a time and for several.
BOTH_LINES = pytest.mark.parametrize("max_in_flight", [1, 3])


class Then(enum.Enum):
    """What a server may do instead of a response."""

    END = "close the sending side"
    CLOSE = "close"


def narrow_streams(request_bytes: int = 5) -> tuple[MemoryStream, MemoryStream]:
    """A connection that takes only so many bytes before the server has to read, and any response."""
    near, far = memory_streams()
    near._out.buffer = SocketBuffer(request_bytes)
    return near, far


@asynccontextmanager
async def client_over(
    connection: trio.abc.Stream | Channel,
    max_in_flight: int = 1,
    config: IpcConfig = CONFIG,
    contract: Contract[DetectionTask, DetectionResult] = DETECTION,
) -> AsyncIterator[DetectionClient]:
    if isinstance(connection, trio.abc.Stream):
        connection = FramedChannel(connection, config, endpoint="memory", peer=ME)
    channel = connection

    async def connect(_config: IpcConfig) -> Channel:
        return channel

    async with client.client_over(connect, contract, config, max_in_flight=max_in_flight) as made:
        yield made


Answer: TypeAlias = bytes | Then | tuple[bytes | Then, ...]


@asynccontextmanager
async def answering(far: trio.abc.HalfCloseableStream, *answers: Answer) -> AsyncIterator[None]:
    """A server that answers each request by the next of these; after the last one it does nothing."""

    async def answer() -> None:
        decoder = FrameDecoder(4 * MIB, CONFIG.crc32_variant)
        for steps in answers:
            while decoder.next_payload() is None:
                received = await far.receive_some()
                if not received:
                    return
                decoder.feed(received)
            for step in steps if isinstance(steps, tuple) else (steps,):
                if step is Then.CLOSE and isinstance(far, MemoryStream):
                    far.close()
                elif step is Then.CLOSE:
                    await far.aclose()
                elif step is Then.END:
                    await far.send_eof()
                else:
                    assert isinstance(step, bytes)
                    if isinstance(far, MemoryStream) and isinstance(steps, tuple):
                        far.write(step)  # nobody runs between this and what comes next
                    else:
                        await far.send_all(step)

    async with nursery_of_our_own() as nursery:
        nursery.start_soon(answer)
        yield


async def is_good(
    subject: DetectionClient, far: trio.abc.HalfCloseableStream, task_id: str = "after"
) -> None:
    """Make sure that a client makes its next call."""
    async with answering(far, frame(success(task_id))):
        assert await subject.call(task(task_id)) == success(task_id)
    counts_are_whole(subject)


async def expect_broken_by(subject: DetectionClient, exc: type[BaseException], said: str = "") -> None:
    """After a failure part-way, the next call says so and what it was."""
    match = f"broken by an earlier call: .*{said}.*; open a new client"
    assert subject.is_broken
    assert not subject.is_reusable()
    for _ in range(2):
        with pytest.raises(ChannelClosedError, match=match) as caught:
            await subject.call(task())
        assert isinstance(caught.value.__cause__, exc)
    with pytest.raises(ChannelClosedError, match=match):
        await subject.call_many([task()])
    counts_are_whole(subject)


def counts_are_whole(subject: DetectionClient) -> None:
    said = subject.snapshot()
    assert said.calls == said.calls_answered + sum(said.calls_failed.values()) + said.calls_in_flight
    assert said.call_seconds.count == said.calls_answered
