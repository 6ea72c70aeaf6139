"""The server's side of one connection: a request, its handler, the response, and so on.

A handler's failure is one failed response; a peer that breaks the protocol is told why and let go; a
client that leaves while its handler runs cancels that handler. This module must never let any of that
reach another connection, and never swallow a cancellation.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeAlias

import attrs
import trio

from .channel import Channel
from .config import IpcConfig
from .contract import RESPONSE_TOO_LARGE, Contract, RequestT, ResponseT, encode
from .errors import (
    ChannelClosedError,
    MessageEmptyError,
    MessageError,
    MessageTooLargeError,
    PeerClosedError,
    ProtocolError,
    ReadTimeoutError,
    WriteTimeoutError,
)
from .telemetry import CloseReason, RequestFailure, ServerCounters, TimeoutKind
from .transports import PeerCredentials

_logger = logging.getLogger(__name__)

#: Seconds that a handler runs before anyone watches whether its client is still there. Most are done
#: sooner, and starting a watch for each request would cost them more than they take.
_WATCH_AFTER: Final = 0.01

#: Characters of an exception that go to the client; the whole of it is in the log.
_LONGEST_REASON: Final = 1_000

_UNANSWERABLE: Final = "a request failed, and no response could say so"

#: What becomes of a request in hand when its connection ends for this reason.
_REQUEST_LOST: Final = {
    CloseReason.CUT_OFF: RequestFailure.CUT_OFF,
    CloseReason.INTERNAL_ERROR: RequestFailure.INTERNAL_ERROR,
}


@attrs.frozen
class Call:
    """What a handler may know about the request besides its message.

    Attributes:
        peer: the client's process and user, as the system reported them.
        deadline: when the handler is cancelled, on :func:`trio.current_time`'s clock, in seconds.
        connection: the number of the connection on this server, from 1.
    """

    peer: PeerCredentials | None
    deadline: float
    connection: int


#: ``async def handler(request, call) -> response``.
Handler: TypeAlias = Callable[[RequestT, Call], Awaitable[ResponseT]]


class Conversation(Generic[RequestT, ResponseT]):
    """Serves one connection until either side ends it. The caller closes the channel.

    Args:
        channel: the connection.
        number: what logs and :class:`Call` name it by.
        handler: answers requests, one at a time.

    Attributes:
        ending: what ended it, as a reason to count by and as words for the log.
    """

    def __init__(
        self,
        channel: Channel,
        number: int,
        handler: Handler[RequestT, ResponseT],
        *,
        config: IpcConfig,
        contract: Contract[RequestT, ResponseT],
        counters: ServerCounters,
    ) -> None:
        self._channel = channel
        self._number = number
        self._handler = handler
        self._handler_timeout = config.handler_timeout
        self._contract = contract
        self._counters = counters
        # trio.current_time() takes 0.1 µs longer, and would be asked twice for each request.
        self._now = trio.lowlevel.current_clock().current_time
        self._watch = _HandlerWatch(channel)
        self._request: RequestT | None = None
        self._undecided = False
        self._stopped_at: trio.Cancelled | None = None
        self._ended = False
        self.ending = (CloseReason.CUT_OFF, "the server ended")

    async def run(self) -> None:
        """Answer requests until the conversation ends; :attr:`ending` then says why it did.

        Raises nothing but what is no :exc:`Exception`, unless this package has a bug. Cancellation ends
        it at once, in the middle of a handler if need be.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch.run)
                try:
                    await self._converse()
                except ReadTimeoutError as exc:
                    self._counters.timeouts[TimeoutKind.READ] += 1
                    self._end(CloseReason.READ_TIMEOUT, exc.message)
                except WriteTimeoutError as exc:
                    self._counters.timeouts[TimeoutKind.WRITE] += 1
                    self._end(CloseReason.WRITE_TIMEOUT, exc.message)
                except PeerClosedError as exc:
                    self._end(CloseReason.PEER_CLOSED, exc.message)
                except ChannelClosedError as exc:
                    self._end(CloseReason.STOPPED, exc.message)
                nursery.cancel_scope.cancel()
        except Exception:
            self._end(CloseReason.INTERNAL_ERROR, "an internal error")
            raise
        except BaseException:
            self._end(*self.ending)  # cut off, if nothing had ended it before
            self._stopped_at = None
            raise

    def finish(self) -> None:
        """Take no further request. One that is being received or handled is still answered."""
        self._channel.stop_receiving()

    def _end(self, reason: CloseReason, said: str) -> None:
        """Note what ended the conversation, and what that makes of the request in hand."""
        self._ended = True
        self.ending = (reason, said)
        self._failed(_REQUEST_LOST.get(reason, RequestFailure.RESPONSE_UNDELIVERED))

    def _failed(self, why: RequestFailure) -> None:
        """Count the request in hand, if there is one, by what failed first."""
        if self._undecided:
            self._undecided = False
            self._counters.requests_in_flight -= 1
            self._counters.requests_failed[why] += 1
            if why is RequestFailure.HANDLER_TIMEOUT:
                self._counters.timeouts[TimeoutKind.HANDLER] += 1

    async def _converse(self) -> None:
        while not self._ended:
            # One scope for all requests until the watch has to cancel a handler: a scope for each of
            # them would cost it 8 µs.
            with trio.CancelScope() as self._watch.scope:
                await self._answer_requests()
            if not self._ended:
                await self._handler_cancelled()

    async def _answer_requests(self) -> None:
        counters = self._counters
        while True:
            try:
                # Kept for as long as it is being answered, and no longer: an idle connection holds none.
                self._request = self._contract.decode_request(await self._channel.receive())
            except ProtocolError as exc:
                self._end(CloseReason.PROTOCOL_ERROR, exc.message)
                await self._say_why(exc)
                return
            self._undecided = True
            counters.requests += 1
            counters.requests_in_flight += 1
            if not await self._answer(self._request):
                self._end(CloseReason.UNANSWERABLE, _UNANSWERABLE)
                return
            if self._undecided:
                self._undecided = False
                counters.requests_in_flight -= 1
                counters.requests_answered += 1
            self._request = None

    async def _answer(self, request: RequestT) -> bool:
        response = await self._handle(request)
        return response is not None and await self._send(request, response)

    async def _handle(self, request: RequestT) -> ResponseT | None:
        """Return the handler's response, or the one that reports its failure (None without one)."""
        now = self._now()
        deadline = now + self._handler_timeout
        try:
            self._watch.begin(now, deadline)
            try:
                response = await self._handler(request, Call(self._channel.peer, deadline, self._number))
            finally:
                self._counters.handler_seconds.observe(self._now() - now)
                await self._watch.end()
        except trio.Cancelled as exc:
            self._stopped_at = exc
            raise
        except (Exception, BaseExceptionGroup) as exc:  # noqa: BLE001 - whatever users' code may raise
            return await self._handler_failed(request, exc)
        if not isinstance(response, self._contract.response_type):
            wanted = self._contract.response_type.__name__
            wrong = TypeError(f"the handler returned {type(response).__name__}, must be {wanted}")
            return await self._handler_failed(request, wrong)
        return response

    async def _handler_failed(
        self, request: RequestT, exc: Exception | BaseExceptionGroup[BaseException]
    ) -> ResponseT | None:
        if isinstance(exc, BaseExceptionGroup) and exc.split((Exception, trio.Cancelled))[1] is not None:
            raise exc  # a KeyboardInterrupt or the like is in it, and goes first
        _logger.error("the handler failed", exc_info=exc, extra=self._log_fields())
        # What it raises because it was cancelled is logged, but is not its answer.
        await trio.lowlevel.checkpoint_if_cancelled()
        self._failed(RequestFailure.HANDLER)
        return self._failure(request, f"the handler failed: {_describe(exc)}")

    async def _handler_cancelled(self) -> None:
        """Deal with the handler that the watch has cancelled."""
        stopped_at, self._stopped_at = self._stopped_at, None
        if self._watch.peer_gone:
            self._failed(RequestFailure.CLIENT_GONE)
            said = "the client left while its handler ran; the handler was cancelled"
            self._end(CloseReason.PEER_CLOSED, said)
            return
        self._failed(RequestFailure.HANDLER_TIMEOUT)
        reason = f"the handler ran out of time, the limit is {self._handler_timeout * 1000:.0f} ms"
        _logger.error("%s", reason, exc_info=stopped_at, extra=self._log_fields())
        if not await self._send_failure(self._request, reason):
            self._end(CloseReason.UNANSWERABLE, _UNANSWERABLE)
        self._request = None

    async def _send(self, request: RequestT, response: ResponseT) -> bool:
        """Send the response, or the failure that it cannot be sent; False if neither could be."""
        try:
            await self._channel.send(encode(response))
            return True
        except MessageTooLargeError as exc:
            reason = f"{RESPONSE_TOO_LARGE}: {exc.size} bytes, the limit max_frame_bytes is {exc.limit}"
        except MessageEmptyError:
            reason = "the handler's response encodes to no bytes, which the wire cannot carry"
        except MessageError as exc:
            reason = f"the handler's response cannot be sent: {exc.message}"
        # A handler that was cancelled, and returned this instead of ending, is not heard.
        await trio.lowlevel.checkpoint_if_cancelled()
        self._failed(RequestFailure.RESPONSE_UNSENDABLE)
        _logger.error("%s", reason, extra=self._log_fields())
        return await self._send_failure(request, reason)

    async def _say_why(self, exc: ProtocolError) -> None:
        """Tell the peer what it did wrong, where that is still possible."""
        try:
            await self._send_failure(None, f"protocol violation: {exc.message}")
        except (PeerClosedError, ChannelClosedError, WriteTimeoutError) as unsent:
            self._counters.timeouts[TimeoutKind.WRITE] += isinstance(unsent, WriteTimeoutError)
            _logger.debug("the peer could not be told: %s", unsent.message, extra=self._log_fields())

    async def _send_failure(self, request: RequestT | None, reason: str) -> bool:
        response = self._failure(request, reason)
        if response is None:
            return False
        try:
            await self._channel.send(encode(response))
        except MessageError as exc:
            _logger.error("a failed response cannot be sent: %s", exc.message, extra=self._log_fields())
            return False
        return True

    def _failure(self, request: RequestT | None, reason: str) -> ResponseT | None:
        if self._contract.failure is None:
            return None
        # An exception's text may hold what is no Unicode (a file name of arbitrary bytes); protobuf
        # would refuse that.
        reason = reason[:_LONGEST_REASON].encode("utf-8", "replace").decode()
        try:
            return self._contract.failure(request, reason)
        except Exception:
            _logger.exception("the contract made no failed response of: %s", reason, extra=self._log_fields())
            return None

    def _log_fields(self) -> dict[str, object]:
        return {
            "endpoint": self._channel.endpoint,
            "connection": self._number,
            "peer": str(self._channel.peer),
            "transport": self._counters.transport,
        }


def _describe(exc: BaseException) -> str:
    try:
        return f"{type(exc).__name__}: {exc}"
    except Exception:  # noqa: BLE001 - __str__ is users' code too
        return f"{type(exc).__name__} (its text cannot be made)"


class _HandlerWatch:
    """Cancels a handler that runs out of time, or whose client has gone.

    One task for the connection's whole life. It sleeps while no handler runs; the alarm that a handler
    sets is left to ring when the handler is done, because moving a deadline there and back costs each
    request 5 µs and a needless ring costs a busy connection 15 µs every ``_WATCH_AFTER``.

    Attributes:
        scope: what to cancel. Only between :meth:`begin` and :meth:`end`, so that the first checkpoint
            after a cancelled handler, which is before anything is sent, is where it takes effect.
        peer_gone: whether the client's leaving was the reason.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._running = False
        self._deadline = math.inf
        self._watch_from = math.inf
        self._alarm = trio.CancelScope()
        self._watching: trio.CancelScope | None = None
        self._watch_over = trio.Event()
        self.scope = trio.CancelScope()
        self.peer_gone = False

    def begin(self, now: float, deadline: float) -> None:
        """Watch over the handler that starts now."""
        self._running = True
        self._deadline = deadline
        self._watch_from = min(now + _WATCH_AFTER, deadline)
        if self._alarm.deadline > self._watch_from:  # noqa: PLR1730 - setting it is what costs
            self._alarm.deadline = self._watch_from

    async def end(self) -> None:
        """The handler is done: stop watching. The channel may be received from again."""
        self._running = False
        self._watch_from = math.inf
        if self._watching is not None:
            self._watching.cancel()
            # What is waited for is the watch's own cancelled read, so this can't be long.
            with trio.CancelScope(shield=True):
                await self._watch_over.wait()

    async def run(self) -> None:
        """Sleep, watch when a handler has run for a moment, and so on until cancelled."""
        while True:
            with trio.CancelScope(deadline=self._watch_from) as self._alarm:
                await trio.sleep_forever()
            # It may have rung for a handler that is done, while none runs or a later one does.
            if trio.current_time() >= self._watch_from:
                self._watch_from = math.inf
                await self._watch()

    async def _watch(self) -> None:
        self._watch_over = trio.Event()
        try:
            with trio.CancelScope(deadline=self._deadline) as self._watching:
                await self._channel.wait_peer_gone()
                self.peer_gone = True
            if self._running:
                self.scope.cancel()
        finally:
            self._watching = None
            self._watch_over.set()
