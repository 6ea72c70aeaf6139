"""A resilient client for synchronous programs: many servers behind one call, which threads share.

The resilient client for Trio does the work; this module must never know how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from anyio.from_thread import BlockingPortal

from trio_ipc.contract import Contract, RequestT, ResponseT
from trio_ipc.portal import Kept, as_async, check_portal
from trio_ipc.resilient import Answer, ClientMetrics, Endpoint, EndpointStatistics, ResilientConfig
from trio_ipc.resilient import ResilientClient as TrioClient
from trio_ipc.resilient import open_resilient_client as open_on_trio
from trio_ipc.transports import PeerPolicy

from .base import BlockingAdapter


class ResilientClient(BlockingAdapter[TrioClient[RequestT, ResponseT]]):
    """Calls whichever server can answer, for synchronous programs. Made by :func:`open_resilient_client`.

    Every thread may use it, and several at a time. Close it, by a ``with`` block or by :meth:`close`: one
    that is forgotten warns by a :exc:`ResourceWarning`.
    """

    def call(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,
        needs: Callable[[Any], bool] | None = None,
    ) -> ResponseT:
        """Have a request answered by a server that can, and return its response. See :meth:`ask`."""
        return self._run(partial(self._kept.thing.call, request, timeout=timeout, needs=needs))

    def ask(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,
        needs: Callable[[Any], bool] | None = None,
    ) -> Answer[ResponseT]:
        """Send a request to a server that can answer it.

        Args:
            request: a message of the contract's request type.
            timeout: seconds for all of it; ``call_timeout_ms`` if None.
            needs: says of a server's capabilities whether they will do. It runs in the Trio thread, and must
                not call.

        Returns:
            The response, and whose it is.

        Raises what :meth:`trio_ipc.ResilientClient.ask` raises. An interrupt (Ctrl-C) ends the call, and
        closes the connection that waits for the response, unless others share it; the client stays good.
        """
        return self._run(partial(self._kept.thing.ask, request, timeout=timeout, needs=needs))

    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Ask this server, too, from now on. See :meth:`trio_ipc.ResilientClient.add_endpoint`."""
        self._run(as_async(partial(self._kept.thing.add_endpoint, endpoint)))

    def remove_endpoint(self, endpoint_id: str) -> None:
        """Ask this server no more. See :meth:`trio_ipc.ResilientClient.remove_endpoint`."""
        self._run(as_async(partial(self._kept.thing.remove_endpoint, endpoint_id)))

    def statistics(self) -> tuple[EndpointStatistics, ...]:
        """Return how each endpoint does now, in the order in which they were added."""
        return self._run(as_async(self._kept.thing.statistics))

    def metrics(self) -> ClientMetrics:
        """Return a copy of the metrics as they are now."""
        return self._run(as_async(self._kept.thing.metrics))


def open_resilient_client(
    contract: Contract[RequestT, ResponseT],
    endpoints: Iterable[Endpoint],
    settings: ResilientConfig | None = None,
    *,
    peers: PeerPolicy | None = None,
    portal: BlockingPortal | None = None,
) -> ResilientClient[RequestT, ResponseT]:
    """Call several servers as if they were one, for the length of a ``with`` block, or until it is closed.

    Nothing is connected before the first call needs it, so that this succeeds with no server running.

    Args:
        contract: the message types. Its functions run in the Trio thread, and must not call.
        endpoints: the servers; more may be added and removed later.
        settings: limits, deadlines and how calls are spread; None for the defaults.
        peers: which users the servers may run as; by default this process's own and root.
        portal: as for :func:`open_client`.

    Raises:
        TypeError: an argument is of the wrong type.
        ConfigError: two endpoints have the same id.
        IpcError: the portal has ended, or this is its thread, or a thread that runs Trio.

    An interrupt (Ctrl-C) ends it, and leaves nothing open.
    """
    check_portal(portal)
    manager = open_on_trio(contract, endpoints, settings, peers=peers)
    kept = Kept(None, lambda _end: manager)
    return ResilientClient(kept, portal)._open()  # noqa: SLF001 - the class is public to be used, not to be opened
