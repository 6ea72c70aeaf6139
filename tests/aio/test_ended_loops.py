"""What still runs where its coroutine is closed, as Python does it once the event loop has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest

from tests.adapters import DEADLINE, Gate, portal_threads, served
from tests.support import success, task
from trio_ipc import IpcConfig
from trio_ipc.aio import Client, open_client
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

from .support import run

AioClient: TypeAlias = Client[DetectionTask, DetectionResult]

USES: dict[str, Callable[[AioClient], Awaitable[object]]] = {
    "call": lambda client: client.call(task("wait")),
    "call_many": lambda client: client.call_many([task("wait"), task("2")]),
}


@pytest.mark.parametrize("use", USES)
def test_a_call_whose_coroutine_is_closed_is_cancelled_and_leaves_the_client_good(
    config: IpcConfig, use: str
) -> None:
    async def main() -> None:
        async with open_client(DETECTION, config) as client:
            call: Any = USES[use](client)
            call.send(None)
            call.close()
            assert await client.call(task("1")) == success("1")

    gate = Gate()
    with served(config, gate) as there:

        async def whole() -> None:
            closed = asyncio.create_task(main())
            there.portal.start_task_soon(gate.open)  # what was sent keeps its place until it is answered
            await closed

        run(whole)


def test_an_opening_whose_coroutine_is_closed_is_given_up(config: IpcConfig) -> None:
    async def main() -> None:
        opening: Any = open_client(DETECTION, config).__await__()
        next(opening)
        opening.close()
        for thread in portal_threads():
            thread.join(DEADLINE)

    with served(config):
        run(main)
