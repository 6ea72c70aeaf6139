"""The client: what callers see of one connection, with its counters, turns and checks.

It reconnects nothing and repeats nothing: a call that may have reached the server is never made twice
behind the caller's back. This module must never know how calls get over the connection: line.py does.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Generic

import trio

from trio_ipc.channel import Channel, close_at_once
from trio_ipc.config import AUTO, IpcConfig, checked_config, config_of
from trio_ipc.contract import Contract, RequestT, ResponseT, contract_of
from trio_ipc.errors import IpcError, shown, shown_argument
from trio_ipc.opening import check_on_trio
from trio_ipc.telemetry import ClientSnapshot, ClientTelemetry
from trio_ipc.transports import PeerCredentials, PeerPolicy

from .batch import Batch
from .connecting import check_max_in_flight, open_line, open_trusted_channel
from .failures import add_limit, kind_of
from .inflight import InFlight
from .nursery import nursery_of_our_own
from .single import Single
from .turns import Turns

if TYPE_CHECKING:
    from .direct import Parts


class Client(Generic[RequestT, ResponseT]):
    """A connection to a server. Made by :func:`open_client`.

    Args:
        channel: the connection, which the client owns.
        contract: the message types.
        config: deadlines.
        max_in_flight: how many calls may be in flight at a time. Above 1 somebody must run :meth:`run`.
        nursery: for tasks of its own, which end with the nursery; None for none.

    Attributes:
        endpoint: where it leads.
        peer: the server's process and user, as the system reported them.

    Raises:
        TypeError: an argument is of the wrong type.
        ConfigError: ``max_in_flight`` is below 1.
    """

    def __init__(
        self,
        channel: Channel,
        contract: Contract[RequestT, ResponseT],
        config: IpcConfig,
        *,
        max_in_flight: int = 1,
        nursery: trio.Nursery | None = None,
    ) -> None:
        if not isinstance(channel, Channel):
            given = shown_argument(channel)
            raise TypeError(f"channel is {given}, must be a Channel: open_client() makes one and its client")
        contract_of(contract)
        checked_config(config)
        self._line = open_line(channel, contract, max_in_flight, nursery)
        self.endpoint: str = channel.endpoint
        self.peer: PeerCredentials | None = channel.peer
        self._contract = contract
        self._channel = channel
        self._config = config
        self._telemetry = ClientTelemetry(
            transport=channel.transport, endpoint=self.endpoint, contract=contract.name
        )
        channel.traffic = self._telemetry
        self._turns = Turns(
            max_in_flight,
            endpoint=self.endpoint,
            read_timeout_ms=config.read_timeout_ms,
            nursery=nursery,
        )

    @trio.lowlevel.enable_ki_protection  # its first step is a task's: an interrupt there would end no call
    async def run(self) -> None:
        """Carry calls until the connection ends; returns at once where callers do it themselves.

        Raises nothing. Cancellation closes the connection, and ends every call.
        """
        await self._line.run()

    def snapshot(self) -> ClientSnapshot:
        """Return what the client has done so far. Any thread may ask, during the run and after it.

        In Trio's thread the numbers belong to one moment; another one may see a step half done.
        """
        return self._telemetry.snapshot()

    @trio.lowlevel.enable_ki_protection  # each step is whole; the contract's own functions are not protected
    async def call(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it is one deadline around all that happens inside
    ) -> ResponseT:
        """Send a request and wait for its response.

        With ``max_in_flight=1`` calls from several tasks take turns, first come, first served. With more, so
        many are in flight at the same time. Requests that are made together share one write. The server
        handles them in order, so that a slow handler delays later responses, and ``read_timeout_ms`` applies
        from one response to the next.

        Args:
            request: a message of the contract's request type.
            timeout: seconds for all of the call, from the wait for its turn to the end of its response, or
                None for no limit but those of the settings. A response that has come by then is returned.

        Returns:
            The response. One that reports a failure is returned, not raised.

        Raises:
            MessageError: the request is empty or too large. Nothing was sent, and the client is good.
            TurnTimeoutError: the calls ahead took longer than ``read_timeout_ms``. Nothing was sent,
                and the client is good.
            CallTimeoutError: the ``timeout`` passed.
            PeerClosedError: the server closed the connection. Whether it did the work is not known, unless it
                says so.
            UnsolicitedResponseError: the server had sent an unsolicited response. Nothing was sent.
            WriteTimeoutError, ReadTimeoutError: a deadline passed.
            ProtocolError: the response breaks the protocol, cannot be decoded or answers another
                request.
            ChannelClosedError: the client was closed, or broken by another call; that one's error is
                the cause.
            TypeError, ValueError: the request is of another type, or the timeout is no valid one.

        After an error other than the first three the connection is closed, and every call on it has ended.
        With ``max_in_flight=1`` the ``timeout`` and a cancellation close it, too, once sending has begun: the
        response might still come, and would then be taken for another's. With more, what was sent keeps its
        place, of ``max_in_flight`` as well, until its response has come and was dropped.
        """
        self._contract.check_request(request)
        telemetry = self._telemetry
        began = telemetry.now()
        deadline = math.inf if timeout is None else began + seconds_of(timeout)
        telemetry.calls += 1
        telemetry.calls_in_flight += 1
        try:
            turns = self._turns
            response = await self._line.call(request, turns=turns, deadline=deadline, done=turns.give_back)
        except BaseException as exc:
            telemetry.calls_failed[kind_of(exc)] += 1
            telemetry.calls_in_flight -= 1
            add_limit(exc, timeout)
            raise
        telemetry.call_seconds.observe(telemetry.now() - began)
        telemetry.calls_in_flight -= 1
        return response

    async def call_many(
        self,
        requests: Iterable[RequestT],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it is one deadline around all that happens inside
    ) -> list[ResponseT]:
        """Send several requests without waiting for each response.

        Many requests share one write, and so do their responses, so that a call costs a fraction of
        :meth:`call`'s time. The server still handles them one after the other. ``read_timeout_ms`` holds
        for each response. With ``max_in_flight=1`` other tasks' calls wait for their turn until the last one;
        with more, each request takes a turn among them.

        Args:
            requests: messages of the contract's request type. Others have their turns while an iterator
                makes them; anything else is copied first.
            timeout: seconds for all of it, or None; see :meth:`call`.

        Returns:
            The responses in the requests' order. One that reports a failure is returned, not raised.

        Raises:
            MessageError: a request is empty or too large. None was sent, and the client is good.
            IpcError: as :meth:`call` raises it. Its ``responses`` hold what was answered before; whether
                the work of the requests after those was done is not known.
            TypeError, ValueError: a request is of another type, or the timeout is no valid one.

        Cancellation once sending has begun closes the connection where ``max_in_flight`` is 1, and the
        responses so far are lost.
        """
        return await self._call_many(requests, timeout=timeout, began=self._telemetry.now())

    async def _call_many(
        self,
        requests: Iterable[RequestT],
        *,
        timeout: float | None,  # noqa: ASYNC109 - as above
        began: float,
    ) -> list[ResponseT]:
        deadline = math.inf if timeout is None else began + seconds_of(timeout)
        batch = await self._batch_of(requests)
        if not batch.requests:
            await trio.lowlevel.checkpoint()
            return []
        calls = InFlight(self._telemetry, len(batch.requests), began)
        try:
            return await self._carry(batch, calls, deadline)
        except BaseException as exc:
            add_limit(exc, timeout)
            raise

    async def _batch_of(self, requests: Iterable[RequestT]) -> Batch[RequestT, ResponseT]:
        batch = Batch[RequestT, ResponseT]()
        await batch.add(requests, self._contract, self._channel)
        return batch

    @trio.lowlevel.enable_ki_protection
    async def _carry(
        self, batch: Batch[RequestT, ResponseT], calls: InFlight, deadline: float
    ) -> list[ResponseT]:
        calls.begin()
        try:
            await self._make_many(batch, deadline, calls.answered)
        except BaseException as exc:
            calls.failed(kind_of(exc))
            if isinstance(exc, IpcError):
                exc.responses = tuple(batch.responses)
            raise
        return batch.responses

    async def _make_many(
        self, batch: Batch[RequestT, ResponseT], deadline: float, answered: Callable[[int], None]
    ) -> None:
        await self._line.call_many(batch, turns=self._turns, deadline=deadline, answered=answered)

    def direct_parts(self) -> Parts[RequestT, ResponseT] | None:
        """Return what calls are made of that begin outside of Trio; None where there can be none.

        For :mod:`trio_ipc.blocking` and :mod:`trio_ipc.aio`. Nothing else may call then.
        """
        # Not one that has to find out the checksum variant, nor one whose connection waits in Trio alone.
        if type(self) is not Client or not isinstance(self._line, Single):
            return None
        if not getattr(self._channel, "can_block", False):
            return None
        from .direct import Parts  # noqa: PLC0415 - nobody on Trio needs it

        return Parts(
            line=self._line,
            channel=self._channel,
            contract=self._contract,
            telemetry=self._telemetry,
            call_many=self._call_many,
            batch_of=self._batch_of,
            carry=self._carry,
        )

    def is_reusable(self) -> bool:
        """Return whether the client, idle so far, is good for another call, as far as can be seen.

        False after it was closed or broken, if the server has closed, or if it sent an unsolicited response.
        Does not block. True is no promise: the server may close right after.
        """
        return self._line.is_reusable()

    @property
    def is_broken(self) -> bool:
        """Whether the connection was closed: by :meth:`aclose`, by what a call met, or as the block ended."""
        return self._line.is_broken

    async def aclose(self) -> None:
        """Close the connection at once. Calls in flight end by :exc:`ChannelClosedError`."""
        await self._line.aclose()

    async def _end(self) -> None:
        await self._line.end()


@asynccontextmanager
async def client_over(
    connect: Callable[[IpcConfig], Awaitable[Channel]],
    contract: Contract[RequestT, ResponseT],
    config: IpcConfig,
    *,
    max_in_flight: int = 1,
) -> AsyncIterator[Client[RequestT, ResponseT]]:
    """Give a client over a new connection, which is closed in the end; see :class:`Client`.

    Args:
        connect: makes the connection by its settings.
        contract: the message types.
        config: the settings.
        max_in_flight: how many calls may be in flight at a time.

    Exceptions of the block are raised as they are, not in a group.
    """
    check_on_trio()
    if config.crc32_variant == AUTO:
        from .auto import auto_client_over  # noqa: PLC0415 - only for those who want it

        async with auto_client_over(connect, contract, config, max_in_flight=max_in_flight) as auto:
            yield auto
        return
    channel = await connect(config)
    async with nursery_of_our_own() as nursery:
        try:
            client = Client(channel, contract, config, max_in_flight=max_in_flight, nursery=nursery)
        except BaseException:
            await close_at_once(channel)
            raise
        try:
            if max_in_flight > 1:
                nursery.start_soon(client.run)
            yield client
        finally:
            # First: who still calls must not start a task any longer.
            await client._end()  # noqa: SLF001 - the class is public to be used


def open_client(
    contract: Contract[RequestT, ResponseT],
    config: IpcConfig | None = None,
    *,
    peers: PeerPolicy | None = None,
    max_in_flight: int = 1,
) -> AbstractAsyncContextManager[Client[RequestT, ResponseT]]:
    """Connect to the configured endpoint, for the length of an ``async with`` block.

    Args:
        contract: the message types.
        config: the settings; None for the defaults and the environment (:meth:`IpcConfig.load`).
        peers: which users the server may run as; by default this process's own and root.
        max_in_flight: how many calls may be in flight at a time; the others wait for their turn. 1 is the
            fastest for a single caller. With more, concurrent calls share the connection.

    Returns:
        A context manager that gives a :class:`Client`. When the block ends the connection is closed, and
        calls that other tasks have in flight end by :exc:`ChannelClosedError`. There is a nursery in it:
        leave the block in the task that entered it, and before all blocks around it.

    Raises:
        TypeError: an argument is of the wrong type.
        ConfigError: ``max_in_flight`` is below 1, or the environment holds a wrong setting, where
            ``config`` is None.
        ServerNotFoundError, ServerRefusedError, EndpointPermissionError, OutOfResourcesError,
        ConnectTimeoutError, PeerNotAllowedError: no connection could be had, when the block is entered; all
            are :exc:`ConnectError`.

    Cancellation closes the connection. Exceptions of the block are raised as they are, not in a group.
    """
    contract_of(contract)
    config = config_of(config)
    check_max_in_flight(max_in_flight)
    connect = partial(open_trusted_channel, peers=PeerPolicy.of(peers))
    return client_over(connect, contract, config, max_in_flight=max_in_flight)


def seconds_of(timeout: object, none_is: str = "no limit") -> float:
    """Return a call's timeout, if it is one; ``none_is`` says what None would be.

    Raises:
        TypeError: it is no number.
        ValueError: it is less than 0, or too large to be one.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout is {shown(timeout)}, must be a number of seconds or None")
    if not timeout >= 0:  # which is true of nan, too
        raise ValueError(f"timeout is {shown(timeout)}, must be 0 or more seconds, or None for {none_is}")
    try:
        return float(timeout)
    except OverflowError:  # an int beyond all floats
        raise ValueError(f"timeout is {shown(timeout)}, must be seconds, or None for {none_is}") from None
