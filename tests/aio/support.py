"""What tests of calls in the event loop itself share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import pytest

from tests.adapters import DEADLINE, Gate
from tests.support import task
from trio_ipc import ChannelClosedError, IpcConfig
from trio_ipc.aio import Client, open_client
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

AioClient: TypeAlias = Client[DetectionTask, DetectionResult]
Main: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


def run(main: Main, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    """Run a test in an event loop of asyncio's."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(asyncio.wait_for(main(), DEADLINE))


def run_alone(config: IpcConfig, test: Callable[[AioClient], Coroutine[Any, Any, None]]) -> None:
    """Run a test with a client of one call at a time."""

    async def main() -> None:
        async with open_client(DETECTION, config, max_in_flight=1) as client:
            assert client._direct is not None
            await test(client)

    run(main)


async def waiting_call(client: Client[Any, Any], gate: Gate) -> asyncio.Task[Any]:
    """A call in another task, whose request has come to its handler and waits at the gate."""
    call = asyncio.create_task(client.call(task("wait")))
    assert await asyncio.to_thread(gate.reached.wait, DEADLINE)
    return call


async def expect_closed_by(client: AioClient, kind: type[BaseException]) -> None:
    with pytest.raises(ChannelClosedError, match="broken by an earlier call: .*open a new client") as caught:
        await client.call(task())
    assert isinstance(caught.value.__cause__, kind)
    assert client.is_broken
