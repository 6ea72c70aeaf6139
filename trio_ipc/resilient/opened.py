"""How a program gets a resilient client, and how all of it ends.

This module must never make a call.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import trio

from trio_ipc.client.nursery import nursery_of_our_own
from trio_ipc.contract import Contract, RequestT, ResponseT, contract_of
from trio_ipc.errors import shown_argument
from trio_ipc.opening import check_on_trio, open_channel
from trio_ipc.transports import PeerPolicy

from .arguments import endpoints_of, settings_of
from .client import ResilientClient
from .endpoints import Endpoint
from .opening import Connector
from .settings import ResilientConfig


def open_resilient_client(
    contract: Contract[RequestT, ResponseT],
    endpoints: Iterable[Endpoint],
    settings: ResilientConfig | None = None,
    *,
    peers: PeerPolicy | None = None,
    connect: Connector = open_channel,
    chance: random.Random | None = None,
) -> AbstractAsyncContextManager[ResilientClient[RequestT, ResponseT]]:
    """Call several servers as if they were one, for the length of an ``async with`` block.

    Nothing is connected before the first call needs it, so that this succeeds with no server running.

    Args:
        contract: the message types.
        endpoints: the servers; more may be added and removed later.
        settings: limits, deadlines and how calls are spread; None for the defaults.
        peers: which users the servers may run as; by default this process's own and root.
        connect: opens channels, for transports of your own and for tests. It has to end by itself within
            ``accept_timeout_ms`` of the endpoint, as the one by default does.
        chance: where jitter and the weighted strategy take their chances from; for tests.

    Returns:
        A context manager that gives a :class:`ResilientClient`. When the block ends, calls that are in
        flight in other tasks end by :exc:`ChannelClosedError`, and every connection is closed.

    Raises:
        TypeError: an argument is of the wrong type.
        ConfigError: two endpoints have the same id, when the block is entered.

    Cancellation closes everything at once. Exceptions of the block are raised as they are.
    """
    contract_of(contract)
    found, settings, policy = endpoints_of(endpoints), settings_of(settings), PeerPolicy.of(peers)
    given: object = connect
    if not callable(given):
        raise TypeError(f"connect is {shown_argument(given)}, must be an async function of a config")
    given = chance
    if given is not None and not isinstance(given, random.Random):
        raise TypeError(f"chance is {shown_argument(given)}, must be a random.Random or None")
    make_client: Callable[[trio.Nursery], ResilientClient[RequestT, ResponseT]] = partial(
        ResilientClient,
        settings,
        contract=contract,
        peers=policy,
        connect=connect,
        chance=chance or random.Random(),  # noqa: S311 - to spread calls, not to keep a secret
    )
    return _opened(make_client, found)


@asynccontextmanager
async def _opened(
    make_client: Callable[[trio.Nursery], ResilientClient[RequestT, ResponseT]],
    endpoints: Iterable[Endpoint],
) -> AsyncIterator[ResilientClient[RequestT, ResponseT]]:
    check_on_trio()
    async with nursery_of_our_own() as nursery:
        client = make_client(nursery)
        try:
            for endpoint in endpoints:
                client.add_endpoint(endpoint)
            yield client
        finally:
            await client._aclose()  # noqa: SLF001 - the class is public to be used, not to be closed
