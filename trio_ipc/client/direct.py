"""A call in its caller's own thread, for synchronous programs: no thread is switched to, and none back.

It is for what most calls are: the connection is idle, all of the request goes out at once, and the response
comes whole and in time. Whatever else happens is left to the line, in the Trio thread, which decides and
tells what it means: deadlines, broken frames, closing. This module must never do that itself, and never leave
a connection open that owes a response.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

import attrs

from trio_ipc.channel import STOPPED, Channel
from trio_ipc.contract import Contract, RequestT, ResponseT
from trio_ipc.errors import ChannelClosedError, IpcError
from trio_ipc.telemetry import CallFailure, ClientTelemetry

from .batch import Batch
from .client import seconds_of
from .failures import add_limit, kind_of, no_turn
from .inflight import InFlight
from .single import Single

R = TypeVar("R")


class RunOnTrio(Protocol):
    """Has an async function run in the Trio thread, and waits for its result."""

    def __call__(self, function: Callable[[], Awaitable[R]], /) -> R:
        """Do that."""


class CallMany(Protocol[RequestT, ResponseT]):
    """Sends several requests ahead, on Trio, whose time began in another thread."""

    async def __call__(
        self,
        requests: list[RequestT],
        *,
        timeout: float | None,  # noqa: ASYNC109 - as Client.call_many has it
        began: float,
    ) -> list[ResponseT]:
        """Do that."""


#: Seconds after which a wait looks again whether its connection was closed: another thread may close it just
#: before the wait begins, which then nothing would end.
_LOOK_AGAIN: Final = 1.0

#: What a call counts as until its failure was judged. Looking it up runs Python code, which an interrupt may
#: cut short.
OTHER: Final = CallFailure.OTHER

_Wait: TypeAlias = Callable[[float], bool]


@attrs.frozen(kw_only=True)
class Parts(Generic[RequestT, ResponseT]):
    """What a client with one call in flight at a time is made of, for who makes its calls elsewhere.

    Attributes:
        line, channel, contract, telemetry: the client's.
        call_many: makes its calls of several requests, which are the two steps that follow.
        batch_of: encodes them, and raises where one cannot be sent.
        carry: sends them, by a deadline, and returns the responses. It counts what was not counted yet.
    """

    line: Single[RequestT, ResponseT]
    channel: Channel
    contract: Contract[RequestT, ResponseT]
    telemetry: ClientTelemetry
    call_many: CallMany[RequestT, ResponseT]
    batch_of: Callable[[list[RequestT]], Awaitable[Batch[RequestT, ResponseT]]]
    carry: Callable[[Batch[RequestT, ResponseT], InFlight, float], Awaitable[list[ResponseT]]]


class Direct(Generic[RequestT, ResponseT]):
    """Makes the calls of a client that has one in flight at a time.

    Args:
        parts: what the client is made of.
        run: has an async function run in the Trio thread, and cancels it at an interrupt.
        run_whole: likewise, and never cancels it.
    """

    def __init__(self, parts: Parts[RequestT, ResponseT], *, run: RunOnTrio, run_whole: RunOnTrio) -> None:
        self._line = parts.line
        self._channel = parts.channel
        self._contract = parts.contract
        self._telemetry = parts.telemetry
        self._parts = parts
        self._run = run
        self._run_whole = run_whole
        #: One that knows its owner: an interrupt may come between its taking and whatever would note that. It
        #: is given back by the first call in a ``finally``, and by a function in C: before that Python looks
        #: for no signal.
        self._turn = threading.RLock()
        #: Whether the connection may owe a response, or be in use in the Trio thread. Set before anything is
        #: sent, so that an interrupt at any point finds it, or the next call does.
        self._owes = False
        #: Closes the descriptor of a connection that was closed while a thread had its turn, and may have
        #: been reading.
        self._descriptor: Callable[[], None] | None = None
        parts.channel.lend(self._close_when_free)  # type: ignore[attr-defined]  # see Client.direct_parts

    def call(self, request: RequestT, *, timeout: float | None = None) -> ResponseT:
        """Send a request and wait for its response; see :meth:`Client.call`. An interrupt closes it."""
        self._contract.check_request(request)
        telemetry = self._telemetry
        began = telemetry.now()
        deadline = math.inf if timeout is None else began + seconds_of(timeout)
        # Outside the turn, as what waits for one is counted, too. Python changes threads between none of the
        # steps that such an addition takes.
        telemetry.calls += 1
        telemetry.calls_in_flight += 1
        try:
            self._take_turn(deadline - began)
            response = self._exchange(request, deadline)
            telemetry.call_seconds.observe(telemetry.now() - began)
        except BaseException as exc:
            kind = OTHER
            try:
                kind = kind_of(exc)  # meanwhile another interrupt may come
            finally:
                telemetry.calls_failed[kind] += 1
                telemetry.calls_in_flight -= 1
            add_limit(exc, timeout)
            raise
        else:
            telemetry.calls_in_flight -= 1
            return response
        finally:
            try:  # noqa: SIM105 - as _turn says
                self._turn.release()
            except RuntimeError:
                pass  # it was not taken
            if self._descriptor is not None:
                self._close_descriptor()

    def call_many(self, requests: list[RequestT], *, timeout: float | None = None) -> list[ResponseT]:
        """Send several requests ahead, in the Trio thread and in one turn; see :meth:`Client.call_many`."""
        began = self._telemetry.now()
        deadline = math.inf if timeout is None else began + seconds_of(timeout)
        if not requests:
            return []
        parts = self._parts
        try:
            if self._turn.acquire(timeout=0):
                self._check_not_inside()
                self._pay()
                return self._run_to_end(partial(parts.call_many, requests, timeout=timeout, began=began))
            batch = self._run(partial(parts.batch_of, requests))  # what cannot be sent need not wait
            calls = InFlight(self._telemetry, len(batch.requests), began)
            try:
                calls.begin()
                self._take_turn(deadline - self._telemetry.now())
                self._pay()
                return self._run_to_end(partial(parts.carry, batch, calls, deadline))
            except BaseException as exc:
                calls.failed(kind_of(exc))
                add_limit(exc, timeout)
                raise
        finally:
            try:  # noqa: SIM105 - as _turn says
                self._turn.release()
            except RuntimeError:
                pass  # it was not taken
            if self._descriptor is not None:
                self._close_descriptor()

    # --- Turns ----------------------------------------------------------------------------------------------

    def _take_turn(self, left: float) -> None:
        now = self._telemetry.now
        while True:
            began, limit = now(), self._channel.read_timeout
            if self._turn.acquire(timeout=max(0.0, min(left, limit))):
                return
            waited = now() - began
            if left <= limit or waited < limit + STOPPED:
                raise no_turn(self._line.endpoint, "other threads' calls", None if left <= limit else limit)
            left -= waited  # and wait anew: it was this process that was stopped, not the calls ahead

    def _check_not_inside(self) -> None:
        """Raise :exc:`IpcError` where this thread is in the middle of another call.

        A signal handler, a finalizer or a contract's function has come into that one. The turn is its
        thread's already, and so is what the connection owes. This looks at the frames, because an interrupt
        could leave a flag wrong; and only where the connection owes something, because it takes time.
        """
        if not self._owes:
            return
        codes, inside = (Direct.call.__code__, Direct.call_many.__code__), -1  # less the call that asks
        frame = sys._getframe()  # noqa: SLF001 - documented
        while frame.f_back is not None:
            frame = frame.f_back
            inside += frame.f_code in codes and frame.f_locals.get("self") is self
        if inside > 0:
            raise IpcError(
                "it was called in the middle of a call of the same thread",
                endpoint=self._line.endpoint,
                hint="a contract's functions must not call; signal handlers need a max_in_flight above 1",
            )

    def _pay(self) -> None:
        """Close the connection if an interrupt has left it owing a response. A second one does not wait."""
        if self._owes:
            with contextlib.suppress(IpcError):  # it was closed already
                self._run_whole(partial(self._line.fail, closed_as("interrupted", self._line.endpoint)))
            self._owes = False

    def _close_when_free(self, close: Callable[[], None]) -> None:
        """Close a descriptor, in the Trio thread, or leave that to the thread that has its turn."""
        self._descriptor = close
        self._close_descriptor()

    def _close_descriptor(self) -> None:
        # A thread that has its turn looks here once more, after it has given that back.
        if self._turn.acquire(timeout=0):
            try:
                close, self._descriptor = self._descriptor, None
                if close is not None:
                    close()
            finally:
                self._turn.release()

    # --- A call ---------------------------------------------------------------------------------------------

    def _exchange(self, request: RequestT, deadline: float) -> ResponseT:
        self._check_not_inside()
        self._pay()
        try:
            self._owes = True
            sent = self._line.begin_now(request) if self._telemetry.now() < deadline else None
            read_until = self._telemetry.now() + self._channel.read_timeout
            payload = self._receive(min(deadline, read_until)) if sent else None
            if payload is not None:
                return self._answer(request, payload)
        except BaseException:
            self._pay()  # an interrupt, or one of the contract's own functions
            raise
        if sent is None:
            return self._run_to_end(partial(self._line.call, request, deadline=deadline))
        return self._run_to_end(partial(self._line.finish, request, deadline, read_until, all_sent=sent))

    def _answer(self, request: RequestT, payload: bytes) -> ResponseT:
        try:
            response = self._contract.decode_answer(request, payload)
        except Exception as exc:
            with contextlib.suppress(ChannelClosedError):  # it was closed already
                self._run_whole(partial(self._line.fail, exc))
            self._owes = False
            raise
        self._owes = False
        self._line.answered()
        return response

    def _run_to_end(self, function: Callable[[], Awaitable[R]]) -> R:
        """Have the Trio thread do something with the connection, which is nobody else's until that ended.

        A second interrupt does not wait for the end.
        """
        self._owes = True
        return self._run(partial(self._note_end, function))

    async def _note_end(self, function: Callable[[], Awaitable[R]]) -> R:
        try:
            return await function()
        finally:
            self._owes = False  # the line has closed what had to be closed

    def _receive(self, until: float) -> bytes | None:
        """Wait for a response; return None if none is whole and in time, or if there is an error."""
        block_and_look: _Wait = self._channel.block_and_look  # type: ignore[attr-defined]  # Client.direct
        now = self._telemetry.now
        try:
            while (left := until - now()) > 0:
                if block_and_look(min(left, _LOOK_AGAIN)):
                    payloads = self._channel.receive_nowait(1)
                    return payloads[0] if payloads else None
        except IpcError:
            pass  # the line will meet it, too
        return None


def closed_as(ended: str, endpoint: str) -> ChannelClosedError:
    """Return the error for a connection that is closed because of a call that has no response yet.

    Args:
        ended: how the call ended, in a word.
        endpoint: where the connection leads.
    """
    return ChannelClosedError(
        f"this connection was closed: a call on it was {ended}",
        endpoint=endpoint,
        hint="open a new client",
    )
