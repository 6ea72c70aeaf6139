"""What tests of calls in the event loop itself share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import pytest

from tests.adapters import DEADLINE
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


def check_counts(client: AioClient, **failed: int) -> None:
    said = client.snapshot()
    assert said.calls == said.calls_answered + sum(said.calls_failed.values()) + said.calls_in_flight
    assert said.calls_in_flight == 0
    assert said.call_seconds.count == said.calls_answered
    assert {kind: count for kind, count in said.calls_failed.items() if count} == failed


async def expect_closed_by(client: AioClient, kind: type[BaseException]) -> None:
    with pytest.raises(ChannelClosedError, match="broken by an earlier call: .*open a new client") as caught:
        await client.call(task())
    assert isinstance(caught.value.__cause__, kind)
    assert client.is_broken
