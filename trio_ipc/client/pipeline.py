"""Several calls at a time on one connection, each answered in its turn.

Responses come back in the order of the requests and carry no number, so that the order is all that ties
a response to its caller. One task writes, everything that waits at a time in one go; one task reads, and
gives each response to the oldest call that was sent. A caller that is cancelled after that leaves its place
behind: the response is read and dropped. This module must never give a response to another request's
caller, and never guess where a response belongs once the stream cannot be trusted.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import trio

from trio_ipc.channel import STOPPED, Channel, close_at_once, closed_here
from trio_ipc.contract import Contract, RequestT, ResponseT, encode
from trio_ipc.errors import (
    CallTimeoutError,
    ChannelClosedError,
    IpcError,
    MessageError,
    PeerClosedError,
)

from .batch import MOST_BYTES_AT_ONCE, Batch
from .failures import (
    answer_timed_out,
    closed_while_sending,
    closing_response,
    for_another,
    more_than_asked,
    no_further_turn,
    not_reusable,
    sending_timed_out,
    unsent_timed_out,
    why_closed,
)
from .line import Done, Line, nobody_cares
from .pending import Pending, first_of
from .posting import Posting
from .slices import Slice
from .turns import Turns


class Pipeline(Line[RequestT, ResponseT]):
    """A connection that several callers share. It works while :meth:`run` does. See :class:`Line`."""

    def __init__(self, channel: Channel, contract: Contract[RequestT, ResponseT]) -> None:
        super().__init__(channel, contract)
        #: What waits to be sent, in its order: a dict, from which many can be withdrawn one by one.
        self._outbox: dict[Pending[RequestT, ResponseT], None] = {}
        #: What was handed over, at least a part of it, or is about to be.
        self._in_flight: deque[Pending[RequestT, ResponseT]] = deque()
        #: What the server did not take before it closed.
        self._not_taken: list[Pending[RequestT, ResponseT]] = []
        self._to_write = trio.lowlevel.ParkingLot()
        self._to_read = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()
        self._writing_ended_by: PeerClosedError | None = None
        #: Of what is in flight the last one, while there is no room to send all of it.
        self._half_sent: Pending[RequestT, ResponseT] | None = None

    # --- For callers ---

    @trio.lowlevel.enable_ki_protection
    async def call(
        self,
        request: RequestT,
        *,
        turns: Turns | None = None,
        deadline: float = math.inf,
        done: Done = nobody_cares,
        looked: bool = False,
    ) -> ResponseT:
        """Send a request and wait for its response, while other calls do the same; see :meth:`Line.call`.

        A cancellation, or the deadline, leaves the connection and the other calls as they are.
        """
        del looked  # it is written in a later step, by another task, which looks then
        pending, has_turn = Pending(request, done, self.begin), turns is None
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            self.check_good(deadline)
            has_turn = turns is None or turns.take_nowait()
            if has_turn:
                self.post(pending)
        except BaseException as exc:
            if has_turn:
                done(exc)
            raise
        if turns is not None and not has_turn:
            await self._post_in_turn(pending, turns, deadline)
        try:
            if deadline == math.inf:
                await pending.over.wait()
            elif not await self.wait((pending,), deadline):
                if turns is not None and turns.leave(pending):
                    raise turns.no_turn(pending)
                raise self.timed_out((pending,))
        except BaseException as exc:
            if turns is None or not turns.leave(pending):
                self.withdraw((pending,), exc)
            raise
        return pending.outcome()

    async def call_many(
        self,
        batch: Batch[RequestT, ResponseT],
        *,
        turns: Turns,
        deadline: float = math.inf,
        answered: Callable[[int], None],
    ) -> None:
        """Send requests ahead of their responses, among other callers' calls; see :meth:`Line.call_many`.

        Each request takes a turn. A cancellation, or the deadline, leaves the connection and the other calls
        as they are.
        """
        await Posting(self, batch, turns, deadline).run(answered)

    @property
    def accepts_calls(self) -> bool:
        """Whether it may be called: it has not ended, and the server has not stopped reading.

        In the latter case answers are still waited for, for as long as there are any to come.
        """
        return self._ended_by() is None

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Write and read until the connection ends; then close it, and end every call that is left.

        Raises nothing, except what interrupts the contract's own functions. Cancellation closes the
        connection.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._channel.keep_time)
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._read)
        finally:
            self._break(closed_here(self.endpoint))
            await close_at_once(self._channel)
            # Only now: who hears of the end may take it that the connection is no more.
            self._fail_all()

    # --- Calls, before and while they are in flight ---

    def _ended_by(self) -> BaseException | None:
        return self._broken_by or self._writing_ended_by

    def begin(self, pending: Pending[RequestT, ResponseT]) -> bool:
        """Post a call that has got its turn, and return whether that was of use."""
        try:
            self.check_good(pending.deadline)
            self.post(pending)
        except Exception as exc:  # noqa: BLE001 - this may be the reader, and the error is the call's
            pending.fail(exc.with_traceback(None))  # it is raised in the call's own task
            return False
        return True

    async def _post_in_turn(
        self, pending: Pending[RequestT, ResponseT], turns: Turns, deadline: float
    ) -> None:
        """See to it that a call is posted in its turn. Waits only where nothing would end the call's wait."""
        if not turns.enqueue(pending, deadline=deadline):
            await turns.wait(deadline=deadline)
            if not self.begin(pending):
                turns.give_back()

    def post(self, pending: Pending[RequestT, ResponseT]) -> None:
        """Have a call sent. It is encoded only now: whatever waits for a turn takes no more than its request.

        Raises:
            MessageError: it cannot be sent.
        """
        if not pending.payload:
            try:
                pending.payload = encode(pending.request)
                self._channel.check(pending.payload)
            except MessageError as exc:
                exc.endpoint = self.endpoint
                raise
        self._outbox[pending] = None
        self._to_write.unpark()

    async def wait(self, pendings: Sequence[Pending[RequestT, ResponseT]], deadline: float) -> bool:
        """Wait until the last of these calls is over, and return whether that was in time."""
        over = pendings[-1].over
        with trio.CancelScope(deadline=deadline):
            await over.wait()
            return True
        # This process may have been stopped: let the reader take what has come meanwhile, if anything can.
        stopped = trio.current_time() >= deadline + STOPPED and pendings[0] not in self._outbox
        looks = 1 + len(self._in_flight) if stopped else 1
        while looks and not over.is_set():
            looks -= 1
            await trio.lowlevel.cancel_shielded_checkpoint()
        return over.is_set()

    def withdraw(self, pendings: Iterable[Pending[RequestT, ResponseT]], exc: BaseException) -> None:
        """Take back what is not on its way. What is keeps its place in the order."""
        for pending in pendings:
            if pending in self._outbox:
                del self._outbox[pending]
                pending.done(exc)

    def timed_out(
        self, calls: Sequence[Pending[RequestT, ResponseT]], batch: Batch[RequestT, ResponseT] | None = None
    ) -> CallTimeoutError:
        """Return the error of a call, or of a batch, by how far its first one without a response has come."""
        first, request, response = 0, "the request", "the response"
        if batch is not None:
            first = len(batch.responses)
            request, response = batch.named(first, first + 1), batch.next_response
        if first == len(calls):
            return no_further_turn(self.endpoint, request)
        if calls[first] in self._outbox:
            return unsent_timed_out(self.endpoint, request)
        if calls[first] is self._half_sent or calls[first] in self._not_taken:
            return sending_timed_out(self.endpoint, request)
        return answer_timed_out(self.endpoint, response)

    # --- Writing ---

    @trio.lowlevel.enable_ki_protection
    async def _write(self) -> None:
        work = Slice()
        while True:
            while not self._outbox:  # again: who woke this task may have been cancelled since
                await self._to_write.park()
                work.begin()
            if not self._in_flight and not self._channel.is_reusable():
                self._break(await not_reusable(self._channel, self._contract, answered=self._answered))
                return
            if not await self._write_some(first_of(self._outbox)):  # not kept: it would be while this sleeps
                return
            if work.is_over(MOST_BYTES_AT_ONCE):
                await work.rest()

    async def _write_some(self, batch: list[Pending[RequestT, ResponseT]]) -> bool:
        """Send some of what waits; return whether more may be sent."""
        self._in_flight += batch
        not_taken = batch
        try:
            # No checkpoint where there is room; waiting for what comes next is one.
            if not self._channel.send_nowait([pending.payload for pending in batch]):
                not_taken = batch[-1:]
                self._half_sent = batch[-1]
                self._to_read.unpark()  # who is answered meanwhile reads on
                await self._channel.flush()
        except PeerClosedError as exc:
            self._end_writing(exc, not_taken)
            return False
        except ChannelClosedError:
            return False  # as the reader met an error, which it is about to tell
        except IpcError as exc:
            self._break(exc)
            return False
        finally:
            self._half_sent = None
            self._to_read.unpark()
        return True

    def _end_writing(self, exc: PeerClosedError, not_taken: list[Pending[RequestT, ResponseT]]) -> None:
        """Write no more: the server has closed. What it said before can still be read, up to the end.

        Args:
            exc: how that was noticed.
            not_taken: what the server cannot have got whole, and will not answer.
        """
        exc.hint = why_closed(self._contract, answered=self._answered)
        self._writing_ended_by = exc
        for pending in reversed(not_taken):
            if self._in_flight and self._in_flight[-1] is pending:
                self._not_taken.insert(0, self._in_flight.pop())

    # --- Reading ---

    @trio.lowlevel.enable_ki_protection
    async def _read(self) -> None:
        while await self._read_some():
            pass

    async def _read_some(self) -> bool:
        """Read, and give what came to those who wait; return whether more may come."""
        while not self._expected():
            if (closed := self._writing_ended_by) is not None:
                said = await closing_response(self._channel, self._contract)
                why = closed_while_sending
                self._break(why(self._contract, closed, said, answered=self._answered) if said else closed)
                return False
            # Not receive(): it would time out a connection that is merely idle.
            await self._to_read.park()
        try:
            # All that came by one read at a time: those who waited for it call again together, and
            # go into one write.
            payloads: Sequence[bytes] = self._channel.receive_nowait(self._expected())
            if not payloads:
                payloads = (await self._channel.receive(),)
        except ChannelClosedError:
            return False  # as the writer met an error, which it is about to tell
        except IpcError as exc:
            exc.endpoint = self.endpoint
            if isinstance(exc, PeerClosedError):
                exc.hint = why_closed(self._contract, answered=self._answered)
            self._break(exc)
            return False
        return await self._give(payloads)

    def _expected(self) -> int:
        """Return how many responses the server may send. Not that of a request which it has not got whole.

        What it says then is why it is about to close.
        """
        return len(self._in_flight) - (self._half_sent is not None)

    async def _give(self, payloads: Sequence[bytes]) -> bool:
        """Give answers to the oldest calls; return whether the connection is still good."""
        surplus = len(payloads) == len(self._in_flight) and self._channel.in_frame
        work = Slice()
        for payload in payloads:
            pending = self._in_flight[0]
            try:
                response = self._contract.decode_answer(pending.request, payload)
            except (KeyboardInterrupt, SystemExit, trio.Cancelled):
                raise
            except BaseException as exc:  # noqa: BLE001 - the contract's functions are users' code
                if isinstance(exc, IpcError):
                    exc.endpoint = self.endpoint
                self._break(exc)
                return False
            self._answered = True
            self._in_flight.popleft()
            pending.response = response
            pending.over.set()
            pending.done(None)
            if work.is_over(len(payload)):
                await work.rest()
        if surplus:
            self._break(more_than_asked(self._channel, self._contract))
        return not surplus

    # --- The end ---

    def _break(self, exc: BaseException) -> None:
        if self._broken_by is None and not (self._in_flight or self._not_taken or self._outbox):
            self._untold = exc  # the next call's, which would have met it
        super()._break(exc)
        self._scope.cancel()

    def _fail_all(self) -> None:
        assert self._broken_by is not None  # noqa: S101 - run() broke it if nobody else did
        reason = self._broken_by
        in_flight, others = [*self._in_flight], [*self._not_taken, *self._outbox]
        for waiting in (self._in_flight, self._not_taken, self._outbox):
            waiting.clear()
        for number, pending in enumerate(in_flight + others):
            unsent = number >= len(in_flight)
            pending.fail(reason if number == 0 else for_another(reason, self.endpoint, unsent=unsent))
            pending.done(pending.error)
