"""What several test modules build on: endpoints in memory, and a server around a test."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias, TypeVar

import trio

from trio_ipc import (
    Call,
    Channel,
    Client,
    Contract,
    Crc32Variant,
    FramedChannel,
    IpcConfig,
    PeerCredentials,
    Server,
    serve,
    serve_listener,
    testing,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.wire import FrameDecoder, FrameEncoder

_T = TypeVar("_T")

ME = PeerCredentials.of_this_process()
IN_MEMORY = testing.MemoryEndpoint().path
MIB = 1024 * 1024

#: Would colour a terminal, and is no ASCII.
UNPRINTABLE = "\x1b[31m\u202e\u00e9\n"

Handler: TypeAlias = Callable[[DetectionTask, Call], Awaitable[DetectionResult]]
DetectionServer: TypeAlias = Server[DetectionTask, DetectionResult]
DetectionClient: TypeAlias = Client[DetectionTask, DetectionResult]

_encoder = FrameEncoder(4 * MIB, Crc32Variant.IEEE)


async def succeed(task: DetectionTask, _: Call) -> DetectionResult:
    return DetectionResult(task_id=task.task_id, success=True)


async def hang(_task: DetectionTask, _call: Call) -> DetectionResult:
    await trio.sleep_forever()
    raise AssertionError("unreachable")


def task(task_id: str = "t") -> DetectionTask:
    return DetectionTask(task_id=task_id)


def success(task_id: str = "t") -> DetectionResult:
    return DetectionResult(task_id=task_id, success=True)


def frame(message: DetectionTask | DetectionResult) -> bytes:
    return _encoder.encode(message.SerializeToString())


def results_in(data: bytes) -> list[DetectionResult]:
    """The whole frames in what a server sent."""
    decoder = FrameDecoder(4 * MIB, Crc32Variant.IEEE)
    decoder.feed(data)
    results = []
    while (payload := decoder.next_payload()) is not None:
        results.append(DETECTION.decode_response(payload))
    decoder.end()
    return results


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    """All that comes until the peer closes, politely or not."""
    data = b""
    try:
        async for piece in stream:
            data += piece
    except trio.BrokenResourceError:
        pass
    return data


async def read_results(stream: trio.abc.ReceiveStream, count: int) -> list[DetectionResult]:
    """Read until so many whole responses came, on a connection that stays open."""
    decoder = FrameDecoder(4 * MIB, Crc32Variant.IEEE)
    results: list[DetectionResult] = []
    while len(results) < count:
        data = await stream.receive_some()
        if not data:
            raise AssertionError(f"end of file after {len(results)} of {count} responses")
        decoder.feed(data)
        while (payload := decoder.next_payload()) is not None:
            results.append(DETECTION.decode_response(payload))
    return results


async def cancelled_once_begun(operation: Callable[[], Awaitable[_T]]) -> _T | None:
    """Cancel an operation that has all it needs, in the step after it began; return what it returns."""
    scope, begun, results = trio.CancelScope(), trio.Event(), list[_T]()

    async def run() -> None:
        begun.set()
        with scope:
            results.append(await operation())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        while not begun.is_set():
            await trio.lowlevel.checkpoint()
        scope.cancel()
    return results[0] if results else None


class MemoryEndpoint(trio.abc.Listener[Channel]):
    """A listener whose clients connect in memory, so that the mock clock rules all there is."""

    def __init__(self, config: IpcConfig, peer: PeerCredentials | None = ME) -> None:
        self.config = config
        self._peer = peer
        self._send, self._receive = trio.open_memory_channel[Channel | Exception](math.inf)

    async def accept(self) -> Channel:
        try:
            channel = await self._receive.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None
        if isinstance(channel, Exception):
            raise channel
        return channel

    async def aclose(self) -> None:
        self._receive.close()
        await trio.lowlevel.checkpoint()

    def fail(self, exc: Exception) -> None:
        """Make one accept() raise."""
        self._send.send_nowait(exc)

    def offer(self, channel: Channel) -> None:
        self._send.send_nowait(channel)

    def connect(self) -> trio.abc.HalfCloseableStream:
        """Connect, and return the client's end as bytes."""
        near, far = testing.memory_streams(buffer_bytes=64 * MIB)
        self.offer(FramedChannel(far, self.config, endpoint="memory", peer=self._peer))
        return near

    def client(self) -> DetectionClient:
        channel = FramedChannel(self.connect(), self.config, endpoint="memory", peer=ME)
        return Client(channel, self.config, contract=DETECTION)


@asynccontextmanager
async def serving(
    handler: Handler,
    endpoint: MemoryEndpoint | IpcConfig,
    contract: Contract[DetectionTask, DetectionResult] = DETECTION,
) -> AsyncIterator[DetectionServer]:
    """A server for the length of a block; it is cancelled in the end if it still runs."""
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[DetectionServer]) -> None:
            if isinstance(endpoint, IpcConfig):
                await serve(handler, endpoint, contract=contract, task_status=task_status)
            else:
                await serve_listener(
                    handler, endpoint, endpoint.config, contract=contract, task_status=task_status
                )

        yield await nursery.start(run)
        nursery.cancel_scope.cancel()
