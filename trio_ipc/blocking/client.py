"""A client for synchronous programs: one connection, which threads share.

The Trio client does the work; this module must never know how.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Self

from anyio.from_thread import BlockingPortal

from trio_ipc.client import Client as TrioClient
from trio_ipc.client import open_client as open_on_trio
from trio_ipc.client.batch import all_of
from trio_ipc.client.direct import Direct
from trio_ipc.config import IpcConfig, config_of
from trio_ipc.contract import Contract, RequestT, ResponseT
from trio_ipc.portal import Kept, check_portal
from trio_ipc.telemetry import ClientSnapshot
from trio_ipc.transports import PeerCredentials, PeerPolicy

from .base import BlockingAdapter
from .waiting import run, run_whole


class Client(BlockingAdapter[TrioClient[RequestT, ResponseT]]):
    """A connection to a server, for synchronous programs. Made by :func:`open_client`.

    Every thread may use it, and several at a time. Close it, by a ``with`` block or by :meth:`close`: one
    that is forgotten warns by a :exc:`ResourceWarning`.
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
        """Whether the connection was closed, by :meth:`close` or by what a call met."""
        return self._closed or self._kept.thing.is_broken

    def snapshot(self) -> ClientSnapshot:
        """Return what the client has done so far. Any thread may ask, also after it was closed."""
        return self._kept.thing.snapshot()

    def call(self, request: RequestT, *, timeout: float | None = None) -> ResponseT:
        """Send a request and wait for its response. Raises what :meth:`trio_ipc.Client.call` raises.

        Args:
            request: a message of the contract's request type.
            timeout: seconds for all of the call, or None for no limit but those of the settings.

        Returns:
            The response. One that reports a failure is returned, not raised.

        An interrupt (Ctrl-C) ends the call; whether its work was done is not known. The client stays good
        where ``max_in_flight`` is more than 1, or nothing was sent yet. Otherwise it is closed, and the next
        call says so.
        """
        self._check_open()
        if self._direct is not None:
            return self._direct.call(request, timeout=timeout)
        return run(self._kept, partial(self._kept.thing.call, request, timeout=timeout))

    def call_many(self, requests: Iterable[RequestT], *, timeout: float | None = None) -> list[ResponseT]:
        """Send several requests ahead, instead of each after the response to the one before.

        Args:
            requests: messages of the contract's request type.
            timeout: seconds for all of it, or None.

        Returns:
            The responses in the requests' order.

        Raises what :meth:`trio_ipc.Client.call_many` raises. An interrupt does what it does to :meth:`call`.
        """
        requests = all_of(requests)  # an iterator of the caller's runs in the caller's thread
        self._check_open()
        if self._direct is not None:
            return self._direct.call_many(requests, timeout=timeout)
        return run(self._kept, partial(self._kept.thing.call_many, requests, timeout=timeout))

    def _open(self) -> Self:
        super()._open()
        parts = self._kept.thing.direct_parts()
        if parts is not None:
            self._direct = Direct(
                parts, run=partial(run, self._kept), run_whole=partial(run_whole, self._kept)
            )
        return self


def open_client(
    contract: Contract[RequestT, ResponseT],
    config: IpcConfig | None = None,
    *,
    peers: PeerPolicy | None = None,
    max_in_flight: int = 64,
    portal: BlockingPortal | None = None,
) -> Client[RequestT, ResponseT]:
    """Connect to the configured endpoint, for the length of a ``with`` block, or until it is closed.

    Args:
        contract: the message types. Its functions may run in the Trio thread, and must not call.
        config: the settings; None for the defaults and the environment (:meth:`IpcConfig.load`).
        peers: which users the server may run as; by default this process's own and root.
        max_in_flight: how many calls may be in flight at a time; the others wait for their turn. Above 1 the
            calls of several threads go out together, and neither a ``timeout`` nor Ctrl-C closes the
            connection. 1 is the fastest for a thread that is alone: over a
            Unix socket its calls are made in that thread itself.
        portal: where it is opened: one of anyio's on Trio (``start_blocking_portal("trio")``), which several
            clients may share, and which has to last longer than they do. None for a thread of its own.

    Returns:
        A client, which is connected.

    Raises:
        TypeError: an argument is of the wrong type.
        ConfigError: ``max_in_flight`` is below 1, or the environment holds a wrong setting, where
            ``config`` is None.
        ConnectError: no connection could be had; its subclasses say why.
        IpcError: the portal has ended, or this is its thread, or a thread that runs Trio.

    An interrupt (Ctrl-C) ends it, and leaves nothing open.
    """
    check_portal(portal)
    config = config_of(config)
    manager = open_on_trio(contract, config, peers=peers, max_in_flight=max_in_flight)
    kept = Kept(config.endpoint_path, lambda _end: manager)
    return Client(kept, portal)._open()  # noqa: SLF001 - the class is public to be used, not to be opened
