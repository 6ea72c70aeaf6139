"""What several test modules build on: endpoints in memory, and a server around a test."""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

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
    TransportType,
    serve,
    serve_listener,
    testing,
)
from trio_ipc.castagnoli import crc32c
from trio_ipc.config import Crc32Setting
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.wire import FrameDecoder, FrameEncoder, checksum_for

_T = TypeVar("_T")

if sys.platform == "win32":
    import uuid

    from trio_ipc.legacy.pipe import PipeChannel
    from trio_ipc.transports.windows import win32
    from trio_ipc.transports.windows.end import PipeEnd
    from trio_ipc.transports.windows.pipe import NamedPipeStream
else:
    import socket

    from trio_ipc.legacy.unix import SocketChannel
    from trio_ipc.transports.unix import UnixStream

ME = PeerCredentials.of_this_process()
IN_MEMORY = testing.MemoryEndpoint().path
MIB = 1024 * 1024

#: A Python for which a warning is an error, but for the one that pyproject.toml names as well.
STRICT_PYTHON = (sys.executable, "-W", "error", "-W", "ignore:Type google._upb:DeprecationWarning")

#: Would colour a terminal, and is no ASCII.
UNPRINTABLE = "\x1b[31m\u202e\u00e9\n"

Handler: TypeAlias = Callable[[DetectionTask, Call], Awaitable[DetectionResult]]
DetectionServer: TypeAlias = Server[DetectionTask, DetectionResult]
DetectionClient: TypeAlias = Client[DetectionTask, DetectionResult]

_encoder = FrameEncoder(4 * MIB, Crc32Variant.IEEE)


def forget_libraries() -> None:
    """Have the libraries of the checksums looked for again, as a test hides some or shows them again."""
    crc32c.cache_clear()
    checksum_for.cache_clear()


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


def results_in(data: bytes, variant: Crc32Setting = Crc32Variant.IEEE) -> list[DetectionResult]:
    """The whole frames in what a server sent."""
    decoder = FrameDecoder(4 * MIB, variant)
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


async def read_results(
    stream: trio.abc.ReceiveStream, count: int, variant: Crc32Variant = Crc32Variant.IEEE
) -> list[DetectionResult]:
    """Read until so many whole responses came, on a connection that stays open."""
    decoder = FrameDecoder(4 * MIB, variant)
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


class Beside:
    """A task that runs beside others, and notes for how long it did not."""

    def __init__(self) -> None:
        self.turns = 0
        self.longest = 0.0

    async def run(self) -> None:
        latest = trio.current_time()
        while True:
            await trio.lowlevel.checkpoint()
            self.turns += 1
            self.longest = max(self.longest, trio.current_time() - latest)
            latest = trio.current_time()


class Ends:
    """Makes both ends of connections that need no endpoint, and closes all of them in the end.

    For the default transport they are in memory; legacy knows no other streams than the system's.
    """

    def __init__(self, transport: TransportType) -> None:
        self.transport = transport
        self._closers: list[Callable[[], object]] = []

    def raw(
        self, config: IpcConfig, peer: PeerCredentials | None = ME
    ) -> tuple[trio.abc.HalfCloseableStream, Channel]:
        """One end as bytes, the other as a channel."""
        if self.transport is TransportType.INTERPROCESS:
            near, far = testing.memory_streams(buffer_bytes=64 * MIB)
            return near, FramedChannel(far, config, endpoint="memory", peer=peer)
        if sys.platform == "win32":
            ours, theirs = self._pipe()
            end = PipeEnd(ours)
            self._closers.append(end.close)
            # It has no send_eof(): see can_half_close.
            stream: Any = NamedPipeStream(end, "memory", ME)
            return stream, self._own(PipeChannel(theirs, config, endpoint="memory", peer=peer))
        else:  # noqa: RET505 - so that mypy looks at one of them only
            left, right = self._sockets()
            return UnixStream(left, "memory"), SocketChannel(right, config, endpoint="memory", peer=peer)

    def channels(self, config: IpcConfig, peer: PeerCredentials | None = ME) -> tuple[Channel, Channel]:
        """Both ends as channels."""
        if self.transport is TransportType.INTERPROCESS:
            near, far = testing.memory_streams(buffer_bytes=64 * MIB)
            return (
                FramedChannel(near, config, endpoint="memory", peer=ME),
                FramedChannel(far, config, endpoint="memory", peer=peer),
            )
        if sys.platform == "win32":
            ours, theirs = self._pipe()
            return (
                self._own(PipeChannel(ours, config, endpoint="memory", peer=ME)),
                self._own(PipeChannel(theirs, config, endpoint="memory", peer=peer)),
            )
        else:  # noqa: RET505 - so that mypy looks at one of them only
            left, right = self._sockets()
            return (
                SocketChannel(left, config, endpoint="memory", peer=ME),
                SocketChannel(right, config, endpoint="memory", peer=peer),
            )

    @property
    def can_half_close(self) -> bool:
        """Whether the end that is made as bytes has a sending side that can be closed alone."""
        return sys.platform != "win32" or self.transport is TransportType.INTERPROCESS

    def close(self) -> None:
        for closer in self._closers:
            closer()

    if sys.platform == "win32":

        def _own(self, channel: PipeChannel) -> PipeChannel:
            self._closers.append(channel.close)
            return channel

        def _pipe(self) -> tuple[int, int]:
            name = rf"\\.\pipe\{uuid.uuid4().hex}"
            access = win32.PIPE_ACCESS_DUPLEX | win32.FILE_FLAG_OVERLAPPED
            descriptor = win32.security_descriptor("D:P(A;;GA;;;WD)")
            server = win32.create_named_pipe(
                name, access, 0, instances=1, buffer_bytes=65_536, descriptor=descriptor
            )
            client = win32.create_file(
                name, win32.GENERIC_READ | win32.FILE_WRITE_DATA, win32.FILE_FLAG_OVERLAPPED
            )
            return client, server

    else:

        def _sockets(self) -> tuple[socket.socket, socket.socket]:
            pair = socket.socketpair()
            for sock in pair:
                sock.setblocking(False)
                self._closers.append(sock.close)
            return pair


class MemoryEndpoint(trio.abc.Listener[Channel]):
    """A listener whose clients connect without an endpoint, so that the mock clock rules all there is."""

    def __init__(self, config: IpcConfig, peer: PeerCredentials | None = ME) -> None:
        self.config = config
        self.ends = Ends(config.transport)
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
        near, far = self.ends.raw(self.config, self._peer)
        self.offer(far)
        return near

    def client(self) -> DetectionClient:
        near, far = self.ends.channels(self.config, self._peer)
        self.offer(far)
        return Client(near, DETECTION, self.config)


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
                await serve(handler, contract, endpoint, task_status=task_status)
            else:
                await serve_listener(handler, contract, endpoint, endpoint.config, task_status=task_status)

        yield await nursery.start(run)
        nursery.cancel_scope.cancel()
