"""The client: one connection, one call at a time, poisoned by anything that breaks a frame.

It reconnects nothing and repeats nothing: a call that may have reached the server is never made twice
behind the caller's back. This module must never return a response to another request's caller.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, overload

from google.protobuf.message import Message

from .batch import Batch
from .calling import Turns, kind_of, open_trusted_channel, told, why_closed
from .channel import Channel, close_at_once
from .config import IpcConfig
from .contract import Contract, RequestT, ResponseT, encode
from .errors import ChannelClosedError, IpcError, MessageError, PeerClosedError
from .telemetry import ClientSnapshot, ClientTelemetry
from .transports import PeerCredentials, PeerPolicy

if TYPE_CHECKING:
    from .daemoneye import DetectionResult, DetectionTask

#: Characters of a peer's own words that go into an error.
_LONGEST_QUOTE: Final = 1_000


class Client(Generic[RequestT, ResponseT]):
    """A connection to a server. Made by :func:`open_client`.

    Args:
        channel: the connection, which the client owns.
        config: deadlines.
        contract: the message types.

    Attributes:
        endpoint: where it leads.
        peer: the server's process and user, as the system reported them.
    """

    def __init__(
        self, channel: Channel, config: IpcConfig, *, contract: Contract[RequestT, ResponseT]
    ) -> None:
        self.endpoint = channel.endpoint
        self.peer: PeerCredentials | None = channel.peer
        self._channel = channel
        self._contract = contract
        self._telemetry = ClientTelemetry(
            transport=channel.transport, endpoint=self.endpoint, contract=contract.name
        )
        channel.traffic = self._telemetry
        self._turns = Turns(1, endpoint=self.endpoint, read_timeout_ms=config.read_timeout_ms)
        self._closed = False
        self._answered = False
        self._broken_by: BaseException | None = None

    def snapshot(self) -> ClientSnapshot:
        """Return what the client has done so far. Any thread may ask, during the run and after it.

        In Trio's thread the numbers belong to one moment; another one may see a step half done.
        """
        return self._telemetry.snapshot()

    async def call(self, request: RequestT) -> ResponseT:
        """Send a request and wait for its response.

        Calls from several tasks take turns, first come, first served.

        Args:
            request: a message of the contract's request type.

        Returns:
            The response. One that reports a failure is returned, not raised.

        Raises:
            MessageError: the request is empty or too large. Nothing was sent, and the client is good.
            TurnTimeoutError: the calls ahead took longer than ``read_timeout_ms``. Nothing was sent,
                and the client is good.
            PeerClosedError: the server closed the connection. Whether it did the work is not known.
            WriteTimeoutError, ReadTimeoutError: a deadline went by.
            ProtocolError: the response breaks the protocol, cannot be decoded or answers another
                request.
            ChannelClosedError: the client was closed, or broken by an earlier call; that one's error is
                the cause.

        After an error other than the first two, and after a cancellation once sending has begun, the
        connection is closed: the response might still come, and would then be taken for another's.
        """
        self._contract.check_request(request)
        telemetry = self._telemetry
        telemetry.calls += 1
        telemetry.calls_in_flight += 1
        began = telemetry.now()
        try:
            await self._turns.take()
            try:
                self._check_good()
                response = await self._exchange(request)
            finally:
                self._turns.give_back()
            telemetry.call_seconds.observe(telemetry.now() - began)
            return response
        except BaseException as exc:
            telemetry.calls_failed[kind_of(exc)] += 1
            raise
        finally:
            telemetry.calls_in_flight -= 1

    async def call_many(self, requests: Iterable[RequestT]) -> list[ResponseT]:
        """Send several requests ahead, instead of each after the answer to the one before.

        Many requests go into one write and are answered by one, so that a call costs a fraction of
        :meth:`call`'s time. The server still handles them one after the other. ``read_timeout_ms`` holds
        for each answer. Other tasks' calls wait for their turn until the last one.

        Args:
            requests: messages of the contract's request type.

        Returns:
            The responses in the requests' order. One that reports a failure is returned, not raised.

        Raises:
            MessageError: a request is empty or too large. None was sent, and the client is good.
            IpcError: as :meth:`call` raises it. Its ``responses`` hold what was answered before; whether
                the work of the requests after those was done is not known.

        Cancellation once sending has begun closes the connection, and the responses so far are lost.
        """
        wanted = [*requests]
        for request in wanted:
            self._contract.check_request(request)
        try:
            batch = Batch(self._contract, wanted)
            batch.check(self._channel)
        except MessageError as exc:
            exc.endpoint = self.endpoint
            raise
        telemetry = self._telemetry
        telemetry.calls += len(wanted)
        telemetry.calls_in_flight += len(wanted)
        began = telemetry.now()

        def answered(count: int) -> None:
            telemetry.call_seconds.observe(telemetry.now() - began, count)
            telemetry.calls_in_flight -= count

        try:
            await self._exchange_batch(batch, answered)
        except BaseException as exc:
            unanswered = len(wanted) - len(batch.responses)
            telemetry.calls_failed[kind_of(exc)] += unanswered
            telemetry.calls_in_flight -= unanswered
            if isinstance(exc, IpcError):
                exc.responses = tuple(batch.responses)
            raise
        return batch.responses

    def is_quiet(self) -> bool:
        """Return whether the client, idle so far, is good for another call, as far as can be seen.

        False once it was closed or broken, when the server has closed, or if it sent what nobody asked
        for. Does not block. True is no promise: the server may close right after.
        """
        return not self.is_broken and self._channel.is_quiet()

    @property
    def is_broken(self) -> bool:
        """Whether the connection was closed, by :meth:`aclose` or by what a call met."""
        return self._closed or self._broken_by is not None

    async def aclose(self) -> None:
        """Close the connection at once. A call in progress ends by :exc:`ChannelClosedError`."""
        self._closed = True
        await self._channel.aclose()

    def _check_good(self) -> None:
        if self._closed:
            raise ChannelClosedError("this client was closed", endpoint=self.endpoint, hint="open a new one")
        if self._broken_by is not None:
            raise ChannelClosedError(
                f"this client was broken by an earlier call: {told(self._broken_by)}",
                endpoint=self.endpoint,
                hint="open a new client",
            ) from self._broken_by

    async def _exchange(self, request: RequestT) -> ResponseT:
        try:
            await self._send(encode(request))
            response = self._contract.decode_answer(request, await self._receive())
            self._answered = True
            return response
        except MessageError as exc:
            exc.endpoint = self.endpoint
            raise
        except BaseException as exc:
            await self._poison(exc)
            raise

    async def _exchange_batch(
        self, batch: Batch[RequestT, ResponseT], answered: Callable[[int], None]
    ) -> None:
        await self._turns.take()
        try:
            self._check_good()
            try:
                await batch.exchange(self._channel, answered)
            except BaseException as exc:
                self._answered = self._answered or bool(batch.responses)
                if isinstance(exc, PeerClosedError):
                    exc.hint = why_closed(answered=self._answered)
                await self._poison(exc)
                raise
            self._answered = self._answered or bool(batch.responses)
        finally:
            self._turns.give_back()

    async def _poison(self, exc: BaseException) -> None:
        if isinstance(exc, IpcError):
            exc.endpoint = self.endpoint
        self._broken_by = exc
        await close_at_once(self._channel)

    async def _send(self, payload: bytes) -> None:
        try:
            # Without a checkpoint of its own: receive() is one, and the next.
            if not self._channel.send_nowait((payload,)):
                await self._channel.flush()
        except PeerClosedError as exc:
            # A server that refuses a frame half-way says why before it closes; that is worth more than
            # the broken pipe. Nothing is waited for: it has closed.
            await self._raise_last_words(exc)

    async def _receive(self) -> bytes | bytearray:
        try:
            return await self._channel.receive()
        except PeerClosedError as exc:
            exc.hint = why_closed(answered=self._answered)
            raise

    async def _raise_last_words(self, closed: PeerClosedError) -> None:
        try:
            response = self._contract.decode_response(await self._channel.receive())
        except IpcError:
            raise closed from closed.__cause__
        raise PeerClosedError(
            f"the server closed the connection while the request was sent; it said: {_one_line(response)}",
            endpoint=self.endpoint,
            hint="open a new client",
        ) from closed


def _one_line(message: Message) -> str:
    # Imported where they are used: rarely.
    from google.protobuf.text_format import MessageToString  # noqa: PLC0415

    from .quoting import escaped  # noqa: PLC0415

    return escaped(MessageToString(message, as_one_line=True), _LONGEST_QUOTE)


@overload
def open_client(
    config: IpcConfig | None = None, *, peers: PeerPolicy | None = None
) -> AbstractAsyncContextManager[Client[DetectionTask, DetectionResult]]: ...


@overload
def open_client(
    config: IpcConfig | None = None,
    *,
    contract: Contract[RequestT, ResponseT],
    peers: PeerPolicy | None = None,
) -> AbstractAsyncContextManager[Client[RequestT, ResponseT]]: ...


@asynccontextmanager
async def open_client(
    config: IpcConfig | None = None,
    *,
    contract: Contract[Any, Any] | None = None,
    peers: PeerPolicy | None = None,
) -> AsyncIterator[Client[Any, Any]]:
    """Connect to the configured endpoint, for the length of an ``async with`` block.

    Args:
        config: the settings; None for the defaults and the environment (:meth:`IpcConfig.load`).
        contract: the message types; None for DaemonEye's.
        peers: which users the server may run as; by default this process's own and root.

    Returns:
        A context manager that gives a :class:`Client`, and closes its connection in the end.

    Raises:
        ConfigError: the environment holds a wrong setting, where ``config`` is None.
        ServerNotFoundError, ServerRefusedError, EndpointPermissionError, ConnectTimeoutError,
        PeerNotAllowedError: no connection could be had; all are :exc:`ConnectError`.

    Cancellation closes the connection.
    """
    if config is None:
        config = IpcConfig.load()
    if contract is None:
        from .daemoneye import DETECTION  # noqa: PLC0415 - only who speaks it loads its messages

        contract = DETECTION
    channel = await open_trusted_channel(config, PeerPolicy.of(peers))
    try:
        yield Client(channel, config, contract=contract)
    finally:
        await close_at_once(channel)
