"""A server that does what a script says: for clients that must bear slow, failing, lying and dying ones.

It speaks bytes, not through :func:`trio_ipc.serve`, since that would refuse to lie. A :data:`Behaviour` is
what it does about one request; those that come with this package are in behaviours.py, and any function of
that form is one. This module must never answer what the script does not say.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Generic

import trio

from trio_ipc.channel import close_at_once
from trio_ipc.config import IpcConfig
from trio_ipc.contract import Contract, RequestT, ResponseT, contract_of
from trio_ipc.errors import EndpointInUseError, ProtocolError, leaves
from trio_ipc.server import Call, Handler
from trio_ipc.server.handling import check_handler
from trio_ipc.transports import LocalStream, PeerState
from trio_ipc.wire import FrameDecoder, FrameEncoder

from .checking import check_bool, check_whole
from .endpoints import IpcEndpoint
from .memory import MemoryEndpoint
from .outcome import Outcome, is_failure
from .pair import config_for
from .reply import Behaviour, Reply, check_behaviour, names_of

_READ_SIZE: Final = 65_536


class SimulatedServer(Generic[RequestT, ResponseT]):
    """A server under a script. Made by :func:`simulate_server`.

    Attributes:
        handler: what answers properly.
        contract: the message types.
        endpoint: where it listens.
        config: its settings; those of a client that talks to it, too.
        default: what it does about a request when its script is at an end; to answer properly, until it is
            changed.
        asked: the requests that the script, or the default, was for.
        connections: how many it has accepted.
        close_next: how many of the next connections it closes at once, as one that is over its limit does.
        places: how many connections it serves at a time, closing one more at once; None for any number.

    What an attribute can't be is refused as it is set, by :exc:`TypeError` or :exc:`ValueError`.
    """

    def __init__(
        self,
        handler: Handler[RequestT, ResponseT],
        contract: Contract[RequestT, ResponseT],
        endpoint: IpcEndpoint,
        config: IpcConfig,
    ) -> None:
        self.handler = handler
        self.contract: Contract[RequestT, ResponseT] = contract_of(contract)
        self.endpoint = endpoint
        self.config = config
        self.default: Behaviour = _answer_properly
        self.asked: list[RequestT] = []
        self.connections: int = 0
        self.close_next: int = 0
        self.places: int | None = None
        self._script: deque[Behaviour] = deque()
        self._streams: dict[LocalStream, trio.CancelScope] = {}
        self._listener: trio.abc.Listener[Any] | None = None
        self._nursery: trio.Nursery | None = None
        self._outcome = Outcome()
        self._was_asked = trio.Event()
        self._leaving = trio.lowlevel.ParkingLot()

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute, if that is what it can be."""
        self._check_attribute(name, value)
        super().__setattr__(name, value)

    def _check_attribute(self, name: str, value: object) -> None:
        if name == "handler":
            check_handler(value)
        elif name == "default":
            check_behaviour(value, name)
        elif name in {"close_next", "places"}:
            check_whole(name, value, 0, optional=name == "places")

    @property
    def open_connections(self) -> int:
        """How many connections it has now."""
        return len(self._streams)

    @property
    def unused(self) -> tuple[Behaviour, ...]:
        """What is left of the script."""
        return tuple(self._script)

    def script(self, *behaviours: Behaviour) -> None:
        """Add what it does about the next requests, one each, whichever connections they come on.

        Raises:
            TypeError: one of them is no behaviour.
        """
        for behaviour in behaviours:
            check_behaviour(behaviour)
        self._script.extend(behaviours)

    async def wait_asked(self, count: int) -> None:
        """Wait until it was given so many requests in all. Can be cancelled freely.

        Raises:
            TypeError, ValueError: that is no number of requests.
        """
        check_whole("count", count, 0)
        await trio.lowlevel.checkpoint()
        while len(self.asked) < count:
            await self._was_asked.wait()

    def drop_connections(self) -> None:
        """End every connection at once, with whatever is in progress on it."""
        for scope in self._streams.values():
            scope.cancel()

    async def crash(self) -> None:
        """Be gone: end every connection, and listen no more until :meth:`restart`. Idempotent."""
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.aclose()
        self.drop_connections()
        await trio.lowlevel.checkpoint()
        while self._streams:
            await self._leaving.park()

    async def restart(self) -> None:
        """Listen again.

        Raises:
            EndpointError: it is listening, or the endpoint cannot be used.
            RuntimeError: its block is over.
        """
        nursery = self._nursery
        if nursery is None:
            raise RuntimeError("the block of this simulated server is over: it cannot listen again")
        if self._listener is not None:
            raise EndpointInUseError("this server is listening", endpoint=self.endpoint.path)
        listener = self._listener = await self.endpoint.listen_streams()
        nursery.start_soon(self._accept_seen, listener, nursery)

    @asynccontextmanager
    async def running(self, *, use_all: bool) -> AsyncIterator[None]:
        """Listen for the length of a block; see :func:`simulate_server`."""
        check_bool("use_all", use_all)
        with self._outcome.told():
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self.restart()
                try:
                    with self._outcome.seen():
                        yield
                        if use_all and self._script:
                            raise AssertionError(f"of the script, {names_of(self._script)} were not used")
                finally:
                    self._nursery = None
                    if self._listener is not None:
                        await close_at_once(self._listener)
                nursery.cancel_scope.cancel()

    async def _accept_seen(self, listener: trio.abc.Listener[Any], nursery: trio.Nursery) -> None:
        with self._outcome.seen():
            await self._accept(listener, nursery)

    async def _accept(self, listener: trio.abc.Listener[Any], nursery: trio.Nursery) -> None:
        while True:
            try:
                stream = await listener.accept()
            except trio.ClosedResourceError:
                return
            self.connections += 1
            scope = self._streams[stream] = trio.CancelScope()
            nursery.start_soon(self._serve, stream, scope, self.connections)

    async def _serve(self, stream: LocalStream, scope: trio.CancelScope, number: int) -> None:
        try:
            with scope:
                if self.close_next > 0:
                    self.close_next -= 1
                    return
                if self.places is not None and self.open_connections > self.places:
                    return
                await self._answer_all(stream, Call(peer=stream.peer, deadline=math.inf, connection=number))
        finally:
            await close_at_once(stream)
            del self._streams[stream]
            self._leaving.unpark_all()

    async def _answer_all(self, stream: LocalStream, call: Call) -> None:
        requests = _Requests(stream, self.contract, self.config)
        while (request := await requests.next()) is not None:
            reply = Reply(self, stream, call, request, requests.encoder)
            try:
                await self._behaviour_for(request)(request, reply)
            except BaseException as exc:
                rest = reply._without_leaving(exc)
                if rest is None:
                    return
                if any(map(is_failure, leaves(rest))):
                    self._outcome.failed(exc)
                    raise
                raise rest from None  # it was cancelled at the same time
            if reply.closed or stream.peer_state() is PeerState.GONE:
                return  # what a client that has left had sent ahead is nothing of the script

    def _behaviour_for(self, request: RequestT) -> Behaviour:
        self.asked.append(request)
        self._was_asked.set()
        self._was_asked = trio.Event()
        return self._script.popleft() if self._script else self.default


class _Requests(Generic[RequestT, ResponseT]):
    """The requests of one connection."""

    def __init__(
        self, stream: LocalStream, contract: Contract[RequestT, ResponseT], config: IpcConfig
    ) -> None:
        self._stream = stream
        self._contract = contract
        #: Of the responses, in the variant of the requests.
        self.encoder = FrameEncoder(config.max_frame_bytes, config.crc32_variant)
        self._decoder = FrameDecoder(config.max_frame_bytes, config.crc32_variant, self.encoder.use)

    async def next(self) -> RequestT | None:
        """Return the next request, None if the client leaves or breaks the protocol."""
        try:
            while (payload := self._decoder.next_payload()) is None:
                data = await self._stream.receive_some(_READ_SIZE)
                if not data:
                    return None
                self._decoder.feed(data)
            return self._contract.decode_request(payload)
        except (ProtocolError, trio.BrokenResourceError):
            return None


async def _answer_properly(_request: Any, reply: Reply[Any, Any]) -> None:
    await reply.send(await reply.proper())


@asynccontextmanager
async def simulate_server(
    handler: Handler[RequestT, ResponseT],
    contract: Contract[RequestT, ResponseT],
    *script: Behaviour,
    endpoint: IpcEndpoint | None = None,
    config: IpcConfig | None = None,
    use_all: bool = False,
    **settings: Any,
) -> AsyncIterator[SimulatedServer[RequestT, ResponseT]]:
    """Run a simulated server for the length of an ``async with`` block.

    Args:
        handler: what answers properly: requests after the script, and where a behaviour needs a proper answer
            to spoil. As for :func:`trio_ipc.serve`.
        contract: the message types, and what a failure becomes.
        script: what it does about the first requests, one each.
        endpoint: where it listens; one in memory if None.
        config: its settings but for path and transport. It uses checksum and limit, and no deadlines.
        use_all: whether the block fails, by an :exc:`AssertionError`, if the script was not used up.
        settings: fields of ``config`` to change.

    Returns:
        A context manager that gives the :class:`SimulatedServer`, which listens.

    Raises:
        ConfigError: a setting is wrong.
        EndpointError: the endpoint cannot be used.
        TypeError: the handler is not async, a part of the script is no behaviour, or an argument can't be.

    What a behaviour or the handler raises ends the block and comes out of it, unless it says only that the
    client has left. If the block fails as well, what failed first comes out, with a note of the other.
    """
    place = MemoryEndpoint() if endpoint is None else endpoint
    server = SimulatedServer(handler, contract, place, config_for(place, config, settings))
    server.script(*script)
    async with server.running(use_all=use_all):
        yield server
