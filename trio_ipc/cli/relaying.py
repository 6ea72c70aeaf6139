"""A relay for the length of a command: until a signal, or for some seconds."""

from __future__ import annotations

import math

import trio

from trio_ipc.errors import ConnectError
from trio_ipc.testing import SystemEndpoint, relay
from trio_ipc.testing.recorder import StreamObserver
from trio_ipc.transports import LocalStream
from trio_ipc.transports.host import COMMAND_STOP_SIGNALS

from . import output
from .running import heeded_signals


class _Server(SystemEndpoint):
    """Tells people when the server cannot be reached: the relay closes its client without a word."""

    async def connect(self) -> LocalStream:
        try:
            return await super().connect()
        except ConnectError as exc:
            output.say(output.one_line(f"a client was closed: {exc}"))
            raise


async def relay_until_stopped(
    observer: StreamObserver, connect_to: str, listen_at: str, seconds: float | None, doing: str
) -> None:
    """Pass on what clients and a server say, and have it observed.

    Args:
        observer: is around each connection to the server.
        connect_to: the server's endpoint.
        listen_at: where clients come.
        seconds: how long, None for until a signal.
        doing: what is done with it, for people.

    Raises:
        EndpointError: ``listen_at`` cannot be used.
    """
    with heeded_signals(*COMMAND_STOP_SIGNALS) as stops:
        async with relay(SystemEndpoint(listen_at), _Server(connect_to), wrap=observer.wrap):
            output.say(f"{doing} what comes to {output.one_line(listen_at)}; Ctrl-C ends it")
            with trio.move_on_after(math.inf if seconds is None else seconds):
                async for _ in stops:
                    break
