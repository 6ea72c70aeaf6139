"""One call at a time, in its caller's own task: the fast way for one caller.

Whatever stops a call once its sending has begun closes the connection: the response might still come, and
would then be taken for the next one's. This module must never leave a connection open that owes a response.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from trio_ipc.channel import STOPPED, Channel, close_at_once, too_late
from trio_ipc.contract import Contract, RequestT, ResponseT, encode
from trio_ipc.errors import ChannelError, IpcError, MessageError, PeerClosedError, ProtocolError

from .batch import Batch, Exchange
from .failures import (
    answer_timed_out,
    closed_while_sending,
    closing_response,
    not_reusable,
    sending_timed_out,
    why_closed,
)
from .line import Done, Line, nobody_cares
from .turns import Turns


class Single(Line[RequestT, ResponseT]):
    """A connection that carries one call at a time.

    Its owner sees to it that there is no more than one. See :class:`Line`.

    Args:
        channel, contract: as for :class:`Line`.
        nursery: where the channel's deadlines are kept from the second call on: a task is more than the first
            one is worth. None for none.
    """

    def __init__(
        self,
        channel: Channel,
        contract: Contract[RequestT, ResponseT],
        nursery: trio.Nursery | None = None,
    ) -> None:
        super().__init__(channel, contract)
        self._nursery = nursery

    @trio.lowlevel.enable_ki_protection
    async def call(  # noqa: C901 - the path of each message: another coroutine would take its part of that
        self,
        request: RequestT,
        *,
        turns: Turns | None = None,
        deadline: float = math.inf,
        done: Done = nobody_cares,
        looked: bool = False,
    ) -> ResponseT:
        """Send a request and wait for its response; see :meth:`Line.call`.

        Cancellation once sending has begun closes the connection.
        """
        if turns is not None and not turns.take_nowait():
            await turns.wait(deadline=deadline)
        began = False
        try:
            if not looked:
                await trio.lowlevel.checkpoint_if_cancelled()
                if self._broken_by is not None or deadline < math.inf:
                    self.check_good(deadline)
            payload = encode(request)
            if not (looked or self._channel.is_reusable()):
                raise await not_reusable(self._channel, self._contract, answered=self._answered)
            if self._nursery is not None and self._answered:
                self._begin_keeping_time(self._nursery)
            try:
                # No checkpoint of its own where there is room: receive() is one.
                all_sent = self._channel.send_nowait((payload,))
                began = True
                if not all_sent:
                    await self._flush(deadline)
            except PeerClosedError as exc:
                raise await self._closed_while_sending(exc) from exc
            try:
                payload = await self._channel.receive(deadline=deadline)
            except trio.TooSlowError:
                raise answer_timed_out(self.endpoint) from None
            except PeerClosedError as exc:
                exc.hint = why_closed(self._contract, answered=self._answered)
                raise
            response = self._contract.decode_answer(request, payload)
        except BaseException as exc:
            await self._failed(exc, began=began)
            done(exc)
            raise
        self._answered = True
        done(None)
        return response

    # --- A call that begins in another thread: see direct.py ------------------------------------------------

    def begin_now(self, request: RequestT) -> bool | None:
        """Send a request, if that needs no wait and nothing has to be told. Any thread may, one at a time.

        Returns:
            Whether all of it was handed over. Then, and if it was not, :meth:`finish` or :meth:`fail` must
            follow. None where nothing was sent: :meth:`call` says why, if that is not over by then.
        """
        try:
            if self._broken_by is None and self._channel.is_reusable():
                return self._channel.send_nowait((encode(request),))
        except (MessageError, ChannelError):
            pass
        return None

    async def finish(
        self, request: RequestT, deadline: float, read_until: float, *, all_sent: bool
    ) -> ResponseT:
        """Wait for the response to what :meth:`begin_now` has sent, as :meth:`call` does.

        Args:
            request: what was sent.
            deadline: as for :meth:`call`.
            read_until: when ``read_timeout_ms`` is over for a response that was waited for and has not begun.
            all_sent: what :meth:`begin_now` has said.
        """
        try:
            if not all_sent:
                try:
                    await self._flush(deadline)
                except PeerClosedError as exc:
                    raise await self._closed_while_sending(exc) from exc
                read_until = math.inf  # nobody has waited for a response yet
            response = await self._receive_answer(request, deadline, read_until)
        except BaseException as exc:
            await self.fail(exc)
            raise
        self.answered()
        return response

    def answered(self) -> None:
        """Take note that the response to what :meth:`begin_now` has sent was read."""
        self._answered = True

    async def fail(self, exc: BaseException) -> None:
        """Close the connection, which owes a response that nobody waits for."""
        await self._failed(exc, began=True)

    async def _receive_answer(self, request: RequestT, deadline: float, read_until: float) -> ResponseT:
        # As in call(), which would take longer by one more coroutine.
        if self._channel.in_frame or trio.current_time() >= read_until + STOPPED:
            # From its first byte on a response has read_timeout_ms of its own. So it has after this process
            # was stopped, as Channel.receive() has it.
            read_until = math.inf
        try:
            payload = await self._channel.receive(deadline=min(deadline, read_until))
        except trio.TooSlowError:
            if deadline <= read_until:
                raise answer_timed_out(self.endpoint) from None
            channel = self._channel
            raise too_late(channel.read_timeout, self.endpoint, in_frame=False, peer=channel.peer) from None
        except PeerClosedError as exc:
            exc.hint = why_closed(self._contract, answered=self._answered)
            raise
        return self._contract.decode_answer(request, payload)

    @trio.lowlevel.enable_ki_protection
    async def call_many(
        self,
        batch: Batch[RequestT, ResponseT],
        *,
        turns: Turns,
        deadline: float = math.inf,
        answered: Callable[[int], None],
    ) -> None:
        """Send requests ahead of their responses; see :meth:`Line.call_many`.

        It takes one turn for all of them. Cancellation once sending has begun closes the connection.
        """
        if not turns.take_nowait():
            await turns.wait(deadline=deadline)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            self.check_good(deadline)
            if self._nursery is not None and self._answered and self._channel.is_reusable():
                # Where it is not, the exchange says what is wrong.
                self._begin_keeping_time(self._nursery)
            exchange = Exchange(
                self._channel, self._contract, batch, deadline=deadline, answered=self._answered
            )
            try:
                await exchange.run(answered)
            except BaseException as exc:
                await self._failed(exc, began=exchange.began)
                raise
            finally:
                self._answered = self._answered or bool(batch.responses)
        finally:
            turns.give_back()

    def _begin_keeping_time(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self._channel.keep_time)
        self._nursery = None

    async def _flush(self, deadline: float) -> None:
        with trio.CancelScope(deadline=deadline) as scope:
            await self._channel.flush()
        if scope.cancelled_caught:
            raise sending_timed_out(self.endpoint)

    async def _closed_while_sending(self, exc: PeerClosedError) -> PeerClosedError:
        said = await closing_response(self._channel, self._contract)
        return closed_while_sending(self._contract, exc, said, answered=self._answered)

    async def _failed(self, exc: BaseException, *, began: bool) -> None:
        """Close the connection, if what happened to a call leaves it unusable."""
        if isinstance(exc, IpcError):
            exc.endpoint = self.endpoint
        if began or isinstance(exc, ChannelError | ProtocolError):
            self._break(exc)
            await close_at_once(self._channel)
