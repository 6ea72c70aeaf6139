"""A client that finds out which checksum variant its server speaks.

Servers of other makes close without a word when they meet the other variant, so that only a request can tell.
It has to be one that does no harm: one that may be repeated, or the contract's negotiation. This module must
never make another request twice, and never try a variant more than once.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar

import trio

from trio_ipc.channel import Channel, close_at_once, closed_here
from trio_ipc.config import Crc32Variant, IpcConfig
from trio_ipc.contract import Contract, RequestT, ResponseT
from trio_ipc.errors import IpcError, PeerClosedError

from .batch import Batch
from .client import Client, seconds_of
from .connecting import open_line
from .failures import add_limit, call_timed_out, kind_of
from .inflight import InFlight
from .nursery import nursery_of_our_own
from .slices import Slice
from .variants import both_failed, means_other_variant, says_other_variant, untried

_T = TypeVar("_T")

#: Where it begins: the ADR's default.
_FIRST: Final = Crc32Variant.IEEE


class AutoClient(Client[RequestT, ResponseT]):
    """A :class:`Client` whose first call finds out the variant; see there.

    Args:
        channel: the connection, of the first variant.
        contract, config, max_in_flight: as for :class:`Client`.
        nursery: for tasks of its own.
        connect: makes another connection, by its settings.
    """

    def __init__(
        self,
        channel: Channel,
        contract: Contract[RequestT, ResponseT],
        config: IpcConfig,
        *,
        max_in_flight: int,
        nursery: trio.Nursery,
        connect: Callable[[IpcConfig], Awaitable[Channel]],
    ) -> None:
        super().__init__(channel, contract, config, max_in_flight=max_in_flight, nursery=nursery)
        self._max_in_flight = max_in_flight
        self._nursery = nursery
        self._connect = connect
        self._variant = _FIRST
        self._is_settled = False
        self._is_closed = False
        self._finding = trio.Lock()

    @trio.lowlevel.enable_ki_protection  # as Client.call
    async def call(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in the class that this derives from
    ) -> ResponseT:
        """Send a request and wait for its response; see :meth:`Client.call`.

        Until the variant is known calls take turns, and one of them may be made on a second connection.
        """
        if self._is_settled:
            return await super().call(request, timeout=timeout)
        self._contract.check_request(request)
        began = self._telemetry.now()
        deadline = math.inf if timeout is None else began + seconds_of(timeout)
        calls = InFlight(self._telemetry, 1, began)
        calls.begin()  # once, also where it is made on a second connection
        try:
            make, may_repeat = partial(self._call_once, request), partial(self._may_repeat, (request,))
            response = await self._find(make, deadline, may_repeat, says_other_variant)
        except BaseException as exc:
            calls.failed(kind_of(exc))
            add_limit(exc, timeout)
            raise
        calls.answered(1)
        return response

    async def _call_once(self, request: RequestT, deadline: float) -> ResponseT:
        turns = self._turns
        return await self._line.call(request, turns=turns, deadline=deadline, done=turns.give_back)

    async def _make_many(
        self, batch: Batch[RequestT, ResponseT], deadline: float, answered: Callable[[int], None]
    ) -> None:
        """Send a batch ahead; see :meth:`call`."""
        if self._is_settled:
            await super()._make_many(batch, deadline, answered)
            return

        async def make(deadline: float) -> None:
            await super(AutoClient, self)._make_many(batch, deadline, lambda _: None)

        def is_refused(_: None) -> bool:
            if not says_other_variant(batch.responses[0]):
                return False
            batch.responses.clear()  # it is no response
            return True

        try:
            await self._find(make, deadline, partial(self._may_repeat, batch.requests), is_refused)
        finally:
            answered(len(batch.responses))

    async def _may_repeat(self, requests: Iterable[RequestT]) -> bool:
        may_repeat, work = self._contract.may_repeat, Slice()
        for request in requests:
            if not may_repeat(request):
                return False
            if work.is_over(0):
                await work.rest()
        return True

    async def aclose(self) -> None:
        """Close the connection at once. Calls in flight end by :exc:`ChannelClosedError`."""
        self._is_closed = True
        await super().aclose()

    async def _end(self) -> None:
        self._is_closed = True
        await super()._end()

    # --- Finding out ---

    async def _find(
        self,
        make: Callable[[float], Awaitable[_T]],
        deadline: float,
        may_repeat: Callable[[], Awaitable[bool]],
        is_refused: Callable[[_T], bool],
    ) -> _T:
        """Make a call, alone, and find out the variant by it; or by the negotiation before it."""
        doing = "before anything was sent"
        if self._finding.locked():
            doing = "while another one finds out the server's crc32_variant"
        with trio.CancelScope(deadline=deadline) as scope:
            await self._finding.acquire()
        if scope.cancelled_caught:
            raise call_timed_out(doing, self.endpoint)
        try:
            if not self._is_settled:
                if await may_repeat():
                    return await self._try_both(make, deadline, is_refused)
                if self._contract.negotiation is None:
                    return await self._try_once(make, deadline)
                await self._try_both(self._negotiate, deadline, says_other_variant)
        finally:
            self._finding.release()
        return await make(deadline)

    async def _negotiate(self, deadline: float) -> ResponseT:
        return await self._line.call(self._contract.capabilities_request(), deadline=deadline)

    async def _try_both(
        self, make: Callable[[float], Awaitable[_T]], deadline: float, is_refused: Callable[[_T], bool]
    ) -> _T:
        try:
            response = await make(deadline)
        except IpcError as exc:
            if not means_other_variant(exc, answered=self._line.has_answered):
                self._is_settled = self._line.has_answered
                raise
        else:
            self._is_settled = not is_refused(response)
            if self._is_settled:
                return response
        await self._connect_again(deadline)
        try:
            response = await make(deadline)
        except PeerClosedError as exc:
            exc.hint = both_failed(exc.hint)
            raise
        self._is_settled = True
        return response

    async def _try_once(self, make: Callable[[float], Awaitable[_T]], deadline: float) -> _T:
        try:
            response = await make(deadline)
        except IpcError as exc:
            if means_other_variant(exc, answered=self._line.has_answered):
                exc.hint = untried(self._variant)
            raise
        self._is_settled = True
        return response

    async def _connect_again(self, deadline: float) -> None:
        await close_at_once(self._channel)
        self._variant = self._variant.other
        with trio.CancelScope(deadline=deadline) as scope:
            channel = await self._connect(self._config.replace(crc32_variant=self._variant))
        if scope.cancelled_caught:
            raise call_timed_out(f"connecting again, in the {self._variant} variant", self.endpoint)
        if self._is_closed:
            await close_at_once(channel)
            raise closed_here(self.endpoint)
        channel.traffic = self._telemetry
        self._channel, self.peer = channel, channel.peer
        self._line = open_line(channel, self._contract, self._max_in_flight, self._nursery)
        if self._max_in_flight > 1:
            self._nursery.start_soon(self._line.run)


@asynccontextmanager
async def auto_client_over(
    connect: Callable[[IpcConfig], Awaitable[Channel]],
    contract: Contract[RequestT, ResponseT],
    config: IpcConfig,
    *,
    max_in_flight: int,
) -> AsyncIterator[Client[RequestT, ResponseT]]:
    """Give a client that finds out the variant; takes and raises what ``client_over`` does."""
    channel = await connect(config.replace(crc32_variant=_FIRST))
    async with nursery_of_our_own() as nursery:
        try:
            client = AutoClient(
                channel, contract, config, max_in_flight=max_in_flight, nursery=nursery, connect=connect
            )
        except BaseException:
            await close_at_once(channel)
            raise
        try:
            if max_in_flight > 1:
                nursery.start_soon(client.run)
            yield client
        finally:
            await client._end()  # noqa: SLF001 - as Client's
