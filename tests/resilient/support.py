"""Servers in this process, over connections in memory: the mock clock rules all there is.

A :class:`FakeServer` counts what the client opens and closes, so that limits are seen from outside.
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
    ConnectTimeoutError,
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
from trio_ipc.resilient.connection import Connection
from trio_ipc.resilient.lanes import Lane, Opening, Waiter
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


class FakeServer:
    """A server that can be told how to fail.

    Attributes:
        asked: the ids of the tasks it saw.
        connections: how many the client has open.
        failing: raised instead of a connection, where it is set.
        connecting: awaited before one is made, for as long as ``accept_timeout_ms``.
        closes: how many of the next connections it closes at once, as one that has too many does.
        places: how many connections it serves at a time; far more than any client may open, as it is mostly
            the client's limits that are tested.
    """

    def __init__(self, name: str, handler: Handler = succeed, *, places: int = 1000, **settings: Any) -> None:
        self.name = name
        self.places = places
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
        """Be gone at once, with everything that was in flight."""
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
        with trio.move_on_after(self.config.accept_timeout_ms / 1000) as in_time:
            await self.connecting()
        if in_time.cancelled_caught:
            raise ConnectTimeoutError("not taken in time", endpoint=self.config.endpoint_path)
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

        config = self.config.replace(max_connections=self.places)
        await serve_listener(handle, DETECTION, self._endpoint, config, task_status=task_status)


def servers(names: str, **settings: Any) -> list[FakeServer]:
    """One of each name, which is a letter."""
    return [FakeServer(name, **settings) for name in names]


class Servers:
    """Several of them, and what a client needs to reach them."""

    def __init__(self, *servers: FakeServer) -> None:
        self.by_path = {server.config.endpoint_path: server for server in servers}
        self.connections = Gauge()

    def __iter__(self) -> Any:
        return iter(self.by_path.values())

    def add(self, server: FakeServer) -> None:
        self.by_path[server.config.endpoint_path] = server

    async def connect(self, config: IpcConfig) -> Channel:
        return await self.by_path[config.endpoint_path].connect(self.connections)


def world_of(client: DetectionResilientClient) -> Servers:
    """The servers of a client that :func:`calling` made."""
    world: Servers = client._pool._opener._connector.__self__  # type: ignore[attr-defined]
    return world


def lanes_of(client: DetectionResilientClient) -> list[Lane]:
    return client._pool._lanes.all()


def connections_of(client: DetectionResilientClient) -> list[Connection]:
    """All that are open, of each endpoint in the order in which they were opened."""
    return [connection for lane in lanes_of(client) for connection in lane.connections]


def waiters_of(client: DetectionResilientClient) -> list[Waiter]:
    return [waiter for lane in lanes_of(client) for waiter in lane.waiting]


def openings_of(client: DetectionResilientClient) -> list[Opening]:
    return [opening for lane in lanes_of(client) for opening in lane.openings]


def open_breaker(client: DetectionResilientClient, name: str) -> None:
    """As five failures in a row do, without a call."""
    for _ in range(5):
        client._upstreams[name].breaker.admit().fail()  # type: ignore[union-attr]


def nothing_is_left_behind(client: DetectionResilientClient) -> None:
    metrics = client.metrics()
    assert metrics.tasks_sent_total == metrics.tasks_completed_total + metrics.tasks_failed_total
    assert metrics.active_connections_current == 0
    assert not waiters_of(client)
    assert all(one.given_up for one in openings_of(client)), "one that is cancelled may have a step to go"
    assert all((one.load, one.left, one.closing) == (0, 0, False) for one in connections_of(client))
    assert not any(one.breaker.probing for one in client.statistics())


@asynccontextmanager
async def calling(
    *servers: FakeServer,
    contract: Contract[DetectionTask, DetectionResult] = PLAIN,
    peers: PeerPolicy | None = None,
    seed: int = 0,
    priorities: Sequence[int] = (),
    **settings: Any,
) -> AsyncIterator[DetectionResilientClient]:
    """A client of these servers, which serve, for the length of a block.

    When the block ends, everything that the client has opened must be closed.
    """
    world = Servers(*servers)
    ranks = list(priorities) or [1] * len(servers)
    async with trio.open_nursery() as nursery:
        for server in servers:
            await nursery.start(server.serve)
        async with open_resilient_client(
            contract,
            [one.endpoint(priority=rank) for one, rank in zip(servers, ranks, strict=True)],
            ResilientConfig(**settings),
            peers=peers,
            connect=world.connect,
            chance=random.Random(seed),
        ) as client:
            yield client
        assert world.connections.now == 0
        nursery.cancel_scope.cancel()
