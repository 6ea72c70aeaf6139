"""Collectors in this process, over connections in memory: the mock clock rules all there is.

A :class:`FakeCollector` counts what the client opens and closes, so that limits are seen from outside.
"""

from __future__ import annotations

import random
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import trio

from tests.support import Handler, MemoryEndpoint, succeed
from trio_ipc import (
    Channel,
    Contract,
    IpcConfig,
    PeerPolicy,
    Server,
    ServerRefusedError,
    serve_listener,
)
from trio_ipc.channel import framed
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.resilient import Endpoint, ResilientClient, ResilientConfig, open_resilient_client
from trio_ipc.testing import MemoryStream, memory_streams

DetectionResilientClient: TypeAlias = ResilientClient[DetectionTask, DetectionResult]

#: DaemonEye's contract without what the tests of other rules would only trip over.
PLAIN = Contract(
    name="plain",
    request_type=DetectionTask,
    response_type=DetectionResult,
    failure=DETECTION.failure,
    mismatch=DETECTION.mismatch,
    repeatable=True,
)
UNREPEATABLE = Contract(
    name="unrepeatable",
    request_type=DetectionTask,
    response_type=DetectionResult,
    failure=DETECTION.failure,
    mismatch=DETECTION.mismatch,
)


class Gauge:
    """How many there are, and how many there ever were at a time."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.total = 0

    def up(self) -> None:
        self.now += 1
        self.total += 1
        self.most = max(self.most, self.now)

    def down(self) -> None:
        self.now -= 1


def path_of(name: str) -> str:
    """An endpoint's name as this system would have it."""
    return name if sys.platform == "win32" else f"/{name}"


A, B, C = map(path_of, "abc")


class FakeCollector:
    """A collector that can be told how to fail.

    Attributes:
        asked: the ids of the tasks it saw.
        connections: how many the client has open.
        failing: raised instead of a connection, where it is set.
        connecting: awaited before one is made.
        closes: how many of the next connections it closes at once, as one that has too many does.
    """

    def __init__(self, name: str, handler: Handler = succeed, **settings: Any) -> None:
        self.name = name
        self.config = IpcConfig(endpoint_path=path_of(name), **{"handler_timeout_ms": 10**9, **settings})
        self.handler = handler
        self.asked: list[str] = []
        self.tries = 0
        self.connections = Gauge()
        self.failing: Exception | None = None
        self.closes = 0
        self.connecting: Callable[[], Any] = trio.lowlevel.checkpoint
        self._endpoint = MemoryEndpoint(self.config)
        #: The server's ends of all connections ever served, by ``Call.connection`` less one.
        self.streams: list[MemoryStream] = []
        self.channels: list[Channel] = []

    def endpoint(self, **settings: Any) -> Endpoint:
        return Endpoint(self.config, id=self.name, **settings)

    def crash(self) -> None:
        """Be gone at once, with everything that was under way."""
        self.failing = ServerRefusedError("connection refused", endpoint=self.config.endpoint_path)
        self.drop_connections()

    def restart(self) -> None:
        self.failing = None

    def drop_connections(self) -> None:
        """Close every connection, as the server's end sees it."""
        for stream in self.streams:
            stream.close()

    async def connect(self, everywhere: Gauge) -> Channel:
        self.tries += 1
        await self.connecting()
        if self.failing is not None:
            raise self.failing
        near, far = memory_streams(self.config.endpoint_path, buffer_bytes=1 << 20)
        if self.closes:
            self.closes -= 1
            far.close()
        else:
            channel = framed(far, self.config)
            self.streams.append(far)
            self.channels.append(channel)
            self._endpoint.offer(channel)
        for gauge in self.connections, everywhere:
            gauge.up()

        def closed() -> None:
            for gauge in self.connections, everywhere:
                gauge.down()

        near.on_close = closed
        return framed(near, self.config)

    async def serve(
        self, *, task_status: trio.TaskStatus[Server[Any, Any]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async def handle(task: DetectionTask, call: Any) -> DetectionResult:
            self.asked.append(task.task_id)
            return await self.handler(task, call)

        # Far more than any client may open: it is the client's limits that are tested.
        config = self.config.replace(max_connections=1000)
        await serve_listener(handle, self._endpoint, config, contract=DETECTION, task_status=task_status)


class Collectors:
    """Several of them, and what a client needs to reach them."""

    def __init__(self, *collectors: FakeCollector) -> None:
        self.by_path = {collector.config.endpoint_path: collector for collector in collectors}
        self.connections = Gauge()

    def __iter__(self) -> Any:
        return iter(self.by_path.values())

    def add(self, collector: FakeCollector) -> None:
        self.by_path[collector.config.endpoint_path] = collector

    async def connect(self, config: IpcConfig) -> Channel:
        return await self.by_path[config.endpoint_path].connect(self.connections)


@asynccontextmanager
async def calling(
    *collectors: FakeCollector,
    contract: Contract[DetectionTask, DetectionResult] = PLAIN,
    peers: PeerPolicy | None = None,
    seed: int = 0,
    priorities: Sequence[int] = (),
    **settings: Any,
) -> AsyncIterator[DetectionResilientClient]:
    """A client of these collectors, which serve, for the length of a block.

    When the block ends, everything that the client has opened must be closed.
    """
    world = Collectors(*collectors)
    ranks = list(priorities) or [1] * len(collectors)
    async with trio.open_nursery() as nursery:
        for collector in collectors:
            await nursery.start(collector.serve)
        async with open_resilient_client(
            [one.endpoint(priority=rank) for one, rank in zip(collectors, ranks, strict=True)],
            ResilientConfig(**settings),
            contract=contract,
            peers=peers,
            connect=world.connect,
            chance=random.Random(seed),
        ) as client:
            yield client
        assert world.connections.now == 0
        nursery.cancel_scope.cancel()
