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

from .channel import Channel, too_late
from .config import IpcConfig
from .contract import RESPONSE_TOO_LARGE, Contract, RequestT, ResponseT, encode
from .errors import (
    ChannelClosedError,
    ChannelError,
    MessageEmptyError,
    MessageError,
    MessageTooLargeError,
    PeerClosedError,
    ProtocolError,
    ReadTimeoutError,
    WriteTimeoutError,
)
from .speculation import Speculation
from .telemetry import CloseReason, RequestFailure, ServerCounters, TimeoutKind
from .transports import PeerCredentials

_logger = logging.getLogger(__name__)

#: Seconds that a handler runs before anyone watches whether its client is still there. Most are done
#: sooner, and starting a watch for each request would cost them more than they take.
_WATCH_AFTER: Final = 0.01

#: Characters of an exception that go to the client; the whole of it is in the log.
_LONGEST_REASON: Final = 1_000

#: Requests that are answered in a row, where so many are in hand, before other connections have their turn.
_MOST_IN_A_ROW: Final = 64

#: Seconds of handlers' time after which responses are sent, though more requests are in hand. The client
#: works on some while the next are made: with 64 requests at a time a call took 6.4 µs when all were answered
#: by one write, and 4.6 when by one for about 8 (the least of 5 rounds).
_LONGEST_HELD: Final = 0.00003

#: Seconds from which on such a write was not worth it. It takes 7 µs where the client has a core of its own.
#: Where it has to run on this one first, it takes 45, and all by one write would have been better: 6.2 µs a
#: call and not 9.9.
_TOO_LONG_A_WRITE: Final = 0.00002

#: Bytes of responses, and seconds of handlers' time, after which they are sent in any case.
_MOST_BYTES_AT_ONCE: Final = 65_536
_MUCH_TOO_LONG: Final = 0.001

_UNANSWERABLE: Final = "a request failed, and no response could say so"

#: What becomes of requests without their response when the connection ends for this reason.
_REQUEST_LOST: Final = {
    CloseReason.CUT_OFF: RequestFailure.CUT_OFF,
    CloseReason.INTERNAL_ERROR: RequestFailure.INTERNAL_ERROR,
}


@attrs.define  # to freeze it would take each request 0.3 µs, and only its handler reads it
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
        channel.patient = True
        self._watch = _Watch(channel, self._send_early, config.handler_timeout)
        # Requests that were read, and are not looked at yet. The next one is the last.
        self._in_hand: list[bytes | bytearray] = []
        self._request: RequestT | None = None
        self._undecided = False
        # Responses that go out together with those of the other requests in hand.
        self._responses: list[bytes] = []
        self._response_bytes = 0
        self._first_began = 0.0
        self._handled_at = 0.0
        self._send_at = math.inf
        self._sending_soon = Speculation()
        self._undelivered = 0
        self._unsent_because: ChannelError | None = None
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
        finally:
            self._decide_undelivered()
            # What a peer made large is freed now, and not when the garbage collector comes: it counts
            # objects, not bytes. The watch and this one know each other, so one has to let go.
            self._request = None
            self._in_hand = []
            self._responses = []
            self._unsent_because = self._stopped_at = None
            self._channel.patient = False
            del self._watch

    def finish(self) -> None:
        """Take no further request. One that is being received or handled is still answered."""
        self._channel.stop_receiving()
        if not self._ended:
            self._watch.end_wait()

    def _end(self, reason: CloseReason, said: str) -> None:
        """Note what ended the conversation, and what that makes of the request in hand."""
        self._ended = True
        self.ending = (reason, said)
        self._failed(_REQUEST_LOST.get(reason, RequestFailure.RESPONSE_UNDELIVERED))

    def _decide_undelivered(self) -> None:
        """Count the requests whose responses were made and not taken."""
        reason, _ = self.ending
        why = _REQUEST_LOST.get(reason, RequestFailure.RESPONSE_UNDELIVERED)
        self._counters.requests_failed[why] += self._undelivered
        self._counters.requests_in_flight -= self._undelivered
        self._undelivered = 0

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
            # One scope for all requests, and the waits for them, until the watch has to cancel one: a
            # scope for each would cost it 8 µs.
            with self._watch.new_scope():
                await self._answer_requests()
            if self._ended:
                return
            if self._watch.cancelled:
                await self._handler_cancelled()
            elif self._watch.overdue and not self._in_hand and self._channel.is_quiet():
                limit = self._channel.read_timeout_ms
                assert limit is not None  # noqa: S101 - or the channel had ended the wait
                raise too_late(limit, self._channel.endpoint, in_frame=False)
            # Else receiving was stopped, or something has come in that moment: the next call says.

    async def _answer_requests(self) -> None:
        channel, counters = self._channel, self._counters
        in_a_row = 0
        while True:
            try:
                if self._handled_at >= self._send_at:
                    await self._send_soon()
                if not self._in_hand:
                    self._in_hand += reversed(channel.receive_nowait(_MOST_IN_A_ROW - in_a_row))
                if self._in_hand:
                    in_a_row += 1
                    payload = self._in_hand.pop()
                else:
                    await self._send_responses()
                    self._watch.rest()
                    payload = await channel.receive()
                    if self._watch.wait_ended:
                        # It has come just then: it is answered, but not in a scope that is cancelled.
                        self._in_hand.append(payload)
                        await trio.lowlevel.checkpoint_if_cancelled()
                    in_a_row = 1
                # Kept for as long as it is being answered, and no longer: an idle connection holds none.
                self._request = self._contract.decode_request(payload)
                del payload
            except ProtocolError as exc:
                if self._watch.wait_ended:
                    await trio.lowlevel.checkpoint_if_cancelled()  # in the next scope it can be told
                self._end(CloseReason.PROTOCOL_ERROR, exc.message)
                exc.__traceback__ = None  # the channel keeps the error, which need not keep us
                await self._say_why(exc)
                return
            self._undecided = True
            counters.requests += 1
            counters.requests_in_flight += 1
            response = await self._handle(self._request)
            if response is None or not self._add(self._request, response):
                await self._send_responses()
                self._end(CloseReason.UNANSWERABLE, _UNANSWERABLE)
                return
            self._request = response = None

    async def _send_soon(self) -> None:
        """Send what is made, though more requests may be in hand, if it has to be or is likely to pay."""
        held = self._handled_at - self._first_began
        if self._response_bytes >= _MOST_BYTES_AT_ONCE or held >= _MUCH_TOO_LONG:
            await self._send_responses()
        elif self._sending_soon.is_worth_it():
            await self._send_responses()
            if self._now() - self._handled_at < _TOO_LONG_A_WRITE:
                self._sending_soon.succeeded()
        else:
            self._send_at = self._handled_at + _LONGEST_HELD

    async def _send_responses(self) -> None:
        if self._unsent_because is not None:
            raise self._unsent_because
        if self._responses:
            responses, self._responses, self._response_bytes = self._responses, [], 0
            self._send_at = math.inf
            if not self._channel.send_nowait(responses):
                await self._channel.flush()
            self._counters.requests_answered += self._undelivered
            self._counters.requests_in_flight -= self._undelivered
            self._undelivered = 0

    async def _send_early(self) -> None:
        """Send what is made, because the handler that runs takes its time."""
        try:
            await self._send_responses()
        except ChannelError as exc:
            self._unsent_because = exc

    async def _handle(self, request: RequestT) -> ResponseT | None:
        """Return the handler's response, or the one that reports its failure (None without one)."""
        now = self._now()
        if not self._responses:
            self._first_began = now
            self._send_at = now + _LONGEST_HELD
        try:
            deadline = self._watch.begin(now, at_once=bool(self._responses))
            try:
                response = await self._handler(request, Call(self._channel.peer, deadline, self._number))
            finally:
                self._handled_at = self._now()
                self._counters.handler_seconds.observe(self._handled_at - now)
                if self._watch.end():
                    await self._watch.wait_over()
            if self._watch.cancelled:
                # Though it has caught that, and returned something: it is not heard.
                await trio.lowlevel.checkpoint_if_cancelled()
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
        if not self._add_failure(self._request, reason):
            await self._send_responses()
            self._end(CloseReason.UNANSWERABLE, _UNANSWERABLE)
        self._request = None

    def _add(self, request: RequestT, response: ResponseT) -> bool:
        """Add the response to what is sent next, or the failure that it cannot be; False if neither can."""
        try:
            self._add_payload(encode(response))
            return True
        except MessageTooLargeError as exc:
            reason = f"{RESPONSE_TOO_LARGE}: {exc.size} bytes, the limit max_frame_bytes is {exc.limit}"
            exc.__traceback__ = None  # the frame that made the error knows it, and would keep the response
        except MessageEmptyError:
            reason = "the handler's response encodes to no bytes, which the wire cannot carry"
        except MessageError as exc:
            reason = f"the handler's response cannot be sent: {exc.message}"
        self._failed(RequestFailure.RESPONSE_UNSENDABLE)
        _logger.error("%s", reason, extra=self._log_fields())
        return self._add_failure(request, reason)

    def _add_failure(self, request: RequestT | None, reason: str) -> bool:
        response = self._failure(request, reason)
        if response is None:
            return False
        try:
            self._add_payload(encode(response))
        except MessageError as exc:
            _logger.error("a failed response cannot be sent: %s", exc.message, extra=self._log_fields())
            return False
        return True

    def _add_payload(self, payload: bytes) -> None:
        self._channel.check(payload)
        self._responses.append(payload)
        self._response_bytes += len(payload)
        if self._response_bytes >= _MOST_BYTES_AT_ONCE:
            self._send_at = self._handled_at
        if self._undecided:
            self._undecided = False
            self._undelivered += 1

    async def _say_why(self, exc: ProtocolError) -> None:
        """Tell the peer what it did wrong, where that is still possible."""
        self._add_failure(None, f"protocol violation: {exc.message}")
        try:
            await self._send_responses()
        except (PeerClosedError, ChannelClosedError, WriteTimeoutError) as unsent:
            self._counters.timeouts[TimeoutKind.WRITE] += isinstance(unsent, WriteTimeoutError)
            _logger.debug("the peer could not be told: %s", unsent.message, extra=self._log_fields())

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


class _Watch:
    """Looks after a handler that takes its time, and after a wait for a request that takes too long.

    It sends what was answered before, and cancels the handler when it runs out of time or its client has
    gone. One task for the connection's whole life. It sleeps while no handler runs; the alarm that a handler
    sets is left to ring when the handler is done, because moving a deadline there and back costs each
    request 5 µs and a needless ring costs a busy connection 15 µs every ``_WATCH_AFTER``. For the same
    reason a wait sets no alarm. One rings before the wait can be overdue, and is then set to when it will be.

    Attributes:
        scope: what to cancel. Only between :meth:`begin` and :meth:`end`, so that the end of the handler
            is where it takes effect at the latest; and in a wait that the channel leaves to its owner.
        cancelled: whether that has happened to the handler that began last.
        peer_gone: whether the client's leaving was the reason.
        wait_ended: whether it has happened to a wait.
        overdue: whether that was because of its time.
    """

    def __init__(
        self, channel: Channel, send_early: Callable[[], Awaitable[None]], handler_timeout: float
    ) -> None:
        self._channel = channel
        self._send_early = send_early
        self._handler_timeout = handler_timeout
        # The channel's own, which may have been made with other settings than the server's.
        limit = channel.read_timeout_ms
        self._read_timeout = math.inf if limit is None else limit / 1000
        self._watch_after = min(_WATCH_AFTER, handler_timeout)
        self._running = False
        self._at_once = False
        self._deadline = math.inf
        self._watch_from = math.inf
        self._alarm = trio.CancelScope()
        self._rings_at = math.inf  # the alarm's deadline, which takes longer to ask and longest to set
        self._watching: trio.CancelScope | None = None
        self._busy: trio.Event | None = None
        self.peer_gone = False
        self.new_scope()

    def new_scope(self) -> trio.CancelScope:
        """Return a scope for requests and waits, none of which was cancelled yet."""
        self.cancelled = self.wait_ended = self.overdue = False
        self.scope = trio.CancelScope()
        return self.scope

    def begin(self, now: float, *, at_once: bool) -> float:
        """Watch over the handler that starts now.

        Args:
            now: the time.
            at_once: whether responses wait to be sent, should it take any time at all.

        Returns:
            When it will be cancelled.
        """
        self._running = True
        self._at_once = at_once
        self._deadline = deadline = now + self._handler_timeout
        self._watch_from = watch_from = now + self._watch_after
        alarm = -math.inf if at_once else watch_from
        if self._rings_at > alarm:
            self._rings_at = self._alarm.deadline = alarm
        return deadline

    def end(self) -> bool:
        """The handler is done: stop watching. Return whether :meth:`wait_over` must follow."""
        self._running = False
        self._watch_from = math.inf
        return self._busy is not None

    def rest(self) -> None:
        """No handler runs for a while: an alarm that would ring at once for none of them need not."""
        if self._rings_at == -math.inf:
            self._rings_at = self._alarm.deadline = trio.current_time() + self._read_timeout

    def end_wait(self) -> None:
        """End the wait for a request that the channel leaves to its owner, if there is one."""
        if self._channel.waits_until is not None:
            self.wait_ended = True
            self.scope.cancel()

    async def wait_over(self) -> None:
        """Wait until the watch has let go of the channel, which may then be used again."""
        assert self._busy is not None  # noqa: S101 - for the type checker
        if self._watching is not None:
            self._watching.cancel()
        # What is waited for is the watch's own cancelled read, or a send that has its deadline.
        with trio.CancelScope(shield=True):
            await self._busy.wait()

    async def run(self) -> None:
        """Sleep, look after a handler that takes its time, and so on until cancelled."""
        while True:
            waits_until = self._channel.waits_until
            if waits_until is None or self.wait_ended:  # one that begins later ends later
                waits_until = trio.current_time() + self._read_timeout
            self._rings_at = min(self._watch_from, waits_until)
            with trio.CancelScope(deadline=self._rings_at) as self._alarm:
                await trio.sleep_forever()
            waits_until = self._channel.waits_until
            if waits_until is not None and trio.current_time() >= waits_until:
                self.overdue = True
                self.end_wait()
            # It may have rung for a handler that is done, while none runs or a later one does.
            if self._running:
                self._busy = trio.Event()
                try:
                    await self._look_after()
                finally:
                    self._busy.set()
                    self._busy = None

    async def _look_after(self) -> None:
        if self._at_once:
            self._at_once = False
            # A peer that does not read holds up what is sent, and must not hold up the deadline.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_at_deadline)
                await self._send_early()
                nursery.cancel_scope.cancel()
        if trio.current_time() < self._watch_from:
            return
        self._watch_from = math.inf
        try:
            with trio.CancelScope(deadline=self._deadline) as self._watching:
                await self._channel.wait_peer_gone()
                self.peer_gone = True
            self._cancel_handler()
        finally:
            self._watching = None

    async def _cancel_at_deadline(self) -> None:
        await trio.sleep_until(self._deadline)
        self._cancel_handler()

    def _cancel_handler(self) -> None:
        if self._running:
            self.cancelled = True
            self.scope.cancel()
