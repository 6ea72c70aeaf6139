"""A call in the event loop itself, for asyncio programs: no thread is switched to, and none back.

As :mod:`trio_ipc.client.direct` it is for what most calls are: the connection is idle, all of the request
goes out at once, and the response comes whole and in time. Whatever else happens is left to the line, in the
Trio thread. This module must never leave a connection open that owes a response which nobody waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import trio

from trio_ipc.channel import STOPPED, Spin
from trio_ipc.client.client import seconds_of
from trio_ipc.client.direct import OTHER, Parts, closed_as
from trio_ipc.client.failures import add_limit, kind_of, no_turn
from trio_ipc.client.inflight import InFlight
from trio_ipc.contract import RequestT, ResponseT
from trio_ipc.errors import ChannelClosedError, IpcError
from trio_ipc.telemetry import CallFailure

from .watch import Watch

R = TypeVar("R")


class RunOnTrio(Protocol):
    """Has an async function run in the Trio thread, and waits for its result, as an asyncio task does."""

    async def __call__(self, function: Callable[[], Awaitable[R]], /) -> R:
        """Do that."""


class Direct(Generic[RequestT, ResponseT]):
    """Makes the calls of a client that has one in flight at a time. All of it is for the event loop's thread.

    Args:
        parts: what the client is made of.
        watch: waits for its connection.
        run: has an async function run in the Trio thread, and cancels it when this task is cancelled.
        run_whole: likewise, and never cancels it.
    """

    def __init__(
        self, parts: Parts[RequestT, ResponseT], watch: Watch, *, run: RunOnTrio, run_whole: RunOnTrio
    ) -> None:
        self._line = parts.line
        self._channel = parts.channel
        self._contract = parts.contract
        self._telemetry = parts.telemetry
        self._parts = parts
        self._watch = watch
        self._run = run
        self._run_whole = run_whole
        self._turn = asyncio.Lock()
        self._waiting = 0
        #: Whether the connection may owe a response that nobody waits for, or be in use in the Trio thread.
        #: Set before anything is sent, so that the next call finds it, whatever has ended this one.
        self._owes = False

    async def call(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as Trio's, which says what it waited for
    ) -> ResponseT:
        """Send a request and wait for its response; see :meth:`Client.call`. Cancellation closes it."""
        self._contract.check_request(request)
        telemetry = self._telemetry
        began = telemetry.now()
        deadline = math.inf if timeout is None else began + seconds_of(timeout)
        # As in the other thread, which adds to the same: Python changes threads between none of these steps.
        telemetry.calls += 1
        telemetry.calls_in_flight += 1
        try:
            await self._take_turn(deadline - began)
            try:
                response = await self._exchange(request, deadline)
            finally:
                self._turn.release()
            telemetry.call_seconds.observe(telemetry.now() - began)
        except BaseException as exc:
            kind = OTHER
            try:
                kind = _kind_of(exc)  # meanwhile an interrupt may come
            finally:
                telemetry.calls_failed[kind] += 1
                telemetry.calls_in_flight -= 1
            add_limit(exc, timeout)
            raise
        telemetry.calls_in_flight -= 1
        return response

    async def call_many(
        self,
        requests: list[RequestT],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> list[ResponseT]:
        """Send several requests ahead, in the Trio thread and in one turn; see :meth:`Client.call_many`."""
        began = self._telemetry.now()
        deadline = math.inf if timeout is None else began + seconds_of(timeout)
        if not requests:
            await asyncio.sleep(0)
            return []
        parts = self._parts
        if self._is_free:
            await self._turn.acquire()  # which does not wait
            call_many = partial(parts.call_many, requests, timeout=timeout, began=began)
            return await self._run_in_turn(call_many)
        batch = await self._run(partial(parts.batch_of, requests))  # what cannot be sent need not wait
        calls = InFlight(self._telemetry, len(batch.requests), began)
        try:
            calls.begin()
            await self._take_turn(deadline - self._telemetry.now())
            return await self._run_in_turn(partial(parts.carry, batch, calls, deadline))
        except BaseException as exc:
            calls.failed(_kind_of(exc))
            add_limit(exc, timeout)
            raise

    def close(self) -> None:
        """Stop waiting for the connection. A task that waits asks the Trio thread for its state."""
        self._watch.close()

    def give_up(self) -> None:
        """Close in whichever thread this is."""
        self._watch.give_up()

    # --- Turns ----------------------------------------------------------------------------------------------

    @property
    def _is_free(self) -> bool:
        return not (self._turn.locked() or self._waiting)

    async def _take_turn(self, left: float) -> None:
        if self._is_free:
            await self._turn.acquire()  # which does not wait
            return
        now = self._telemetry.now
        self._waiting += 1
        try:
            while True:
                began, limit = now(), self._channel.read_timeout
                try:
                    async with asyncio.timeout(min(left, limit)):
                        await self._turn.acquire()
                    return
                except TimeoutError:
                    waited = now() - began
                    if left <= limit or waited < limit + STOPPED:
                        own = None if left <= limit else limit
                        raise no_turn(self._line.endpoint, "other tasks' calls", own) from None
                left -= waited  # and wait anew: it was this process that was stopped, not the calls ahead
        finally:
            self._waiting -= 1

    async def _pay(self) -> None:
        """Close the connection if it owes a response. Cancellation ends the wait for that alone."""
        if self._owes:
            with contextlib.suppress(IpcError):  # it was closed already
                await self._run_whole(partial(self._line.fail, closed_as("cancelled", self._line.endpoint)))
            self._owes = False

    # --- A call ---------------------------------------------------------------------------------------------

    async def _exchange(self, request: RequestT, deadline: float) -> ResponseT:
        await self._pay()
        try:
            self._owes = True
            sent = self._line.begin_now(request) if self._telemetry.now() < deadline else None
            read_until = self._telemetry.now() + self._channel.read_timeout
            payload = await self._receive(min(deadline, read_until)) if sent else None
            if payload is not None:
                return await self._answer(request, payload)
        except GeneratorExit:
            raise  # the loop has ended, and nothing can be waited for any longer
        except BaseException:
            await self._pay()  # a cancellation, or one of the contract's own functions
            raise
        if sent is None:
            return await self._run_to_end(partial(self._line.call, request, deadline=deadline))
        finish = partial(self._line.finish, request, deadline, read_until, all_sent=sent)
        return await self._run_to_end(finish)

    async def _answer(self, request: RequestT, payload: bytes) -> ResponseT:
        try:
            response = self._contract.decode_answer(request, payload)
        except Exception as exc:
            with contextlib.suppress(ChannelClosedError):  # it was closed already
                await self._run_whole(partial(self._line.fail, exc))
            self._owes = False
            raise
        self._owes = False
        self._line.answered()
        return response

    async def _run_in_turn(self, function: Callable[[], Awaitable[R]]) -> R:
        """Have the Trio thread do all that this turn is for, and end it."""
        try:
            await self._pay()
            return await self._run_to_end(function)
        finally:
            self._turn.release()

    async def _run_to_end(self, function: Callable[[], Awaitable[R]]) -> R:
        """Have the Trio thread do something with the connection, which is nobody else's until that ended.

        A second cancellation does not wait for the end. anyio's come in each pass of the loop.
        """
        self._owes = True
        return await self._run(partial(self._note_end, function))

    async def _note_end(self, function: Callable[[], Awaitable[R]]) -> R:
        try:
            return await function()
        finally:
            self._owes = False  # the line has closed what had to be closed

    async def _receive(self, until: float) -> bytes | None:
        """Wait for a response; return None if none is whole and in time, or if there is an error."""
        try:
            if await self._watch.wait(max(0.0, until - self._telemetry.now())):
                payloads = self._channel.receive_nowait(1)
                return payloads[0] if payloads else None
        except IpcError:
            pass  # the line will meet it, too
        return None


def watch_of(parts: Parts[Any, Any], loop: asyncio.AbstractEventLoop) -> Watch | None:
    """Return what waits for a client's connection in an event loop; None where that cannot be."""
    channel: Any = parts.channel  # Client.direct_parts has seen to it that it has these
    channel.lend(partial(_close_in, loop))  # first: from now on this thread uses its descriptor
    try:
        sock: socket.socket = channel.second_socket()
    except (OSError, trio.ClosedResourceError):
        return None
    try:
        return Watch(sock, channel.look, Spin(channel.poll_attempts), loop)
    except (OSError, NotImplementedError):
        sock.close()
        return None


def _close_in(loop: asyncio.AbstractEventLoop, close: Callable[[], None]) -> None:
    """Close a descriptor in the event loop's thread, between two callbacks: there nothing reads from it."""
    try:
        loop.call_soon_threadsafe(close)
    except RuntimeError:  # the loop was closed, and nothing reads any longer
        close()


def _kind_of(exc: BaseException) -> CallFailure:
    return CallFailure.CANCELLED if isinstance(exc, asyncio.CancelledError) else kind_of(exc)
