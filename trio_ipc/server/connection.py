"""The server's side of one connection, as a state machine.

states.py has its states, and which may follow which. A state has one method here, which returns once the next
state is set. While it waits, the watchdog may cancel it, and says why by a :class:`Verdict`;
:meth:`Connection._judged` decides what follows. This module must never let what happens here reach another
connection, and never swallow a cancellation.
"""

from __future__ import annotations

import contextvars
import math
from collections import deque
from collections.abc import Awaitable
from typing import Final, Generic

import trio

from trio_ipc.channel import STOPPED, Channel, Held, too_late
from trio_ipc.contract import RequestT, ResponseT
from trio_ipc.errors import (
    ChannelClosedError,
    ChecksumMismatchError,
    PeerClosedError,
    ProtocolError,
    ReadTimeoutError,
    WriteTimeoutError,
    leaves,
)
from trio_ipc.logs import Log
from trio_ipc.telemetry import CloseReason, RequestFailure, ServerCounters, TimeoutKind

from .handling import Call, begin, describe, ends_the_server, forget_traceback, is_cancelled_here, resume
from .outbox import Outbox, lost_by
from .responses import Responses, UnsendableError
from .shared import Shared
from .states import State
from .variants import refusal
from .watch import Verdict, Watch

_log = Log(__name__)

#: Seconds of one connection's handlers after which everyone else has a turn. What is answered then is sent.
_TURN: Final = 0.001

#: Requests that are taken from what was read at a time, and bytes of responses that are sent at a time.
_MOST_AT_ONCE: Final = 64
_MOST_BYTES_AT_ONCE: Final = 65_536

#: Requests that are left of those taken when the responses so far are sent: the client reads them while these
#: are handled. On one core it cannot. Measured with 64 calls at a time: docs/architecture.md.
_LEFT_WHEN_SENT: Final = 32

_NONE_TAKEN: Final = "no further requests are taken"
_UNANSWERABLE: Final = "a request failed, and no response could say so"

#: To read one from its class takes CPython 3.11 0.1 µs, and each request passes all of them.
_READING, _HANDLING, _FLUSHING, _ENDED = State.READING, State.HANDLING, State.FLUSHING, State.ENDED


class Connection(Generic[RequestT, ResponseT]):
    """Serves one connection until either side ends it. The caller closes the channel.

    Args:
        channel: the connection.
        number: what :class:`Call` names it by.
        shared: what it has in common with the server's others.
        counters: of the channel's transport.
        fields: of its log entries.

    Attributes:
        state: where it is.
        ending: what ended it, as a reason to count by and as words for the log.
    """

    def __init__(
        self,
        channel: Channel,
        number: int,
        shared: Shared[RequestT, ResponseT],
        counters: ServerCounters,
        fields: dict[str, object],
    ) -> None:
        self._channel = channel
        self._number = number
        self._shared = shared
        self._counters = counters
        self._fields = fields
        self._outbox = Outbox(channel, counters)
        self._responses = Responses(shared.contract, channel, shared.failures, fields)
        self._handler, self._observe = shared.handler, counters.handler_seconds.observe
        # trio.current_time() takes 0.1 µs longer, and would be asked twice for each request.
        self._now = trio.lowlevel.current_clock().current_time
        self._handler_timeout = shared.config.handler_timeout
        self._watch = Watch(channel, shared.watchdog, self._handler_timeout)
        self._context = contextvars.copy_context()
        self._requests: deque[bytes] = deque()
        # The one that is being answered, and whether what becomes of it is still to be counted.
        self._request: RequestT | None = None
        self._undecided = False
        self._handled_at: float  # when the last handler was done; like the next, set by the first request
        self._turn_ends: float  # when everyone else has theirs
        self._has_rested = True
        self._cancelled_at: BaseException | None = None
        self._taking = True
        self._held: Held  # when it was stopped
        self._waits_in_frame: bool | None = None  # whether the wait for a request began inside of one
        self._ends_once_sent = False
        self.state, self.ending = State.READING, (CloseReason.CUT_OFF, "the server ended")

    # --- Its life -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Go from state to state until it has ended; :attr:`ending` then says why.

        Raises nothing but what is no :exc:`Exception`, unless this package has a bug. Cancellation ends
        it at once, in the middle of a handler if need be.
        """
        try:
            self._channel.look()  # the first request is mostly there: reading would let others run before
            while self.state is not State.ENDED:
                # One scope until something has to be cancelled: one for each request would cost it 8 µs.
                with self._watch.new_scope() as scope:
                    await self._go_on()
                if scope.cancelled_caught:
                    await self._judged(self._watch.verdict)
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
        except Exception:
            self._end(CloseReason.INTERNAL_ERROR, "an internal error")
            raise
        except BaseException:
            if self._is_idle and not self._taking:
                self._end(CloseReason.STOPPED, _NONE_TAKEN)  # a stop without grace cuts nothing off here
            self._end(*self.ending)  # cut off, if nothing had ended it before
            raise
        finally:
            self._let_go()

    async def _go_on(self) -> None:
        while self.state is not _ENDED:
            if self.state is _READING:
                await self._read()
            if self.state is _HANDLING:
                await self._handle()
            if self.state is _FLUSHING:
                await self._flush()

    def finish(self) -> None:
        """Take no further request. One that is being received or handled is still answered."""
        if self._taking:
            self._taking, self._held = False, Held()
        if self._is_idle:
            self._watch.cancel(Verdict.STOPPED)

    @property
    def _is_idle(self) -> bool:
        return self.state is State.READING and not self._channel.in_frame

    async def _judged(self, verdict: Verdict | None) -> None:
        """Decide what follows from a verdict."""
        if self.state is State.READING:
            if verdict is Verdict.TIMED_OUT:
                await self._look_once_more()
            # Else it was stopped, or something has come in that moment: reading goes on, and will say.
        elif verdict is Verdict.PEER_GONE and self.state is State.HANDLING:
            said = "the client left while its handler ran; the handler was cancelled"
            self._failed(RequestFailure.CLIENT_GONE)
            self._end(CloseReason.PEER_CLOSED, said)
        elif verdict is Verdict.SEND_FAILED or verdict is Verdict.PEER_GONE:
            await self._outbox.flush()  # raises what failed
        elif verdict is Verdict.TIMED_OUT:
            self._handler_timed_out()

    def _end(self, reason: CloseReason, said: str) -> None:
        """Note what ended the connection, and what becomes of the request in hand. The first one counts."""
        if self.state is not State.ENDED:
            self.state = State.ENDED
            if not self._ends_once_sent:
                self.ending = (reason, said)
            elif reason is not self.ending[0]:
                _log.debug("the peer could not be told: %s", said, extra=self._fields)
            self._failed(lost_by(self.ending[0]))

    def _let_go(self) -> None:
        """Count what was not delivered, and free what a peer may have made large.

        Now, and not when the garbage collector comes: it counts objects, not bytes.
        """
        self._outbox.discard(lost_by(self.ending[0]))
        self._request = self._cancelled_at = None
        self._requests.clear()

    # --- READING --------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        channel, requests, self._waits_in_frame = self._channel, self._requests, None
        try:
            self._take_requests()
            while not requests:
                self._has_rested = True
                in_frame = channel.in_frame
                if in_frame is not self._waits_in_frame or self._watch.was_stopped():
                    # From its first byte on a frame has one budget for header and payload together.
                    self._watch.begin_reading()
                    self._waits_in_frame = in_frame
                if self._taking or (in_frame and self._held):
                    await channel.fill()
                    if self._watch.verdict is not None:
                        await self._watch.leave_cancelled_scope()
                elif not self._held or not await channel.fill(-math.inf):
                    self._end(CloseReason.STOPPED, _NONE_TAKEN)
                    return
                requests.extend(channel.receive_nowait(_MOST_AT_ONCE))
        except ProtocolError as exc:
            await self._watch.leave_cancelled_scope()  # in the next one it can be told
            self._violated(exc)
            return
        finally:
            self._watch.end_reading()
        if not self._taking:
            self._held.take(self._requests)  # what had come before it was stopped is answered
        self.state = _HANDLING

    def _take_requests(self) -> bool:
        if self._channel.has_input:
            self._requests.extend(self._channel.receive_nowait(_MOST_AT_ONCE))
        return bool(self._requests)

    async def _look_once_more(self) -> None:
        """See whether what was waited for has come after all: the process may have been stopped."""
        channel, was_in_frame = self._channel, bool(self._waits_in_frame)
        try:
            if self._take_requests() or channel.in_frame is not was_in_frame:
                return  # it came in that moment
            came = await channel.fill(-math.inf)
            if came and (self._take_requests() or not was_in_frame or self._watch.late >= STOPPED):
                return
        except ProtocolError as exc:
            self._violated(exc)
            return
        raise too_late(channel.read_timeout, channel.endpoint, in_frame=was_in_frame)

    def _violated(self, exc: ProtocolError) -> None:
        """Tell the peer what it did wrong, where that is still possible, and end."""
        exc.__traceback__ = None  # the channel keeps the error, which need not keep us
        self._end_after(CloseReason.PROTOCOL_ERROR, exc.message)
        theirs = exc.peer_variant if isinstance(exc, ChecksumMismatchError) else None
        ours = str(self._shared.config.crc32_variant)
        if theirs is not None:
            self._shared.variants.tell(theirs, ours, self._fields)
        self._add_failure(None, refusal(exc, theirs, ours))

    def _end_after(self, reason: CloseReason, said: str) -> None:
        """End once the responses that are made were handed over."""
        self.ending = (reason, said)
        self._ends_once_sent = True
        self.state = State.FLUSHING

    # --- HANDLING -------------------------------------------------------------------------------------------

    async def _handle(self) -> None:
        counters, requests, outbox = self._counters, self._requests, self._outbox
        decode = self._shared.contract.decode_request
        while requests:
            try:
                self._request = request = decode(requests.popleft())
            except ProtocolError as exc:
                requests.clear()
                self._violated(exc)
                return
            counters.requests += 1
            counters.requests_in_flight += 1
            self._undecided = True
            await self._answer(request)
            # Kept for as long as it is being answered, and no longer: an idle connection holds none.
            self._request = None
            del request
            if self._ends_once_sent:
                return
            if outbox.size >= _MOST_BYTES_AT_ONCE or self._handled_at >= self._turn_ends:
                break
            if (
                len(requests) == _LEFT_WHEN_SENT
                and not self._channel.has_input
                and self._shared.cores.are_two(self._handled_at)
            ):
                outbox.send_behind(self._shared.nursery, self._watch.send_failed)
        self.state = _FLUSHING

    async def _answer(self, request: RequestT) -> None:
        """Have a request handled, and put its response, or the failure for it, into the outbox."""
        try:
            began = self._now()
            if self._has_rested:
                self._has_rested = False
                self._turn_ends = began + _TURN
            try:
                run = self._context.copy().run  # what one handler sets there the next one does not see
                call = Call(self._channel.peer, began + self._handler_timeout, self._number)
                coroutine, response = run(begin, self._handler, request, call)
                if coroutine is not None:
                    response = await self._wait_for_handler(resume(coroutine, response, run), began)
            finally:
                self._handled_at = ended = self._now()
                self._observe(ended - began)
            payload = self._responses.payload(response)
        except UnsendableError as exc:
            reason = str(exc)  # a log may keep what it is given, and the error knows frames with the response
            self._failed(RequestFailure.RESPONSE_UNSENDABLE)
            self._shared.failures.write("%s", reason, extra=self._fields)
            self._add_failure(request, reason)
        except BaseException as exc:
            if not self._is_failure(exc):
                raise
            # What it raises because it was cancelled is logged, but is not its response.
            await trio.lowlevel.checkpoint_if_cancelled()
            self._failed(RequestFailure.HANDLER)
            self._add_failure(request, f"the handler failed: {describe(exc)}")
        else:
            self._undecided = False
            self._outbox.add(payload)

    async def _wait_for_handler(self, rest: Awaitable[object], began: float) -> object:
        """Wait for a handler that takes its time. What was answered before it does not wait for it."""
        self._watch.begin_handling(began)
        self._outbox.send_behind(self._shared.nursery, self._watch.send_failed)
        try:
            response = await rest
        finally:
            self._watch.end_handling()
        if self._watch.verdict is not None:
            # Though it has caught that, and returned something: it is not heard.
            await self._watch.leave_cancelled_scope()
        return response

    def _is_failure(self, exc: BaseException) -> bool:
        """Return whether this is a handler's failure, and log it; or else what has to be raised again.

        What ends the server leaves a group that it came in. Nothing here may hold on to the exception: its
        traceback knows the request.
        """
        fatal = ends_the_server(exc)
        if fatal is exc:
            return False
        if fatal is not None:
            raise fatal from exc
        if is_cancelled_here() and all(isinstance(leaf, trio.Cancelled) for leaf in leaves(exc)):
            self._cancelled_at = exc
            return not isinstance(exc, trio.Cancelled)  # a group of them becomes one at the next checkpoint
        self._shared.failures.write("the handler failed", extra=self._fields, exc_info=exc)
        forget_traceback(exc)
        return True

    def _handler_timed_out(self) -> None:
        request, self._request = self._request, None
        cancelled_at, self._cancelled_at = self._cancelled_at, None
        reason = f"the handler ran out of time, the limit is {self._handler_timeout * 1000:.0f} ms"
        self._failed(RequestFailure.HANDLER_TIMEOUT)
        self._shared.failures.write("%s", reason, extra=self._fields, exc_info=cancelled_at)
        self.state = State.FLUSHING
        self._add_failure(request, reason)

    def _add_failure(self, request: RequestT | None, reason: str) -> None:
        payload = self._context.copy().run(self._responses.failure, request, reason)
        if payload is not None:
            self._outbox.add(payload, counts=False)
        elif not self._ends_once_sent:
            self._end_after(CloseReason.UNANSWERABLE, _UNANSWERABLE)

    def _failed(self, why: RequestFailure) -> None:
        """Count the request in hand, if there is one, by what failed first."""
        if self._undecided:
            self._undecided, counters = False, self._counters
            counters.requests_in_flight -= 1
            counters.requests_failed[why] += 1
            counters.timeouts[TimeoutKind.HANDLER] += why is RequestFailure.HANDLER_TIMEOUT

    # --- FLUSHING -------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        if not self._outbox.flush_nowait():
            await self._outbox.flush()
        if self._ends_once_sent:
            self._end(*self.ending)
            return
        # Where more is in hand than was taken at a time, reading it is no wait.
        is_over = self._handled_at >= self._turn_ends and self._channel.has_input
        if self._requests or is_over:
            await trio.lowlevel.checkpoint()
            self._has_rested = True
        self.state = _HANDLING if self._requests else _READING
