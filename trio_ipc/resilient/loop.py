"""A call's whole way, from its server to its response: one loop, and what it does with what goes wrong.

It runs in the caller's own task. This module must never make a request again that may have reached a
server, unless the contract says that this is harmless; and never let a call end in anything but one response,
one error, or its caller's cancellation.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import trio
from trio.lowlevel import enable_ki_protection

from trio_ipc.client.variants import untried
from trio_ipc.contract import Contract
from trio_ipc.errors import (
    CallTimeoutError,
    ChannelClosedError,
    ChannelError,
    ConnectError,
    IpcError,
    NoEndpointError,
    OutOfResourcesError,
    PoolTimeoutError,
    ProtocolError,
)

from .balancing import Rotation, Standing
from .calls import PASSING, PendingCall, Step, backoff
from .connection import Connection
from .endpoints import Upstream, is_its_fault
from .failures import failure, is_failure, timed_out
from .metrics import ClientMetrics
from .pool import Pool, SentElsewhereError
from .settings import ResilientConfig

CLOSED: Final = "this client was closed"


class CallLoop:
    """Makes the calls of one client.

    Args:
        contract, settings, pool, metrics: the client's.
        chance: where jitter and the weighted strategy take their chances from.

    Attributes:
        upstreams: all servers, by the ids of their endpoints.
        rotation: the same, in the order of their turns.
        closed: set when the client is: every call ends then.
        now: tells the time on Trio's clock.
    """

    def __init__(
        self,
        contract: Contract[Any, Any],
        settings: ResilientConfig,
        pool: Pool,
        metrics: ClientMetrics,
        chance: random.Random,
    ) -> None:
        self._contract = contract
        self._negotiates = contract.negotiation is not None
        self._settings = settings
        self._pool = pool
        self._metrics = metrics
        self._draw = chance.random
        # Trio's own function asks two others first, and a call needs the time often.
        self.now: Callable[[], float] = trio.lowlevel.current_clock().current_time
        self.upstreams: dict[str, Upstream] = {}
        self.rotation: Rotation[Upstream] = Rotation(settings.strategy, chance.random)
        self.closed = trio.Event()

    @enable_ki_protection
    async def make(self, call: PendingCall) -> Any:
        """Go a call's whole way: choose a server, get a connection, ask, judge what came; and again."""
        self._metrics.tasks_sent_total += call.is_task
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            while True:
                now = self.now()
                upstream = self._choose(call, now)
                if upstream is None:
                    await self._pause(call)
                    continue
                known = upstream.capabilities
                try:
                    connection = self._pool.take(upstream, now)
                    # The pool has, and in the first try nobody has had a turn since this one began.
                    looked = connection is not None and len(call.steps) == 1
                    if connection is None:
                        connection, now = await self._pool.wait(upstream, call), self.now()
                except Exception as exc:  # noqa: BLE001 - raised again there, where it is the call's end
                    self._not_connected(call, upstream, exc)
                    continue
                if upstream.capabilities is not known and not self._still_will_do(call, connection, known):
                    continue
                if call.is_done is not None and call.is_done(connection):
                    self._done_without(call, connection)
                    return None
                try:
                    call.asks_on(connection, now)
                    done = partial(self._done, call, connection)
                    response = await connection.call(call.request, call.deadline, done, looked=looked)
                    return self._answered(call, response)
                except IpcError as exc:
                    self._not_answered(call, connection, exc)
                finally:
                    if call.connection is not None:
                        self._pool.leave(call)
        except BaseException as exc:
            self._failed(call, exc)
            raise

    def _choose(self, call: PendingCall, now: float) -> Upstream | None:
        if now >= call.deadline:
            raise timed_out(call)
        if call.only is not None:
            return self._only(call, call.only, now)
        judge = partial(self._standing, call, now)
        connected = self._pool.is_connected if self._pool.is_full else None
        while (upstream := self.rotation.choose(judge, now=now, is_connected=connected)) is not None:
            if call.admit(upstream):
                break
        return upstream

    def _only(self, call: PendingCall, upstream: Upstream, now: float) -> Upstream | None:
        if upstream.removed and call.errors:
            return None  # they are the call's failure
        if upstream.removed:
            raise NoEndpointError(
                f"the endpoint {upstream.endpoint.id!r} was removed from this client",
                endpoint=upstream.path,
                hint="add it again, or ask another one",
            )
        will_do = not call.is_task or self._standing(call, now, upstream) is not None
        return upstream if will_do and call.may_try(upstream) and call.admit(upstream) else None

    def _standing(self, call: PendingCall, now: float, upstream: Upstream) -> Standing | None:
        if call.tries and not call.may_try(upstream):
            return None
        standing = Standing.ABLE
        capabilities = upstream.capabilities
        if capabilities is not None and self._negotiates:
            suits = call.needs is None or call.suits(capabilities)
            if not suits or not self._contract.can_do(capabilities, call.request):
                if self.is_doubtful(upstream, now):
                    standing = Standing.PERHAPS
                elif suits:
                    standing = Standing.UNABLE
                else:
                    return None
        return standing if upstream.is_healthy(now) else Standing.FAILING

    def is_doubtful(self, upstream: Upstream, now: float) -> bool:
        """Return whether what it can do was learnt too long ago. The next connection asks first of all."""
        if upstream.capabilities_at is None:
            return False
        believed_until = upstream.capabilities_at + self._settings.capabilities_refresh_ms / 1000
        return now >= believed_until and not self._pool.has_good_connection(upstream)

    async def _pause(self, call: PendingCall) -> None:
        """Wait before the next round; where another one would be no use, raise the call's error."""
        rounds = self._settings.connect_attempts if call.is_task else 1
        if not call.next_round(rounds):
            if not call.errors and self.upstreams:
                known = len(self.upstreams)
                none = "the only endpoint has not" if known == 1 else f"none of the {known} endpoints has"
                raise NoEndpointError(
                    f"{none} what the call needs"
                    if call.only is None
                    else f"the endpoint {call.only.endpoint.id!r} has not what the call needs",
                    endpoint=None if call.only is None else call.only.path,
                    hint="see statistics() for what each can do",
                )
            error = failure(call.errors)
            raise error from error.__cause__
        now = trio.current_time()
        call.at(Step.PAUSING, None, now)
        again = now + backoff(call.round - 1, self._settings, self._draw())
        with trio.CancelScope(deadline=min(again, call.deadline)):
            await self.closed.wait()
        if self.closed.is_set():
            raise ChannelClosedError(CLOSED, hint="open a new one")
        if trio.current_time() >= call.deadline:
            raise timed_out(call)

    # --- Judging what came ------------------------------------------------------------------------------

    @staticmethod
    def _not_connected(call: PendingCall, upstream: Upstream, exc: Exception) -> None:
        """Note why there is no connection; raise what ends the call: nothing was sent."""
        if isinstance(exc, SentElsewhereError):
            call.not_asked(upstream)
        elif isinstance(exc, PoolTimeoutError):
            call.give_up(upstream, exc)
        elif isinstance(exc, PASSING):
            call.not_reached(upstream, exc)
        elif isinstance(exc, OutOfResourcesError):
            call.not_tried(upstream, exc)
        elif isinstance(exc, ChannelClosedError):  # so is this client
            raise exc
        elif isinstance(exc, (ConnectError, ChannelError, ProtocolError)):
            call.failed(upstream, exc)
        else:
            raise exc

    def _still_will_do(
        self,
        call: PendingCall,
        connection: Connection,
        known: Any,
    ) -> bool:
        """Return whether a server will do that has said meanwhile what it can do; if not, leave it.

        There may be one that can. If not, this one's refusal is the response.
        """
        capabilities, will_do = connection.upstream.capabilities, False
        if not self._negotiates or not call.is_task:
            return True
        try:
            seemed_able = known is None or self._contract.can_do(known, call.request)
            will_do = call.suits(capabilities) and (
                not seemed_able or self._contract.can_do(capabilities, call.request)
            )
        finally:
            if not will_do:  # also where these functions raise, which are users' code
                self._pool.release(connection, self.now())
        if not will_do:
            call.not_asked(connection.upstream)
        return will_do

    @enable_ki_protection
    def _done(
        self,
        call: PendingCall,
        connection: Connection,
        outcome: BaseException | None,
    ) -> None:
        """A call takes no place on its connection any longer: note how the server did, and give the place.

        In this order, or who waits would be given a server that is known to hang.
        """
        now = self.now()
        call.connection = None
        connection.left -= call.has_left
        if call.is_late:
            pass  # what comes now is too late to say more
        elif outcome is None:
            if not connection.has_answered:
                connection.answered()
            connection.upstream.succeeded(now)
        elif isinstance(outcome, trio.Cancelled):
            if now >= call.deadline:
                connection.upstream.failed()
        elif is_its_fault(outcome):
            if not connection.has_answered:
                variants = connection.upstream.variants
                connection.was_refused = variants.tries_other(
                    connection.variant, outcome
                ) or self._pool.is_full_after(connection, outcome)
            if not connection.was_refused:
                connection.upstream.failed()
        self._pool.release(connection, now, used=call.is_task)

    def _not_answered(
        self,
        call: PendingCall,
        connection: Connection,
        exc: IpcError,
    ) -> None:
        """Note why there is no response; raise what ends the call: the server may have done the work."""
        if isinstance(exc, CallTimeoutError):
            call.overdue()
            raise timed_out(call) from None
        if self.closed.is_set():
            raise ChannelClosedError(CLOSED, hint="open a new one") from exc
        if not isinstance(exc, (ChannelError, ProtocolError)):
            raise exc
        if connection.was_refused and call.repeatable:
            call.not_asked(connection.upstream)  # there are other connections, for which it can wait
            return
        # One connection that breaks is one failure, however many calls were on it.
        is_known = connection.failure_told or connection.was_refused
        connection.failure_told = True
        call.not_answered(connection.upstream, exc, is_known=is_known)
        if not call.repeatable:
            if connection.was_refused and not connection.upstream.variants.is_known:
                exc.hint = untried(connection.variant)
            error = failure(call.errors)
            raise error from error.__cause__

    # --- The end ----------------------------------------------------------------------------------------

    def _answered(self, call: PendingCall, response: Any) -> Any:
        call.answered()
        if call.is_task:
            self._metrics.tasks_completed_total += 1
            self._metrics.task_duration_ms_total += (self.now() - call.began) * 1000
        return response

    def _done_without(self, call: PendingCall, connection: Connection) -> None:
        """All that was wanted was learnt while the connection was got."""
        call.asked = connection
        now = self.now()
        connection.upstream.succeeded(now)
        self._pool.release(connection, now, used=False)
        self._answered(call, None)

    def _failed(self, call: PendingCall, exc: BaseException) -> None:
        if isinstance(exc, trio.Cancelled) and trio.current_time() >= call.deadline:
            call.overdue()  # the caller's own deadline was the same
        # A call that was cancelled, or ends with its client, says nothing about anyone.
        call.end(abandoned=self.closed.is_set() or not is_failure(exc))
        self._metrics.tasks_failed_total += call.is_task
