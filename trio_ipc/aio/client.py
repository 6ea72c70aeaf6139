"""A client for asyncio programs: one connection, which tasks share.

The Trio client does the work; this module must never know how.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial
from typing import Self

from anyio.from_thread import BlockingPortal

from trio_ipc.client import Client as TrioClient
from trio_ipc.client import open_client as open_on_trio
from trio_ipc.client.batch import all_of
from trio_ipc.config import IpcConfig, config_of
from trio_ipc.contract import Contract, RequestT, ResponseT
from trio_ipc.portal import Kept, check_portal
from trio_ipc.telemetry import ClientSnapshot
from trio_ipc.transports import PeerCredentials, PeerPolicy

from .adapter import AioAdapter, Opening, running_side
from .direct import Direct, watch_of
from .loop import run, run_whole


class Client(AioAdapter[TrioClient[RequestT, ResponseT]]):
    """A connection to a server, for the tasks of one event loop. Made by :func:`open_client`.

    Close it, by an ``async with`` block or by :meth:`aclose`: one that is forgotten warns by a
    :exc:`ResourceWarning`.
    """

    _direct: Direct[RequestT, ResponseT] | None = None

    @property
    def endpoint(self) -> str:
        """Where it leads."""
        return self._kept.thing.endpoint

    @property
    def peer(self) -> PeerCredentials | None:
        """The server's process and user, as the system reported them."""
        return self._kept.thing.peer

    @property
    def is_broken(self) -> bool:
        """Whether the connection was closed, by :meth:`aclose` or by what a call met."""
        return self._closed or self._kept.thing.is_broken

    def snapshot(self) -> ClientSnapshot:
        """Return what the client has done so far. Any thread may ask, also after it was closed."""
        return self._kept.thing.snapshot()

    async def call(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as Trio's, which says what it waited for
    ) -> ResponseT:
        """Send a request and wait for its response. Raises what :meth:`trio_ipc.Client.call` raises.

        Args:
            request: a message of the contract's request type. Leave it alone until the call is over.
            timeout: seconds for all of the call, or None for no limit but those of the settings.

        Returns:
            The response. One that reports a failure is returned, not raised.

        Cancellation, and so :func:`asyncio.timeout`, ends the call; whether its work was done is not known.
        The client stays good where ``max_in_flight`` is more than 1, or nothing was sent yet. Otherwise it is
        closed, and the next call says so.
        """
        if self._direct is not None:
            self._check_here()
            return await self._direct.call(request, timeout=timeout)
        return await self._run(partial(self._kept.thing.call, request, timeout=timeout))

    async def call_many(
        self,
        requests: Iterable[RequestT],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> list[ResponseT]:
        """Send several requests ahead, instead of each after the response to the one before.

        Args:
            requests: messages of the contract's request type.
            timeout: seconds for all of it, or None.

        Returns:
            The responses in the requests' order.

        Raises what :meth:`trio_ipc.Client.call_many` raises. Cancellation does what it does to :meth:`call`.
        """
        requests = all_of(requests)  # an iterator of the caller's runs in the caller's thread
        if self._direct is not None:
            self._check_here()
            return await self._direct.call_many(requests, timeout=timeout)
        return await self._run(partial(self._kept.thing.call_many, requests, timeout=timeout))

    async def aclose(self) -> None:
        """Close it, and wait until that is done; see :meth:`AioAdapter.aclose`. Idempotent."""
        try:
            await super().aclose()
        finally:
            if self._direct is not None and self._closed and self._is_of_this_process:
                self._direct.close()  # only now: who waits there hears of the end by the connection

    async def _open(self) -> Self:
        await super()._open()
        parts = self._kept.thing.direct_parts()
        watch = None if parts is None else watch_of(parts, self._side.loop)
        if parts is not None and watch is not None:
            self._direct = Direct(
                parts,
                watch,
                run=partial(run, self._kept, self._side),
                run_whole=partial(run_whole, self._kept, self._side),
            )
        return self

    def _give_up(self) -> list[Future[object]]:
        if self._direct is not None:
            self._direct.give_up()
        return super()._give_up()


def open_client(
    contract: Contract[RequestT, ResponseT],
    config: IpcConfig | None = None,
    *,
    peers: PeerPolicy | None = None,
    max_in_flight: int = 64,
    portal: BlockingPortal | None = None,
) -> Opening[Client[RequestT, ResponseT]]:
    """Connect to the configured endpoint, for the length of an ``async with`` block.

    ``client = await open_client(contract, config)`` does it for who closes it later, by ``aclose()``.

    Args:
        contract: the message types. Its functions may run in the Trio thread.
        config: the settings; None for the defaults and the environment (:meth:`IpcConfig.load`).
        peers: which users the server may run as; by default this process's own and root.
        max_in_flight: how many calls may be in flight at a time; the others wait for their turn. Above 1
            requests that tasks make at the same time share one write, and neither a ``timeout`` nor a
            cancellation closes the connection. 1 is the fastest for a task that is alone: over a Unix socket
            its calls run in the event loop itself.
        portal: where it is opened: one of anyio's on Trio (``start_blocking_portal("trio")``), which several
            clients may share, and which has to last longer than they do. None for a thread of its own.

    Returns:
        What opens a client, in the event loop that runs then.

    Raises:
        TypeError: an argument is of the wrong type.
        ConfigError: ``max_in_flight`` is below 1, or the environment holds a wrong setting, where
            ``config`` is None.

    When it is opened it raises :exc:`~trio_ipc.ConnectError`, whose subclasses say why no connection could be
    had, or :exc:`~trio_ipc.IpcError` where the portal has ended or no event loop of asyncio runs.
    Cancellation leaves nothing open.
    """
    check_portal(portal)
    config = config_of(config)
    make_manager = partial(open_on_trio, contract, config, peers=peers, max_in_flight=max_in_flight)
    make_manager()  # wrong arguments are told here, and not where it is opened

    async def open_it() -> Client[RequestT, ResponseT]:
        side = running_side()
        kept = Kept(config.endpoint_path, lambda _end: make_manager())
        return await Client(kept, portal, side)._open()  # noqa: SLF001 - not for users

    return Opening(open_it)
