"""Stands between a client and a server and passes bytes on, so that faults or a recorder can be put between.

That is how programs are tested which open their own connections: processes, and the legacy transport. This
module must never change a byte itself, and never look at one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from trio_ipc.channel import close_at_once
from trio_ipc.errors import ConnectError
from trio_ipc.transports import LocalStream, PeerState

from .checking import check_callable
from .endpoints import IpcEndpoint, StreamWrapper, endpoint_of, wrapped
from .outcome import Outcome
from .waiting import reset

_READ_SIZE: Final = 65_536


@asynccontextmanager
async def relay(
    listen_at: IpcEndpoint, connect_to: IpcEndpoint, *, wrap: StreamWrapper | None = None
) -> AsyncIterator[None]:
    """Connect every client of one endpoint to the server of another, for an ``async with`` block.

    The server sees this process as its client, and the client sees it as the server. Where one side closes,
    or can't be reached, the other is closed; a half-close is passed on where both can do that, and a reset in
    memory. A socket of the system can't be reset at will: there a close is all that is passed on.

    Args:
        listen_at: where clients come.
        connect_to: where the server is.
        wrap: put around the connection to the server: what a client sends is sent on it. Such as
            :meth:`trio_ipc.testing.Faults.wrap` and :meth:`trio_ipc.testing.Recorder.wrap`.

    Raises:
        EndpointError: ``listen_at`` cannot be used.
        TypeError: one of the two is no endpoint, or ``wrap`` no function.

    An exception of the block comes out as it is, not in a group. Of several failures the first comes out,
    with notes of the others.
    """
    check_callable("wrap", wrap, optional=True)
    endpoint_of(connect_to)
    listener = await endpoint_of(listen_at).listen_streams()

    async def pass_on(client: LocalStream) -> None:
        try:
            server = await connect_to.connect()
        except ConnectError:
            await client.aclose()
            return
        try:
            outward = wrapped(server, wrap)
        except BaseException:
            await close_at_once(client)
            raise
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pump, client, outward, nursery.cancel_scope)
                nursery.start_soon(_pump, outward, client, nursery.cancel_scope)
        finally:
            await close_at_once(client)
            await close_at_once(outward)

    outcome = Outcome()
    with outcome.told():
        async with trio.open_nursery() as nursery:
            await nursery.start(_serve, pass_on, listener, outcome)
            with outcome.seen():
                yield
            nursery.cancel_scope.cancel()


async def _serve(
    pass_on: Any,
    listener: trio.abc.Listener[Any],
    outcome: Outcome,
    *,
    task_status: trio.TaskStatus[Any],
) -> None:
    with outcome.seen(), Outcome().told():  # out of the nursery in there, as out of the one around it
        await trio.serve_listeners(pass_on, [listener], task_status=task_status)


async def _pump(source: LocalStream, target: LocalStream, both: trio.CancelScope) -> None:
    """Pass on one direction to its end, and end both where nothing more can follow."""
    try:
        while data := await source.receive_some(_READ_SIZE):
            try:
                await target.send_all(data)
            except trio.BrokenResourceError:
                return  # who reads from there sees whether it was closed or reset
        if isinstance(target, trio.abc.HalfCloseableStream) and source.peer_state() is not PeerState.GONE:
            await target.send_eof()
            return
    except trio.BrokenResourceError:
        reset(target)
    except trio.ClosedResourceError:
        pass
    both.cancel()
