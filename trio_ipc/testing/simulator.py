"""A collector that does what a script says: for agents that must bear slow, failing, lying and dying ones.

It speaks bytes, not through :func:`trio_ipc.serve`, since that would refuse to lie. A :data:`Behaviour` is
one answer to one task; those that come with this module are below, and any function of that form is one. This
module must never answer what the script does not say.
"""

from __future__ import annotations

import random
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import trio

from trio_ipc.channel import close_at_once
from trio_ipc.config import IpcConfig
from trio_ipc.contract import RESPONSE_TOO_LARGE, encode
from trio_ipc.daemoneye import (
    ASSUMED_CAPABILITIES,
    DETECTION,
    Capabilities,
    DetectionResult,
    DetectionTask,
    failed,
    is_capability_negotiation,
)
from trio_ipc.errors import EndpointInUseError, MessageTooLargeError, ProtocolError
from trio_ipc.transports import LocalStream
from trio_ipc.wire import HEADER_BYTES, FrameDecoder, FrameEncoder

from .endpoints import IpcEndpoint
from .memory import MemoryEndpoint
from .pair import config_for, one_exception_alone

_READ_SIZE: Final = 65_536


class Reply:
    """How a behaviour answers: by a proper result, or by any bytes at all.

    Attributes:
        closed: whether the connection was closed, by :meth:`close`.
    """

    def __init__(self, stream: LocalStream, config: IpcConfig, task: DetectionTask) -> None:
        self.closed = False
        self._stream = stream
        self._task = task
        self._config = config
        self._encoder = FrameEncoder(config.max_frame_bytes, config.crc32_variant)

    def frame(self, result: DetectionResult) -> bytes:
        """Return the frame of a result; one too large becomes the failure that says so, as servers do."""
        try:
            return self._encoder.encode(encode(result))
        except MessageTooLargeError as exc:
            why = f"{RESPONSE_TOO_LARGE}: {exc.size} bytes, the limit max_frame_bytes is {exc.limit}"
            return self._encoder.encode(encode(failed(self._task, why)))

    def too_large_header(self) -> bytes:
        """Return the header of a frame that is one byte larger than allowed."""
        return struct.pack("<II", self._config.max_frame_bytes + 1, 0)

    def framed(self, payload: bytes) -> bytes:
        """Return the frame of any payload."""
        return self._encoder.encode(payload)

    async def send(self, result: DetectionResult) -> None:
        """Send a result."""
        await self.send_bytes(self.frame(result))

    async def send_bytes(self, data: bytes) -> None:
        """Send anything."""
        await self._stream.send_all(data)

    async def close(self) -> None:
        """Close the connection."""
        self.closed = True
        await self._stream.aclose()


#: ``async def behaviour(task, reply) -> None``: what the collector does about one task.
Behaviour: TypeAlias = Callable[[DetectionTask, Reply], Awaitable[None]]

#: ``async def handler(task) -> result``.
TaskHandler: TypeAlias = Callable[[DetectionTask], Awaitable[DetectionResult]]


async def succeed(task: DetectionTask) -> DetectionResult:
    """Return a success without findings."""
    await trio.lowlevel.checkpoint()
    return DetectionResult(task_id=task.task_id, success=True)


# --- Behaviours ---------------------------------------------------------------------------------------------


def answer(handler: TaskHandler = succeed) -> Behaviour:
    """Answer properly."""

    async def behave(task: DetectionTask, reply: Reply) -> None:
        await reply.send(await handler(task))

    return behave


def slow(seconds: float, then: Behaviour | None = None) -> Behaviour:
    """Wait, then behave as ``then`` says, properly if None."""
    after = then or answer()

    async def behave(task: DetectionTask, reply: Reply) -> None:
        await trio.sleep(seconds)
        await after(task, reply)

    return behave


def fail(message: str) -> Behaviour:
    """Answer that the task has failed."""

    async def behave(task: DetectionTask, reply: Reply) -> None:
        await reply.send(failed(task, message))

    return behave


def hang() -> Behaviour:
    """Never answer, and keep the connection."""

    async def behave(_task: DetectionTask, _reply: Reply) -> None:
        await trio.sleep_forever()

    return behave


def wrong_task_id(task_id: str = "another") -> Behaviour:
    """Answer another task than the one that was asked."""

    async def behave(_task: DetectionTask, reply: Reply) -> None:
        await reply.send(DetectionResult(task_id=task_id, success=True))

    return behave


def unasked_answer() -> Behaviour:
    """Answer twice: the second answer is to nothing."""

    async def behave(task: DetectionTask, reply: Reply) -> None:
        frame = reply.frame(await succeed(task))
        await reply.send_bytes(frame + frame)

    return behave


def garbage(data: bytes | None = None) -> Behaviour:
    """Send bytes that are no frame; 64 that look random, and are always the same, if None."""
    noise = random.Random(0).randbytes(64) if data is None else data  # noqa: S311 - the same each time

    async def behave(_task: DetectionTask, reply: Reply) -> None:
        await reply.send_bytes(noise)

    return behave


def bad_checksum() -> Behaviour:
    """Answer in a frame whose checksum is wrong."""

    async def behave(task: DetectionTask, reply: Reply) -> None:
        frame = bytearray(reply.frame(await succeed(task)))
        frame[HEADER_BYTES - 1] ^= 0xFF
        await reply.send_bytes(bytes(frame))

    return behave


def too_large() -> Behaviour:
    """Announce a frame that is larger than allowed, by one byte."""

    async def behave(_task: DetectionTask, reply: Reply) -> None:
        await reply.send_bytes(reply.too_large_header())

    return behave


def undecodable() -> Behaviour:
    """Answer in a good frame whose payload is no message."""

    async def behave(_task: DetectionTask, reply: Reply) -> None:
        await reply.send_bytes(reply.framed(b"\xff" * 8))

    return behave


def close_instead() -> Behaviour:
    """Close the connection without an answer."""

    async def behave(_task: DetectionTask, reply: Reply) -> None:
        await reply.close()

    return behave


def close_mid_frame(after: int | None = None) -> Behaviour:
    """Close the connection after so many bytes of the answer; after half of it if None."""

    async def behave(task: DetectionTask, reply: Reply) -> None:
        frame = reply.frame(await succeed(task))
        await reply.send_bytes(frame[: len(frame) // 2 if after is None else after])
        await reply.close()

    return behave


def drip(seconds: float, size: int = 1) -> Behaviour:
    """Answer properly in pieces of so many bytes, with a pause after each."""

    async def behave(task: DetectionTask, reply: Reply) -> None:
        frame = reply.frame(await succeed(task))
        for start in range(0, len(frame), size):
            await reply.send_bytes(frame[start : start + size])
            await trio.sleep(seconds)

    return behave


# --- The collector ------------------------------------------------------------------------------------------


class SimulatedCollector:
    """A collector under a script. Made by :func:`simulate_collector`.

    Attributes:
        endpoint: where it listens.
        config: its settings; those of a client that talks to it, too.
        default: what it does about a task when its script is at an end. It may be changed at any time.
        negotiation: what it does when it is asked for its capabilities, None for stating ``capabilities``.
        capabilities: what it says that it can do; whatever it says, it takes every task. None for saying
            nothing of it, as collectors in the field do.
        asked: the tasks that it was given, negotiations excepted.
        negotiations: how often it was asked for its capabilities.
        connections: how many it has accepted.
        open_connections: how many it has now.
        close_next: how many of the next connections it closes at once, as one that is over its limit does.
    """

    def __init__(
        self,
        endpoint: IpcEndpoint,
        config: IpcConfig,
        default: Behaviour,
        capabilities: Capabilities | None,
    ) -> None:
        self.endpoint = endpoint
        self.config = config
        self.default = default
        self.negotiation: Behaviour | None = None
        self.capabilities = capabilities
        self.asked: list[DetectionTask] = []
        self.negotiations = 0
        self.connections = 0
        self.close_next = 0
        self._script: deque[Behaviour] = deque()
        self._streams: dict[LocalStream, trio.CancelScope] = {}
        self._listener: trio.abc.Listener[Any] | None = None
        self._nursery: trio.Nursery | None = None
        self._failure: Exception | None = None
        self._was_asked = trio.Event()
        self._leaving = trio.lowlevel.ParkingLot()

    @property
    def open_connections(self) -> int:
        """How many connections it has now."""
        return len(self._streams)

    def script(self, *behaviours: Behaviour) -> None:
        """Add what it does about the next tasks, one each, whichever connections they come on."""
        self._script.extend(behaviours)

    async def wait_asked(self, count: int) -> None:
        """Wait until it was given so many tasks in all. Can be cancelled freely."""
        await trio.lowlevel.checkpoint()
        while len(self.asked) < count:
            await self._was_asked.wait()

    def drop_connections(self) -> None:
        """End every connection at once, with whatever is under way on it."""
        for scope in self._streams.values():
            scope.cancel()

    async def crash(self) -> None:
        """Be gone: end every connection, and listen no more until :meth:`restart`. Idempotent."""
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.aclose()
        self.drop_connections()
        await trio.lowlevel.checkpoint()
        while self._streams:
            await self._leaving.park()

    async def restart(self) -> None:
        """Listen again.

        Raises:
            EndpointError: it is listening, or the endpoint cannot be used.
        """
        assert self._nursery is not None  # noqa: S101 - simulate_collector set it
        if self._listener is not None:
            raise EndpointInUseError("this collector is listening", endpoint=self.endpoint.path)
        listener = self._listener = await self.endpoint.listen_streams()
        self._nursery.start_soon(self._accept, listener)

    async def _accept(self, listener: trio.abc.Listener[Any]) -> None:
        assert self._nursery is not None  # noqa: S101 - simulate_collector set it
        while True:
            try:
                stream = await listener.accept()
            except trio.ClosedResourceError:
                return
            self.connections += 1
            scope = self._streams[stream] = trio.CancelScope()
            self._nursery.start_soon(self._converse, stream, scope)

    async def _converse(self, stream: LocalStream, scope: trio.CancelScope) -> None:
        try:
            with scope:
                if self.close_next > 0:
                    self.close_next -= 1
                    return
                await self._answer_all(stream)
        except (ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # a client that leaves, or breaks the protocol, is no failure of this side's test
        finally:
            await close_at_once(stream)
            del self._streams[stream]
            self._leaving.unpark_all()

    async def _answer_all(self, stream: LocalStream) -> None:
        decoder = FrameDecoder(self.config.max_frame_bytes, self.config.crc32_variant)
        while data := await stream.receive_some(_READ_SIZE):
            decoder.feed(data)
            while (payload := decoder.next_payload()) is not None:
                task = DETECTION.decode_request(payload)
                reply = Reply(stream, self.config, task)
                await self._behave(task, reply)
                if reply.closed:
                    return

    async def _behave(self, task: DetectionTask, reply: Reply) -> None:
        try:
            await self._behaviour_for(task)(task, reply)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise  # the client has left
        except Exception as exc:
            self._failure = exc
            raise

    def _behaviour_for(self, task: DetectionTask) -> Behaviour:
        if is_capability_negotiation(task):
            self.negotiations += 1
            return self.negotiation or self._state_capabilities
        self.asked.append(task)
        self._was_asked.set()
        self._was_asked = trio.Event()
        return self._script.popleft() if self._script else self.default

    async def _state_capabilities(self, task: DetectionTask, reply: Reply) -> None:
        said = None if self.capabilities is None else self.capabilities.to_message()
        await reply.send(DetectionResult(task_id=task.task_id, success=True, capabilities=said))


@asynccontextmanager
async def simulate_collector(
    *script: Behaviour,
    endpoint: IpcEndpoint | None = None,
    handler: TaskHandler = succeed,
    config: IpcConfig | None = None,
    capabilities: Capabilities | None = ASSUMED_CAPABILITIES,
    **settings: Any,
) -> AsyncIterator[SimulatedCollector]:
    """Run a simulated collector for the length of an ``async with`` block.

    Args:
        script: what it does about the first tasks, one each.
        endpoint: where it listens; one in memory if None.
        handler: answers the tasks after those; by success if not given.
        config: its settings but for path and transport. It uses checksum and limit, and no deadlines.
        capabilities: what it says that it can do, None for nothing.
        settings: fields of ``config`` to change.

    Returns:
        A context manager that gives the :class:`SimulatedCollector`, which listens.

    Raises:
        ConfigError: a setting is wrong.
        EndpointError: the endpoint cannot be used.

    An exception of the block comes out as it is; one of a behaviour ends the block.
    """
    place = endpoint or MemoryEndpoint()
    collector = SimulatedCollector(place, config_for(place, config, settings), answer(handler), capabilities)
    collector.script(*script)
    with one_exception_alone():
        try:
            async with trio.open_nursery() as nursery:
                collector._nursery = nursery
                await collector.restart()
                try:
                    yield collector
                finally:
                    if collector._listener is not None:
                        await close_at_once(collector._listener)
                nursery.cancel_scope.cancel()
        except ExceptionGroup:
            if collector._failure is not None:
                # What the block met was only what this brought on it.
                raise collector._failure from None
            raise
