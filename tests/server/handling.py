"""What the tests of users' handlers share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support import (
    IN_MEMORY,
    DetectionClient,
    DetectionServer,
    Handler,
    MemoryEndpoint,
    serving,
)
from trio_ipc import IpcConfig

CONFIG = IpcConfig(endpoint_path=IN_MEMORY, max_connections=8)


class Panic(BaseException):
    """What PyO3 makes of a panic in Rust is no Exception."""


@asynccontextmanager
async def answering(
    handler: Handler, config: IpcConfig = CONFIG
) -> AsyncIterator[tuple[DetectionServer, DetectionClient]]:
    endpoint = MemoryEndpoint(config)
    async with serving(handler, endpoint) as server:
        yield server, endpoint.client()
