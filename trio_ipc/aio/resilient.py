"""A resilient client for asyncio programs: many servers behind one call, which tasks share.

The resilient client for Trio does the work; this module must never know how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from anyio.from_thread import BlockingPortal

from trio_ipc.contract import Contract, RequestT, ResponseT, contract_of
from trio_ipc.portal import Kept, as_async, check_portal
from trio_ipc.resilient import Answer, ClientMetrics, Endpoint, EndpointStatistics, ResilientConfig
from trio_ipc.resilient import ResilientClient as TrioClient
from trio_ipc.resilient import open_resilient_client as open_on_trio
from trio_ipc.resilient.arguments import endpoints_of
from trio_ipc.transports import PeerPolicy

from .adapter import AioAdapter, Opening, running_side


class ResilientClient(AioAdapter[TrioClient[RequestT, ResponseT]]):
    """Calls whichever server can answer, for the tasks of one event loop.

    Made by :func:`open_resilient_client`. Close it, by an ``async with`` block or by :meth:`aclose`: one that
    is forgotten warns by a :exc:`ResourceWarning`.
    """

    async def call(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as Trio's, which says what it waited for
        needs: Callable[[Any], bool] | None = None,
    ) -> ResponseT:
        """Have a request answered by a server that can, and return its response. See :meth:`ask`."""
        return await self._run(partial(self._kept.thing.call, request, timeout=timeout, needs=needs))

    async def ask(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        needs: Callable[[Any], bool] | None = None,
    ) -> Answer[ResponseT]:
        """Send a request to a server that can answer it.

        Args:
            request: a message of the contract's request type. Leave it alone until the call is over.
            timeout: seconds for all of it; ``call_timeout_ms`` if None.
            needs: says of a server's capabilities whether they will do. It runs in the Trio thread.

        Returns:
            The response, and whose it is.

        Raises what :meth:`trio_ipc.ResilientClient.ask` raises. Cancellation ends the call, and closes the
        connection that waits for the response, unless others share it; the client stays good.
        """
        return await self._run(partial(self._kept.thing.ask, request, timeout=timeout, needs=needs))

    async def add_endpoint(self, endpoint: Endpoint) -> None:
        """Ask this server, too, from now on. See :meth:`trio_ipc.ResilientClient.add_endpoint`."""
        await self._run(as_async(partial(self._kept.thing.add_endpoint, endpoint)))

    async def remove_endpoint(self, endpoint_id: str) -> None:
        """Ask this server no more. See :meth:`trio_ipc.ResilientClient.remove_endpoint`."""
        await self._run(as_async(partial(self._kept.thing.remove_endpoint, endpoint_id)))

    async def statistics(self) -> tuple[EndpointStatistics, ...]:
        """Return how each endpoint does now, in the order in which they were added."""
        return await self._run(as_async(self._kept.thing.statistics))

    async def metrics(self) -> ClientMetrics:
        """Return a copy of the metrics as they are now."""
        return await self._run(as_async(self._kept.thing.metrics))


def open_resilient_client(
    contract: Contract[RequestT, ResponseT],
    endpoints: Iterable[Endpoint],
    settings: ResilientConfig | None = None,
    *,
    peers: PeerPolicy | None = None,
    portal: BlockingPortal | None = None,
) -> Opening[ResilientClient[RequestT, ResponseT]]:
    """Call several servers as if they were one, for the length of an ``async with`` block.

    Nothing is connected before the first call needs it, so that this succeeds with no server running.
    ``await open_resilient_client(...)`` does it for who closes it later, by ``aclose()``.

    Args:
        contract: the message types. Its functions run in the Trio thread.
        endpoints: the servers; more may be added and removed later.
        settings: limits, deadlines and how calls are spread; None for the defaults.
        peers: which users the servers may run as; by default this process's own and root.
        portal: as for :func:`open_client`.

    Returns:
        What opens a client, in the event loop that runs then.

    Raises:
        TypeError: an argument is of the wrong type.

    When it is opened it raises :exc:`~trio_ipc.ConfigError` where two endpoints have the same id, or
    :exc:`~trio_ipc.IpcError` where the portal has ended or no event loop of asyncio runs. Cancellation leaves
    nothing open.
    """
    check_portal(portal)
    contract_of(contract)
    make_manager = partial(open_on_trio, contract, endpoints_of(endpoints), settings, peers=peers)
    make_manager()  # wrong arguments are told here, and not where it is opened

    async def open_it() -> ResilientClient[RequestT, ResponseT]:
        side = running_side()
        kept = Kept(None, lambda _end: make_manager())
        return await ResilientClient(kept, portal, side)._open()  # noqa: SLF001 - not for users

    return Opening(open_it)
