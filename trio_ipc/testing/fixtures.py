"""What stands behind the fixtures of the pytest plugin, which is loaded only when one of them is used.

This module must never import pytest: the plugin does, and nothing else here needs it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import trio

from trio_ipc.client import Client
from trio_ipc.config import IpcConfig, TransportType
from trio_ipc.contract import Contract
from trio_ipc.errors import ends_the_program, leaves
from trio_ipc.server import Handler, Server
from trio_ipc.server.handling import check_handler
from trio_ipc.transports import PeerPolicy

from .endpoints import IpcEndpoint, StreamWrapper
from .outcome import Outcome
from .pair import open_client_at, open_server, telling_handler


class StartServer(Protocol):
    """The type of the fixture ``ipc_server``."""

    async def __call__(
        self,
        handler: Handler[Any, Any],
        contract: Contract[Any, Any],
        config: IpcConfig | None = None,
        *,
        peers: PeerPolicy | None = None,
        **settings: Any,
    ) -> Server[Any, Any]:
        """Start a server that ends with the test; see :func:`trio_ipc.testing.open_server`."""


class OpenClient(Protocol):
    """The type of the fixture ``ipc_client``."""

    async def __call__(
        self,
        contract: Contract[Any, Any],
        config: IpcConfig | None = None,
        *,
        peers: PeerPolicy | None = None,
        wrap: StreamWrapper | None = None,
        **settings: Any,
    ) -> Client[Any, Any]:
        """Connect a client that is closed with the test; see :func:`trio_ipc.testing.open_client_at`."""


def known_kinds() -> list[str]:
    """Return what the marker ``ipc_transport`` may name."""
    return ["memory", *map(str, TransportType)]


@asynccontextmanager
async def server_starter(endpoint: IpcEndpoint) -> AsyncIterator[StartServer]:
    """Give a function that starts servers; they are cancelled when the block ends.

    A failure cancels the test if that has a task of its own, as under pytest-trio. Else, as under anyio's
    plugin, one task runs fixtures and tests in turn, and a cancellation would end that for all of them: the
    failure is kept, and raised when the block ends.
    """
    outcome = Outcome()
    owner = trio.lowlevel.current_task()
    # Without the servers in it: the test is cancelled while their connections are still open.
    block = trio.CancelScope()
    with outcome.told():
        async with trio.open_nursery() as nursery:

            async def start(
                handler: Handler[Any, Any],
                contract: Contract[Any, Any],
                config: IpcConfig | None = None,
                **settings: Any,
            ) -> Server[Any, Any]:
                check_handler(handler)
                shared = _is_within(owner)
                to_cancel = trio.CancelScope() if shared else block
                telling = telling_handler(handler, outcome, to_cancel, ended=_test_is_cancelled)
                opened = open_server(telling, contract, endpoint, config, **settings)
                server: Server[Any, Any] = await nursery.start(_run, opened, outcome if shared else None)
                return server

            with block:
                yield start
            nursery.cancel_scope.cancel()


async def _test_is_cancelled() -> None:
    """Wait until a test has heard of it that the block of a fixture is cancelled.

    The test is a task of its own. pytest-trio cancels it when the fixture's task, which waits in the block,
    next runs: in the round after this one.
    """
    for _ in range(2):
        await trio.lowlevel.cancel_shielded_checkpoint()


def _is_within(owner: trio.lowlevel.Task) -> bool:
    """Whether what calls this is a task, or was started by one."""
    task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
    while task is not None and task is not owner:
        task = None if task.parent_nursery is None else task.parent_nursery.parent_task
    return task is owner


async def _run(
    opened: Any, keeps_failures: Outcome | None, *, task_status: trio.TaskStatus[Server[Any, Any]]
) -> None:
    has_started = False
    try:
        async with opened as server:
            task_status.started(server)
            has_started = True
            await server.wait_stopped()
    except BaseException as exc:
        cancelled = all(isinstance(leaf, trio.Cancelled) for leaf in leaves(exc))
        if keeps_failures is None or cancelled or not has_started or ends_the_program(exc) is not None:
            raise
        keeps_failures.failed(exc)


@asynccontextmanager
async def client_opener(endpoint: IpcEndpoint) -> AsyncIterator[OpenClient]:
    """Give a function that connects clients; they are closed when the block ends."""
    async with trio.open_nursery() as nursery:

        async def connect(
            contract: Contract[Any, Any], config: IpcConfig | None = None, **settings: Any
        ) -> Client[Any, Any]:
            opened = open_client_at(contract, endpoint, config, **settings)
            client: Client[Any, Any] = await nursery.start(_hold, opened)
            return client

        yield connect
        nursery.cancel_scope.cancel()


async def _hold(opened: Any, *, task_status: trio.TaskStatus[Client[Any, Any]]) -> None:
    # In a task of its own: the test's task must not leave what it has not entered last.
    async with opened as client:
        task_status.started(client)
        await trio.sleep_forever()
