"""A server and its client in one line, over memory or over what the system has.

This module must never make a server or a client of its own kind: what a test gets is what a program gets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from functools import partial
from typing import Any, Generic, NamedTuple, overload

import trio

from trio_ipc.calling import open_trusted_channel
from trio_ipc.channel import close_at_once
from trio_ipc.client import Client
from trio_ipc.config import IpcConfig, TransportType
from trio_ipc.contract import Contract, RequestT, ResponseT
from trio_ipc.conversation import Handler
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.server import Server, serve_listener
from trio_ipc.transports import PeerPolicy

from .endpoints import IpcEndpoint, StreamWrapper, temporary_endpoint
from .memory import MemoryEndpoint


class Pair(NamedTuple, Generic[RequestT, ResponseT]):
    """What :func:`open_pair` gives."""

    client: Client[RequestT, ResponseT]
    server: Server[RequestT, ResponseT]


@overload
def open_server(
    handler: Handler[DetectionTask, DetectionResult],
    endpoint: IpcEndpoint,
    config: IpcConfig | None = None,
    *,
    peers: PeerPolicy | None = None,
    **settings: Any,
) -> AbstractAsyncContextManager[Server[DetectionTask, DetectionResult]]: ...


@overload
def open_server(
    handler: Handler[RequestT, ResponseT],
    endpoint: IpcEndpoint,
    config: IpcConfig | None = None,
    *,
    contract: Contract[RequestT, ResponseT],
    peers: PeerPolicy | None = None,
    **settings: Any,
) -> AbstractAsyncContextManager[Server[RequestT, ResponseT]]: ...


@asynccontextmanager
async def open_server(
    handler: Handler[Any, Any],
    endpoint: IpcEndpoint,
    config: IpcConfig | None = None,
    *,
    contract: Contract[Any, Any] = DETECTION,
    peers: PeerPolicy | None = None,
    **settings: Any,
) -> AsyncIterator[Server[Any, Any]]:
    """Run a server for the length of an ``async with`` block. In the end it is cancelled if it still runs.

    Args:
        handler: as for :func:`trio_ipc.serve`.
        endpoint: where it listens.
        config: its settings but for path and transport, which are the endpoint's; None for the defaults.
        contract: the message types; DaemonEye's unless another is given.
        peers: which users may connect.
        settings: fields of ``config`` to change, such as ``read_timeout_ms=100``.

    Returns:
        A context manager that gives the :class:`~trio_ipc.Server`, which listens.

    Raises:
        ConfigError: a setting is wrong.
        EndpointError: the endpoint cannot be used, or stopped working. The block is then cancelled.

    An exception of the block comes out as it is, not in a group.
    """
    config = config_for(endpoint, config, settings)
    listener = await endpoint.listen(config, peers)
    run = partial(serve_listener, handler, listener, config, contract=contract, peers=peers)
    with one_exception_alone():
        async with trio.open_nursery() as nursery:
            yield await nursery.start(run)
            nursery.cancel_scope.cancel()


@overload
def open_client_at(
    endpoint: IpcEndpoint,
    config: IpcConfig | None = None,
    *,
    contract: Contract[RequestT, ResponseT],
    peers: PeerPolicy | None = None,
    wrap: StreamWrapper | None = None,
    **settings: Any,
) -> AbstractAsyncContextManager[Client[RequestT, ResponseT]]: ...


@overload
def open_client_at(
    endpoint: IpcEndpoint,
    config: IpcConfig | None = None,
    *,
    peers: PeerPolicy | None = None,
    wrap: StreamWrapper | None = None,
    **settings: Any,
) -> AbstractAsyncContextManager[Client[DetectionTask, DetectionResult]]: ...


@asynccontextmanager
async def open_client_at(
    endpoint: IpcEndpoint,
    config: IpcConfig | None = None,
    *,
    contract: Contract[Any, Any] = DETECTION,
    peers: PeerPolicy | None = None,
    wrap: StreamWrapper | None = None,
    **settings: Any,
) -> AsyncIterator[Client[Any, Any]]:
    """Connect for the length of an ``async with`` block, as :func:`trio_ipc.open_client` does.

    Args:
        endpoint: where to.
        config: the settings but for path and transport, which are the endpoint's; None for the defaults.
        contract: the message types; DaemonEye's unless another is given.
        peers: which users the server may run as.
        wrap: put around the client's stream, such as :meth:`trio_ipc.testing.Faults.wrap`.
        settings: fields of ``config`` to change.

    Returns:
        A context manager that gives a :class:`~trio_ipc.Client`, and closes its connection in the end.

    Raises:
        ConfigError: a setting is wrong.
        ConnectError: no connection could be had.
        ValueError: something is to be wrapped, and the endpoint's transport has no stream.
    """
    config = config_for(endpoint, config, settings)
    connect = endpoint.open_channel if wrap is None else partial(endpoint.open_channel, wrap=wrap)
    channel = await open_trusted_channel(config, PeerPolicy.of(peers), connect)
    try:
        yield Client(channel, config, contract=contract)
    finally:
        await close_at_once(channel)


@overload
def open_pair(
    handler: Handler[DetectionTask, DetectionResult],
    config: IpcConfig | None = None,
    *,
    over: IpcEndpoint | TransportType | str = "memory",
    peers: PeerPolicy | None = None,
    wrap: StreamWrapper | None = None,
    **settings: Any,
) -> AbstractAsyncContextManager[Pair[DetectionTask, DetectionResult]]: ...


@overload
def open_pair(
    handler: Handler[RequestT, ResponseT],
    config: IpcConfig | None = None,
    *,
    contract: Contract[RequestT, ResponseT],
    over: IpcEndpoint | TransportType | str = "memory",
    peers: PeerPolicy | None = None,
    wrap: StreamWrapper | None = None,
    **settings: Any,
) -> AbstractAsyncContextManager[Pair[RequestT, ResponseT]]: ...


@asynccontextmanager
async def open_pair(
    handler: Handler[Any, Any],
    config: IpcConfig | None = None,
    *,
    contract: Contract[Any, Any] = DETECTION,
    over: IpcEndpoint | TransportType | str = "memory",
    peers: PeerPolicy | None = None,
    wrap: StreamWrapper | None = None,
    **settings: Any,
) -> AsyncIterator[Pair[Any, Any]]:
    """Run a server and connect a client to it, for the length of an ``async with`` block.

    ::

        async with open_pair(handler) as (client, server):
            result = await client.call(DetectionTask(task_id="1"))

    Args:
        handler: as for :func:`trio_ipc.serve`.
        config: the settings of both but for path and transport; None for the defaults.
        contract: the message types; DaemonEye's unless another is given.
        over: ``"memory"``, a transport (``"interprocess"``, ``"legacy"``) for a temporary endpoint of this
            system, or an endpoint.
        peers: which users either may run as.
        wrap: put around the client's stream, such as :meth:`trio_ipc.testing.Faults.wrap`.
        settings: fields of ``config`` to change.

    Returns:
        A context manager that gives a :class:`Pair`.

    Raises:
        ConfigError: a setting is wrong, or there is no such transport.

    An exception of the block comes out as it is, not in a group.
    """
    with an_endpoint(over) as endpoint:
        shared = config_for(endpoint, config, settings)
        async with (
            open_server(handler, endpoint, shared, contract=contract, peers=peers) as server,
            open_client_at(endpoint, shared, contract=contract, peers=peers, wrap=wrap) as client,
        ):
            yield Pair(client, server)


def an_endpoint(over: IpcEndpoint | TransportType | str) -> AbstractContextManager[IpcEndpoint]:
    """Return a context manager that gives the endpoint that ``over`` means; see :func:`open_pair`."""
    if isinstance(over, IpcEndpoint):
        return nullcontext(over)
    if over == "memory":
        return nullcontext(MemoryEndpoint())
    return temporary_endpoint(over)


def config_for(endpoint: IpcEndpoint, config: IpcConfig | None, settings: dict[str, Any]) -> IpcConfig:
    """Return settings with the endpoint's path and transport."""
    place = {"endpoint_path": endpoint.path, "transport": endpoint.transport}
    return (config or endpoint.config()).replace(**{**settings, **place})


@contextmanager
def one_exception_alone() -> Iterator[None]:
    """Take an exception that is alone in its group out of it: the nursery is not the test's own."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        only = group.exceptions[0]
        raise only from only.__cause__
