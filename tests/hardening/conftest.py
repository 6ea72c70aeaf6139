"""What the tests of hardening share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.hardening.cancellation_support import World
from tests.support import serving
from trio_ipc import Call, IpcConfig, open_client
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask


@pytest.fixture
async def world(config: IpcConfig) -> AsyncIterator[World]:
    async def answer(request: DetectionTask, call: Call) -> DetectionResult:
        return await made.answer(request, call)

    async with serving(answer, config) as server, open_client(DETECTION, config) as neighbour:
        made = World(config, server, neighbour)
        yield made
