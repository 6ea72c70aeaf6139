"""A server and its client in one line, over memory or over what the system has.

This module must never make a server or a client of its own kind: what a test gets is what a program gets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import (
    AbstractContextManager,
    asynccontextmanager,
    nullcontext,
)
from functools import partial
from typing import Any, Generic, NamedTuple

import trio

from trio_ipc.client import Client, client_over, open_trusted_channel
from trio_ipc.config import IpcConfig, TransportType, config_of
from trio_ipc.contract import Contract, RequestT, ResponseT, contract_of
from trio_ipc.errors import leaves
from trio_ipc.server import Call, Handler, Server, serve_listener
from trio_ipc.server.handling import check_handler
from trio_ipc.transports import PeerPolicy

from .endpoints import IpcEndpoint, StreamWrapper, endpoint_of, temporary_endpoint
from .memory import MemoryEndpoint
from .outcome import Outcome, is_the_tests


class Pair(NamedTuple, Generic[RequestT, ResponseT]):
    """What :func:`open_pair` gives."""

    client: Client[RequestT, ResponseT]
    server: Server[RequestT, ResponseT]


async def _no_wait() -> None:
    pass


@asynccontextmanager
async def open_server(
    handler: Handler[RequestT, ResponseT],
    contract: Contract[RequestT, ResponseT],
    endpoint: IpcEndpoint,
    config: IpcConfig | None = None,
    *,
    peers: PeerPolicy | None = None,
    **settings: Any,
) -> AsyncIterator[Server[RequestT, ResponseT]]:
    """Run a server for the length of an ``async with`` block. In the end it is cancelled if it still runs.

    Args:
        handler: as for :func:`trio_ipc.serve`.
        contract: the message types, and what a failure becomes.
        endpoint: where it listens.
        config: its settings but for path and transport, which are the endpoint's; None for the defaults.
        peers: which users may connect.
        settings: fields of ``config`` to change, such as ``read_timeout_ms=100``.

    Returns:
        A context manager that gives the :class:`~trio_ipc.Server`, which listens.

    Raises:
        ConfigError: a setting is wrong.
        EndpointError: the endpoint cannot be used, or stopped working. The block is then cancelled.
        AssertionError: the handler has raised it. It becomes a failed response as well, and the block is
            cancelled: what a test asserts there is not lost. So it is with what ``pytest.fail()`` raises.

    An exception of the block comes out as it is, not in a group. Of several failures the first comes out,
    with notes of the others.
    """
    check_handler(handler)
    contract_of(contract)
    config = config_for(endpoint, config, settings)
    listener = await endpoint.listen(config, peers)
    outcome = Outcome()
    with outcome.told():
        async with trio.open_nursery() as nursery:
            telling = telling_handler(handler, outcome, nursery.cancel_scope)
            run = partial(serve_listener, telling, contract, listener, config, peers=peers)
            server = await nursery.start(_seen, run, outcome)
            with outcome.seen():
                yield server
            nursery.cancel_scope.cancel()


def telling_handler(
    handler: Handler[RequestT, ResponseT],
    outcome: Outcome,
    block: trio.CancelScope,
    *,
    ended: Callable[[], Awaitable[None]] = _no_wait,
) -> Handler[RequestT, ResponseT]:
    """Return a handler that ends the block by what it asserts.

    Args:
        handler: the test's own.
        outcome: told of what it asserts.
        block: cancelled by that.
        ended: waits until the block has seen that, where it runs no code itself. Only then the server goes
            on, so that the test does not fail by a connection that is closed.
    """

    async def handle(request: RequestT, call: Call) -> ResponseT:
        try:
            return await handler(request, call)
        except BaseException as exc:
            if any(map(is_the_tests, leaves(exc))):
                outcome.failed(exc)
                block.cancel()
                await ended()
            raise

    return handle


async def _seen(
    run: Callable[..., Awaitable[None]], outcome: Outcome, *, task_status: trio.TaskStatus[Any]
) -> None:
    with outcome.seen():
        await run(task_status=task_status)


@asynccontextmanager
async def open_client_at(
    contract: Contract[RequestT, ResponseT],
    endpoint: IpcEndpoint,
    config: IpcConfig | None = None,
    *,
    peers: PeerPolicy | None = None,
    wrap: StreamWrapper | None = None,
    max_in_flight: int = 1,
    **settings: Any,
) -> AsyncIterator[Client[RequestT, ResponseT]]:
    """Connect for the length of an ``async with`` block, as :func:`trio_ipc.open_client` does.

    Args:
        contract: the message types.
        endpoint: where to.
        config: the settings but for path and transport, which are the endpoint's; None for the defaults.
        peers: which users the server may run as.
        wrap: put around the client's stream, such as :meth:`trio_ipc.testing.Faults.wrap`.
        max_in_flight: as for :func:`trio_ipc.open_client`.
        settings: fields of ``config`` to change.

    Returns:
        A context manager that gives a :class:`~trio_ipc.Client`, and closes its connection in the end.

    Raises:
        ConfigError: a setting is wrong.
        ConnectError: no connection could be had.
        TypeError: an argument can't be.
        ValueError: something is to be wrapped, and the endpoint's transport has no stream.
    """
    contract_of(contract)
    config = config_for(endpoint, config, settings)
    open_channel = endpoint.open_channel if wrap is None else partial(endpoint.open_channel, wrap=wrap)
    connect = partial(open_trusted_channel, peers=PeerPolicy.of(peers), connect=open_channel)
    async with client_over(connect, contract, config, max_in_flight=max_in_flight) as client:
        yield client


@asynccontextmanager
async def open_pair(
    handler: Handler[RequestT, ResponseT],
    contract: Contract[RequestT, ResponseT],
    config: IpcConfig | None = None,
    *,
    over: IpcEndpoint | TransportType | str = "memory",
    peers: PeerPolicy | None = None,
    wrap: StreamWrapper | None = None,
    max_in_flight: int = 1,
    **settings: Any,
) -> AsyncIterator[Pair[RequestT, ResponseT]]:
    """Run a server and connect a client to it, for the length of an ``async with`` block.

    ::

        async with open_pair(handler, DETECTION) as (client, server):
            result = await client.call(DetectionTask(task_id="1"))

    Args:
        handler: as for :func:`trio_ipc.serve`.
        contract: the message types, and what a failure becomes.
        config: the settings of both but for path and transport; None for the defaults.
        over: ``"memory"``, a transport (``"interprocess"``, ``"legacy"``) for a temporary endpoint of this
            system, or an endpoint.
        peers: which users either may run as.
        wrap: put around the client's stream, such as :meth:`trio_ipc.testing.Faults.wrap`.
        max_in_flight: as for :func:`trio_ipc.open_client`.
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
            open_server(handler, contract, endpoint, shared, peers=peers) as server,
            open_client_at(
                contract, endpoint, shared, peers=peers, wrap=wrap, max_in_flight=max_in_flight
            ) as client,
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
    place = {"endpoint_path": endpoint_of(endpoint).path, "transport": endpoint.transport}
    given = endpoint.config() if config is None else config_of(config)
    return given.replace(**{**settings, **place})
