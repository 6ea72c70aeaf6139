"""What the tests of legacy's named pipes build on. Only for Windows."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from trio_ipc import IpcConfig, PeerPolicy
from trio_ipc.legacy import connect, listen

assert sys.platform == "win32", "for Windows only"  # mypy skips the rest elsewhere

from trio_ipc.legacy.pipe import PipeChannel  # noqa: E402
from trio_ipc.legacy.pipe_listener import PipeListener  # noqa: E402

OWN = PeerPolicy.own_user_and_root()
LARGE = bytes(4_000_000)
Pair = tuple[PipeChannel, PipeChannel]


async def connected_to(listener: PipeListener, config: IpcConfig) -> Pair:
    client, server = await connect(config), await listener.accept()
    assert isinstance(client, PipeChannel)
    assert isinstance(server, PipeChannel)
    return client, server


@asynccontextmanager
async def pair(config: IpcConfig) -> AsyncIterator[Pair]:
    async with await listen(config, OWN) as listener:
        client, server = await connected_to(listener, config)
    async with client, server:
        yield client, server


async def blocked(task: Any, nursery: trio.Nursery) -> None:
    nursery.start_soon(task)
    await trio.testing.wait_all_tasks_blocked(0.02)


async def until_noticed(channel: PipeChannel) -> None:
    while channel.is_reusable():  # noqa: ASYNC110 - the kernel completes the read when it likes
        await trio.sleep(0.01)


async def cancelled_receive(channel: PipeChannel) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await blocked(channel.receive, nursery)
            scope.cancel()
