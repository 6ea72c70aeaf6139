"""Many requests of one caller over one connection, sent ahead of their responses.

Several go into one write and are answered by one, which is what a call by itself pays most for. This
module must never write without reading when the system has no room: a server that writes its responses
meanwhile would not read either, and both would wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final, Generic

import trio

from trio_ipc.channel import Channel
from trio_ipc.contract import Contract, RequestT, ResponseT, encode
from trio_ipc.errors import (
    CallTimeoutError,
    ChannelClosedError,
    IpcError,
    MessageError,
    PeerClosedError,
    TruncatedFrameError,
)

from .failures import (
    answer_timed_out,
    closed_while_sending,
    closing_response,
    more_than_asked,
    not_reusable,
    sending_timed_out,
    why_closed,
)
from .nursery import nursery_of_our_own
from .slices import Slice

#: Requests, and bytes of them, in one write. Twice as many requests may be in flight, so that the server
#: has work while the next ones are made. Measured: 8.0 µs a call with 64, 9.0 with 32, 7.7 with 128.
MOST_AT_ONCE: Final = 64
MOST_BYTES_AT_ONCE: Final = 65_536


def all_of(requests: Iterable[RequestT]) -> list[RequestT]:
    """Return requests in a list. An iterator of the caller's runs here, and what it raises comes out.

    Raises:
        TypeError: they are no iterable.
    """
    try:
        return [*requests]
    except TypeError as exc:
        if isinstance(requests, Iterable):
            raise
        raise TypeError(f"requests is a {type(requests).__name__}, must be an iterable of them") from exc


class Batch(Generic[RequestT, ResponseT]):
    """The requests of one :meth:`~trio_ipc.Client.call_many`, and what came back so far.

    Attributes:
        requests: to be made, in this order.
        payloads: what is sent of them.
        responses: in the requests' order.
    """

    def __init__(self) -> None:
        self.requests: list[RequestT] = []
        self.payloads: list[bytes] = []
        self.responses: list[ResponseT] = []

    async def add(
        self, requests: Iterable[RequestT], contract: Contract[RequestT, ResponseT], channel: Channel
    ) -> None:
        """Encode requests. It is a checkpoint now and then, where that takes time.

        Raises:
            TypeError: they are no iterable, or one is no message of the contract's request type.
            MessageError: one cannot be encoded, or sent over this channel.
        """
        # What others may change meanwhile is copied first; an iterator may make the messages as it goes.
        found = requests if isinstance(requests, Iterator) else all_of(requests)
        smallest, largest = math.inf, 0
        work = Slice()
        for request in found:
            contract.check_request(request)
            try:
                payload = encode(request)
                size = len(payload)
                if size < smallest or size > largest:
                    channel.check(payload)
                    smallest, largest = min(size, smallest), max(size, largest)
            except MessageError as exc:
                exc.endpoint = channel.endpoint
                raise
            self.requests.append(request)
            self.payloads.append(payload)
            if work.is_over(size):
                await work.rest()

    def named(self, first: int, end: int) -> str:
        """Return what an error calls the requests from ``first`` to ``end``, which is not one of them."""
        if end - first == 1:
            return f"request {end} of {len(self.requests)}"
        return f"requests {first + 1} to {end} of {len(self.requests)}"

    @property
    def next_response(self) -> str:
        """What an error calls the response that is to come next."""
        return f"response {len(self.responses) + 1} of {len(self.requests)}"


class _Flush:
    """Handing over what there was no room for, while answers are read.

    Attributes:
        reading: cancelled when it makes no sense to read on.
        over: set when it has ended.
        succeeded: whether all was handed over.
        error: why it was not.
    """

    def __init__(self) -> None:
        self.reading = trio.CancelScope()
        self.over = trio.Event()
        self.succeeded = False
        self.error: IpcError | None = None


class Exchange(Generic[RequestT, ResponseT]):
    """Sends a batch over a channel that nobody else uses, and receives its responses.

    Args:
        channel: the connection.
        contract: the message types.
        batch: the requests.
        deadline: when the caller's time is up, on :func:`trio.current_time`'s clock.
        answered: whether the server had answered anything on this connection.

    Attributes:
        began: whether anything was sent.
    """

    def __init__(
        self,
        channel: Channel,
        contract: Contract[RequestT, ResponseT],
        batch: Batch[RequestT, ResponseT],
        *,
        deadline: float,
        answered: bool,
    ) -> None:
        self.began = False
        self._channel = channel
        self._contract = contract
        self._batch = batch
        self._deadline = deadline
        self._answered = answered
        self._sent = 0
        self._work = Slice()

    @trio.lowlevel.enable_ki_protection
    async def run(self, answered: Callable[[int], None]) -> None:
        """Send all requests and receive all responses; the batch's ``responses`` grow meanwhile.

        Args:
            answered: told how many responses have come since it was last told, whenever there is a wait
                and in the end.

        Raises:
            IpcError: as :meth:`~trio_ipc.Client.call` raises it.

        After an error or a cancellation the channel must be closed, if it ``began``.
        """
        channel, decode, work = self._channel, self._contract.decode_answer, self._work
        requests, responses = self._batch.requests, self._batch.responses
        all_of_them, told = len(requests), 0
        try:
            while len(responses) < all_of_them:
                in_flight = self._sent - len(responses)
                if self._sent < all_of_them and in_flight <= MOST_AT_ONCE:
                    await self._send_some()
                    continue
                payloads: Sequence[bytes] = channel.receive_nowait(in_flight)
                if not payloads:
                    answered(len(responses) - told)
                    told = len(responses)
                    payloads = (await self._receive(),)
                surplus = len(payloads) == in_flight and self._sent < all_of_them and channel.in_frame
                for payload in payloads:
                    responses.append(decode(requests[len(responses)], payload))
                    if work.is_over(len(payload)):
                        await work.rest()
                if surplus:
                    raise more_than_asked(channel, self._contract, unsent=self._unsent())
        finally:
            answered(len(responses) - told)

    # --- Sending ---

    async def _send_some(self) -> None:
        batch, first = self._batch, self._sent
        if first == len(batch.responses) and not self._channel.is_reusable():
            answered, unsent = self._has_answered, self._unsent()
            raise await not_reusable(self._channel, self._contract, answered=answered, unsent=unsent)
        end = self._next_end()
        try:
            all_sent = self._channel.send_nowait(batch.payloads[first:end])
        except PeerClosedError as exc:
            # What it answered before can still be read.
            with suppress(PeerClosedError, TruncatedFrameError):
                await self._receive_until(first)
            raise await self._closed_while_sending(exc, first, end) from exc
        self.began = True
        self._sent = end
        if not all_sent:
            await self._flush_and_receive(first, end)

    def _next_end(self) -> int:
        payloads = self._batch.payloads
        end, size = self._sent, 0
        most = min(len(payloads), self._sent + MOST_AT_ONCE)
        while end < most and size < MOST_BYTES_AT_ONCE:
            size += len(payloads[end])
            end += 1
        return end

    async def _flush_and_receive(self, first: int, end: int) -> None:
        """Wait until all is handed over, and take the responses that come meanwhile."""
        flush = _Flush()
        try:
            async with nursery_of_our_own() as nursery:
                nursery.start_soon(self._flush, flush, first, end)
                with flush.reading:
                    # Not the response to the last request, which the server has not got whole. If it says
                    # something then, it is why it closes.
                    await self._receive_until(end - 1)
                await flush.over.wait()
        except (PeerClosedError, TruncatedFrameError) as exc:
            if flush.succeeded:
                raise
            closed: IpcError = exc
        except ChannelClosedError:
            if flush.error is None:
                raise
            closed = flush.error
        else:
            if flush.error is None:
                return
            closed = flush.error
        if isinstance(closed, PeerClosedError | TruncatedFrameError):
            raise await self._closed_while_sending(closed, first, end) from closed
        raise closed

    @trio.lowlevel.enable_ki_protection
    async def _flush(self, flush: _Flush, first: int, end: int) -> None:
        try:
            with trio.CancelScope(deadline=self._deadline) as scope:
                await self._channel.flush()
            if scope.cancelled_caught:
                raise sending_timed_out(self._channel.endpoint, self._batch.named(first, end))
            flush.succeeded = True
        except (PeerClosedError, ChannelClosedError) as exc:
            # Reading comes to the end of what it said before; or has met an error, which it is about to tell.
            flush.error = exc
        except IpcError as exc:
            if not isinstance(exc, CallTimeoutError):  # which has said it
                exc.message += f", sending {self._batch.named(first, end)}"
            flush.error = exc
            flush.reading.cancel()
        finally:
            flush.over.set()

    async def _closed_while_sending(self, exc: IpcError, first: int, end: int) -> PeerClosedError:
        said = await closing_response(self._channel, self._contract)
        which = self._batch.named(first, end)
        return closed_while_sending(self._contract, exc, said, answered=self._has_answered, which=which)

    def _unsent(self) -> str:
        if not self._sent:
            return "nothing was sent"
        return f"{self._batch.named(self._sent, len(self._batch.requests))}: not sent"

    # --- Receiving ---

    @property
    def _has_answered(self) -> bool:
        return self._answered or bool(self._batch.responses)

    async def _receive_until(self, end: int) -> None:
        """Take the responses to all requests before ``end``."""
        while len(self._batch.responses) < end:
            payload = await self._receive()
            responses = self._batch.responses
            responses.append(self._contract.decode_answer(self._batch.requests[len(responses)], payload))

    async def _receive(self) -> bytes:
        channel, batch = self._channel, self._batch
        try:
            payload = await channel.receive(deadline=self._deadline)
        except trio.TooSlowError:
            raise answer_timed_out(channel.endpoint, batch.next_response) from None
        except PeerClosedError as exc:
            exc.hint = why_closed(self._contract, answered=self._has_answered)
            raise
        self._work.begin()
        return payload
