"""A server for asyncio programs: Trio's, with handlers in the program's event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType

import trio
from anyio.from_thread import BlockingPortal

from trio_ipc.config import IpcConfig, TransportType, config_of
from trio_ipc.contract import Contract, RequestT, ResponseT, contract_of
from trio_ipc.portal import Kept, check_portal
from trio_ipc.server import Handler
from trio_ipc.server import Server as TrioServer
from trio_ipc.server.handling import check_handler
from trio_ipc.server.serve import serve as serve_on_trio
from trio_ipc.server.threads import InThreads
from trio_ipc.telemetry import ServerSnapshot
from trio_ipc.transports import PeerPolicy

from .adapter import AioAdapter, Opening, running_loop, running_side, until
from .handlers import LoopHandler


class Server(AioAdapter[TrioServer[RequestT, ResponseT]]):
    """A running server, for the tasks of one event loop. Made by :func:`serve`.

    Close it, by an ``async with`` block or by :meth:`aclose`: one that is forgotten warns by a
    :exc:`ResourceWarning`.
    """

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return self._kept.thing.endpoint

    def snapshot(self) -> ServerSnapshot:
        """Return what the server has done so far. Any thread may ask, also after it was closed."""
        return self._kept.thing.snapshot()

    def stop(self) -> None:
        """Ask for a graceful stop. Any thread may ask; does not wait. Idempotent.

        The endpoint is removed at once and idle connections are closed. Requests that have begun to arrive
        are answered within ``shutdown_grace_ms``; what is left then is cancelled.
        """
        if self._is_of_this_process:
            self._kept.thing.stop()

    async def wait_stopped(self) -> None:
        """Wait until every connection is closed and the endpoint removed. Can be cancelled freely.

        Raises:
            EndpointError: that was because the endpoint stopped working.
            ChannelClosedError: this is a fork of the process that has the server.
            IpcError: no event loop of asyncio runs here.

        It raises as well what ends a program (``SystemExit``), where a handler has raised that.
        """
        self._check_process()
        running_loop()
        self._fail_by(await until(self._kept.left))

    async def switch_transport(self, transport: TransportType | str) -> None:
        """Accept new connections by another transport from now on, at the same endpoint.

        Raises what :meth:`trio_ipc.Server.switch_transport` raises. After a cancellation it has happened or
        not; ``snapshot().transport`` tells.
        """
        await self._run(partial(self._kept.thing.switch_transport, transport))

    async def aclose(self) -> None:
        """Stop gracefully, and wait until that is done. Idempotent. Raises what :meth:`wait_stopped` raises.

        Cancellation cuts off requests in flight.
        """
        await super().aclose()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop: gracefully, or at once where the block has raised something."""
        if exc is not None and not self._closed and self._is_of_this_process:
            self._kept.abandon()
        await self.aclose()


def serve(
    handler: Handler[RequestT, ResponseT],
    contract: Contract[RequestT, ResponseT],
    config: IpcConfig | None = None,
    *,
    peers: PeerPolicy | None = None,
    portal: BlockingPortal | None = None,
) -> Opening[Server[RequestT, ResponseT]]:
    """Listen and answer, in an ``async with`` block, by handlers in this event loop.

    ``async with serve(handler, contract, config) as server: ...`` does it for the length of a block;
    ``server = await serve(handler, contract, config)`` for who closes it later, by ``aclose()``.

    Args:
        handler: an asyncio function, ``async def handler(request, call) -> response``, which runs in the
            event loop that the server was opened in; once at a time for each connection, and in a context of
            its own. It is cancelled at ``call.deadline``, which is on the loop's clock (``loop.time()``), and
            when its client leaves. An exception from it becomes one failed response.
        contract: the message types. Its functions run in the Trio thread.
        config: the settings; None for the defaults and the environment (:meth:`IpcConfig.load`).
        peers: which users may connect, as for :func:`trio_ipc.serve`.
        portal: where it runs: one of anyio's on Trio (``start_blocking_portal("trio")``), which has to last
            longer than the server does. None for a thread of its own.

    Returns:
        What opens the server; clients can connect then. At the end of the block it is stopped gracefully;
        where the block has raised something, requests in flight are cut off.

    Raises:
        TypeError: an argument is of the wrong type, the handler is not async, or it is made by
            :func:`~trio_ipc.in_threads`.
        ConfigError: the environment holds a wrong setting, where ``config`` is None.

    When it is opened it raises what :func:`trio_ipc.serve` raises, or :exc:`~trio_ipc.IpcError` where the
    portal has ended or no event loop of asyncio runs. Cancellation leaves nothing open.
    """
    check_handler(handler)
    if isinstance(handler, InThreads):
        raise TypeError("handler is made by in_threads(), which is for Trio: use asyncio.to_thread()")
    check_portal(portal)
    contract, config = contract_of(contract), config_of(config)
    peers = PeerPolicy.of(peers, group=config.socket_group)

    async def open_it() -> Server[RequestT, ResponseT]:
        side = running_side()
        kept = Kept(
            config.endpoint_path,
            partial(_serving, LoopHandler(handler, side), contract, config, peers),
        )
        return await Server(kept, portal, side)._open()  # noqa: SLF001 - not for users

    return Opening(open_it)


@asynccontextmanager
async def _serving(
    handler: Handler[RequestT, ResponseT],
    contract: Contract[RequestT, ResponseT],
    config: IpcConfig,
    peers: PeerPolicy,
    end: Callable[[], None],
) -> AsyncIterator[TrioServer[RequestT, ResponseT]]:
    """Serve for the length of a block, and stop gracefully after it.

    ``end`` is called when the server has ended, so that the block may end, too. What the server fails
    by comes out in a group.
    """

    async def run(task_status: trio.TaskStatus[TrioServer[RequestT, ResponseT]]) -> None:
        try:
            await serve_on_trio(handler, contract, config, peers=peers, task_status=task_status)
        finally:
            end()

    async with trio.open_nursery() as nursery:
        server: TrioServer[RequestT, ResponseT] = await nursery.start(run)
        yield server
        server.stop()
