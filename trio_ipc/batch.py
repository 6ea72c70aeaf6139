"""Many requests of one caller over one connection, sent ahead of their answers.

Several go into one write and are answered by one, which is what a call by itself pays most for. This
module must never write without reading when the system has no room: a server that writes its answers
meanwhile would not read either, and both would wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Generic

import trio

from .channel import Channel
from .contract import Contract, RequestT, ResponseT, encode
from .errors import ChannelClosedError, IpcError, PeerClosedError

#: Requests, and bytes of them, in one write. Twice as many requests may be under way, so that the server
#: has work while the next ones are made. Measured: 8.0 µs a call with 64, 9.0 with 32, 7.7 with 128.
_MOST_AT_ONCE: Final = 64
_MOST_BYTES_AT_ONCE: Final = 65_536


class Batch(Generic[RequestT, ResponseT]):
    """The requests of one :meth:`~trio_ipc.Client.call_many`, and what came back so far.

    Args:
        contract: the message types.
        requests: to be made, in this order.

    Attributes:
        requests: as given.
        responses: in the requests' order.

    Raises:
        MessageError: a request cannot be encoded.
    """

    def __init__(self, contract: Contract[RequestT, ResponseT], requests: list[RequestT]) -> None:
        self.requests = requests
        self.responses: list[ResponseT] = []
        self._contract = contract
        self._payloads = [encode(request) for request in requests]
        self._sent = 0

    def check(self, channel: Channel) -> None:
        """Raise the :exc:`~trio_ipc.MessageError` that sending one of the requests would raise."""
        if self._payloads:
            channel.check(min(self._payloads, key=len))
            channel.check(max(self._payloads, key=len))

    async def exchange(self, channel: Channel, answered: Callable[[int], None]) -> None:
        """Send all requests and receive all responses; ``responses`` grows meanwhile.

        Args:
            channel: the connection.
            answered: told how many responses have come since it was last told, whenever there is a wait
                and in the end.

        Raises:
            IpcError: as :meth:`~trio_ipc.Client.call` raises it.

        After an error or a cancellation the channel must be closed.
        """
        if not self.requests:
            await trio.lowlevel.checkpoint()
        told = 0
        try:
            while len(self.responses) < len(self.requests):
                under_way = self._sent - len(self.responses)
                if self._sent < len(self.requests) and under_way <= _MOST_AT_ONCE:
                    await self._send_some(channel)
                    continue
                payloads: Sequence[bytes | bytearray] = channel.receive_nowait(under_way)
                if not payloads:
                    answered(len(self.responses) - told)
                    told = len(self.responses)
                    payloads = (await channel.receive(),)
                for payload in payloads:
                    self._take(payload)
        finally:
            answered(len(self.responses) - told)

    async def _send_some(self, channel: Channel) -> None:
        payloads = self._next_payloads()
        try:
            all_sent = channel.send_nowait(payloads)
        except PeerClosedError:
            # What it answered before can still be read.
            await self._receive_outstanding(channel)
            raise
        self._sent += len(payloads)
        if not all_sent:
            await self._flush_and_receive(channel)

    def _next_payloads(self) -> list[bytes]:
        end, size = self._sent, 0
        most = min(len(self._payloads), self._sent + _MOST_AT_ONCE)
        while end < most and size < _MOST_BYTES_AT_ONCE:
            size += len(self._payloads[end])
            end += 1
        return self._payloads[self._sent : end]

    async def _flush_and_receive(self, channel: Channel) -> None:
        unsent: list[IpcError] = []

        async def flush() -> None:
            try:
                await channel.flush()
            except IpcError as exc:
                unsent.append(exc)  # reading comes to the end of what was said before

        raised: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush)
            try:
                await self._receive_outstanding(channel)
            except Exception as exc:  # noqa: BLE001 - raised below, outside of the nursery
                raised = exc
                if not isinstance(exc, ChannelClosedError):  # else flush() ends, too, and can say why
                    nursery.cancel_scope.cancel()
        if isinstance(raised, ChannelClosedError) and unsent:
            raise unsent[0]
        if raised is not None:
            raise raised

    async def _receive_outstanding(self, channel: Channel) -> None:
        while len(self.responses) < self._sent:
            self._take(await channel.receive())

    def _take(self, payload: bytes | bytearray) -> None:
        request = self.requests[len(self.responses)]
        self.responses.append(self._contract.decode_answer(request, payload))
