"""Several calls at a time on one connection, each answered in its turn.

Responses come back in the order of the requests and carry no number, so that the order is all that ties
an answer to its caller. One task writes, everything that waits at a time in one go; one task reads, and
gives each answer to the oldest call that was sent. A caller that is cancelled after that leaves its place
behind: the answer is read and dropped. This module must never give an answer to another request's
caller, and never guess where an answer belongs once the stream cannot be trusted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeAlias

import trio

from .calling import told, why_closed
from .channel import Channel, close_at_once
from .contract import Contract, RequestT, ResponseT, encode
from .errors import ChannelClosedError, ChannelError, IpcError, PeerClosedError

#: Told how a call ended: None for an answer.
Settled: TypeAlias = Callable[[BaseException | None], None]


def _nobody_cares(_outcome: BaseException | None) -> None:
    pass


class _Pending(Generic[RequestT, ResponseT]):
    """A call under way. ``done`` is set when there is a response or an error."""

    def __init__(self, request: RequestT, payload: bytes, settled: Settled) -> None:
        self.request = request
        self.payload = payload
        self.settled = settled
        self.done = trio.Event()
        self.response: ResponseT | None = None
        self.error: Exception | None = None


class Pipeline(Generic[RequestT, ResponseT]):
    """A connection that several callers share. It works while :meth:`run` does.

    How many calls it carries at a time is its owner's to limit.

    Args:
        channel: the connection, which the pipeline owns.
        contract: the message types.
    """

    def __init__(self, channel: Channel, *, contract: Contract[RequestT, ResponseT]) -> None:
        self.endpoint = channel.endpoint
        self._channel = channel
        self._contract = contract
        self._outbox: deque[_Pending[RequestT, ResponseT]] = deque()
        self._in_flight: deque[_Pending[RequestT, ResponseT]] = deque()
        self._to_write = trio.lowlevel.ParkingLot()
        self._to_read = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()
        self._broken_by: Exception | None = None
        self._writing_ended_by: IpcError | None = None
        self._answered = False

    async def run(self) -> None:
        """Write and read until the connection ends; then close it, and end every call that is left.

        Raises nothing. Cancellation closes the connection.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._read)
        finally:
            self._break(ChannelClosedError("this connection was closed", endpoint=self.endpoint))
            await close_at_once(self._channel)
            # Only now: who hears of the end may take it that the connection is no more.
            self._fail_all()

    async def call(self, request: RequestT, *, settled: Settled = _nobody_cares) -> ResponseT:
        """Send a request and wait for its response, while other calls do the same.

        Args:
            request: a message of the contract's request type.
            settled: called exactly once, when the call takes no place on the connection any longer: with
                None when its response was read, with the exception when it was not sent, was withdrawn
                before it was, or when the connection is closed. That may be after the end of this
                method, where that is a cancellation.

        Raises:
            MessageError: the request is empty or too large. Nothing was sent, and the others go on.
            ProtocolError: this request's response could not be trusted. The connection is closed; so it
                is by whatever the contract's own functions raise.
            ChannelError: the connection broke or was closed. Whether the server did the work is not
                known.

        Cancellation leaves the connection and the other calls as they are.
        """
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            payload = self._payload(request)
        except BaseException as exc:
            settled(exc)
            raise
        pending: _Pending[RequestT, ResponseT] = _Pending(request, payload, settled)
        self._outbox.append(pending)
        self._to_write.unpark()
        try:
            await pending.done.wait()
        except BaseException as exc:
            # Once it is on its way, its place in the order has to be kept.
            if pending in self._outbox:
                self._outbox.remove(pending)
                settled(exc)
            raise
        if pending.error is not None:
            raise pending.error
        assert pending.response is not None  # noqa: S101 - for the type checker
        return pending.response

    def is_quiet(self) -> bool:
        """Return whether the connection, idle so far, is good for another call, as far as can be seen."""
        return self.accepts_calls and self._channel.is_quiet()

    @property
    def accepts_calls(self) -> bool:
        """Whether it may be called: it has not ended, and the server has not stopped reading.

        In the latter case answers are still waited for, for as long as there are any to come.
        """
        return self._broken_by is None and self._writing_ended_by is None

    @property
    def is_broken(self) -> bool:
        """Whether the connection has ended, by an error or by :meth:`aclose`."""
        return self._broken_by is not None

    async def aclose(self) -> None:
        """Close the connection at once. Calls under way end by :exc:`ChannelClosedError`."""
        self._break(ChannelClosedError("this connection was closed", endpoint=self.endpoint))
        await self._channel.aclose()

    def _payload(self, request: RequestT) -> bytes:
        ended_by = self._broken_by or self._writing_ended_by
        if ended_by is not None:
            said = told(ended_by)
            if not isinstance(ended_by, ChannelClosedError):
                said = f"this connection was broken: {said}"
            raise ChannelClosedError(said, endpoint=self.endpoint, hint="open a new one") from ended_by
        try:
            payload = encode(request)
            self._channel.check(payload)
            return payload
        except IpcError as exc:
            exc.endpoint = self.endpoint
            raise

    async def _write(self) -> None:
        while True:
            while not self._outbox:  # again: who woke this task may have been cancelled since
                await self._to_write.park()
            batch = [*self._outbox]
            self._outbox.clear()
            self._in_flight += batch
            self._to_read.unpark()
            try:
                # No checkpoint where there is room; waiting for the next batch is one.
                if not self._channel.send_nowait([pending.payload for pending in batch]):
                    await self._channel.flush()
            except PeerClosedError as exc:
                # What the server said before it closed can still be read: answers, or why it closed.
                # The reader comes to the end of it.
                self._writing_ended_by = exc
                self._to_read.unpark()
                return
            except ChannelClosedError:
                return  # as the reader met an error, which it is about to tell
            except IpcError as exc:
                self._break(exc)
                return

    async def _read(self) -> None:
        while True:
            while not self._in_flight:
                if self._writing_ended_by is not None:
                    self._break(self._writing_ended_by)
                    return
                # Not receive(): it would time out a connection that is merely idle.
                await self._to_read.park()
            try:
                # All that came by one read at a time: those who waited for it call again together, and
                # go into one write.
                payloads: Sequence[bytes | bytearray] = self._channel.receive_nowait(len(self._in_flight))
                if not payloads:
                    payloads = (await self._channel.receive(),)
                for payload in payloads:
                    self._answer(self._in_flight[0], payload)
                del payload, payloads  # an idle connection keeps none
            except ChannelClosedError:
                return  # as the writer met an error, which it is about to tell
            except Exception as exc:  # noqa: BLE001 - the contract's functions are users' code
                if isinstance(exc, IpcError):
                    exc.endpoint = self.endpoint
                if isinstance(exc, PeerClosedError):
                    exc.hint = why_closed(answered=self._answered)
                self._break(exc)
                return

    def _answer(self, pending: _Pending[RequestT, ResponseT], payload: bytes | bytearray) -> None:
        response = self._contract.decode_answer(pending.request, payload)
        self._answered = True
        self._in_flight.popleft()
        pending.response = response
        pending.done.set()
        pending.settled(None)

    def _break(self, exc: Exception) -> None:
        if self._broken_by is None:
            self._broken_by = exc
            self._scope.cancel()

    def _fail_all(self) -> None:
        assert self._broken_by is not None  # noqa: S101 - run() broke it if nobody else did
        reason = self._broken_by
        for pending in [*self._in_flight, *self._outbox]:
            first = self._in_flight and pending is self._in_flight[0]
            pending.error = reason if first else _for_a_neighbour(reason, self.endpoint)
            pending.done.set()
            pending.settled(pending.error)
        self._in_flight.clear()
        self._outbox.clear()


def _for_a_neighbour(reason: Exception, endpoint: str) -> ChannelError:
    """Return what a call is told that was behind the one which met the error."""
    if isinstance(reason, ChannelError):
        # A new one each, for a traceback of its own.
        error: ChannelError = type(reason)(reason.message, endpoint=endpoint, hint=reason.hint)
    else:
        said = f"an answer ahead of this one could not be trusted: {told(reason)}"
        error = ChannelClosedError(said, endpoint=endpoint, hint="open a new one")
    error.__cause__ = reason
    return error
