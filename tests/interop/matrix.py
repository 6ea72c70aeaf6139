"""Every server with every client, and each by itself with bare bytes."""

from __future__ import annotations

import itertools
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import attrs
import trio

from .alone import OF_CLIENTS, OF_SERVERS, Alone
from .peers import Peer
from .programs import PATIENCE
from .scenarios import SCENARIOS, paired

_NOT_TRIED: Final = "not tried, since another one failed before"


@attrs.frozen
class Outcome:
    """What came of a scenario with a pair, or with a server or a client alone (the other one is empty).

    Attributes:
        kept: whether all was as it has to be; None for a scenario that does not apply.
        why: the traceback of a failure.
    """

    scenario: str
    server: str
    client: str
    kept: bool | None
    why: str = ""

    def __str__(self) -> str:
        return f"{self.scenario}: server {self.server or 'none'}, client {self.client or 'none'}\n{self.why}"


async def run_pair(server: Peer, client: Peer) -> list[Outcome]:
    """Try all scenarios with a pair. Those with the same settings share a server."""
    outcomes = []
    why = ""
    with tempfile.TemporaryDirectory(prefix="ipc-") as directory:
        async with paired(server, client, directory) as pair:
            in_order = sorted(SCENARIOS, key=lambda one: (one.own, str(one.settings)))
            for _, group in itertools.groupby(in_order, key=lambda one: one.own or str(one.settings)):
                async with AsyncExitStack() as stack:
                    program = None
                    for one in group:
                        if not one.applies(server, client):
                            outcomes.append(Outcome(one.name, server.name, client.name, None))
                            continue
                        if why:
                            why = _NOT_TRIED  # what the programs do after a failure says nothing
                        else:
                            if program is None or one.own:
                                program = await stack.enter_async_context(pair.serving(one.settings))
                            why = await _tried(one.function, pair, program)
                        outcomes.append(Outcome(one.name, server.name, client.name, not why, why))
    return outcomes


async def run_server(peer: Peer) -> list[Outcome]:
    """Try what is tried with a server alone."""
    outcomes = []
    for one in OF_SERVERS:
        kept, why = await _alone(peer, one.function, applies=one.applies(peer))
        outcomes.append(Outcome(one.name, peer.name, "", kept, why))
    return outcomes


async def run_client(peer: Peer) -> list[Outcome]:
    """Try what is tried with a client alone."""
    outcomes = []
    for one in OF_CLIENTS:
        kept, why = await _alone(peer, one.function, applies=one.applies(peer))
        outcomes.append(Outcome(one.name, "", peer.name, kept, why))
    return outcomes


async def _alone(
    peer: Peer, function: Callable[[Alone], Awaitable[None]], *, applies: bool
) -> tuple[bool | None, str]:
    if not applies:
        return None, ""
    with tempfile.TemporaryDirectory(prefix="ipc-") as directory:
        why = await _tried(function, Alone(peer, f"{directory}/{peer.name}.sock"))
    return not why, why


async def _tried(function: Callable[..., Awaitable[None]], *arguments: Any) -> str:
    """Return an empty string, or the traceback of a failure."""
    try:
        with trio.fail_after(PATIENCE):
            await function(*arguments)
    except Exception:  # noqa: BLE001 - whatever it is, it is told
        return traceback.format_exc()
    return ""
