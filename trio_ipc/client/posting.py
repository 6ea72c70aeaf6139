"""Many requests of one caller on a pipeline: each takes its turn among other callers' calls.

This module must never hold a turn that is not used, and never take a response for another request's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic

import trio

from trio_ipc.contract import RequestT, ResponseT
from trio_ipc.errors import CallTimeoutError, ChannelClosedError

from .batch import Batch
from .pending import Pending
from .slices import Slice
from .turns import Turns

if TYPE_CHECKING:
    from .pipeline import Pipeline


class Posting(Generic[RequestT, ResponseT]):
    """The requests of one :meth:`~trio_ipc.Client.call_many`.

    Args:
        pipeline: carries them.
        batch: the requests, and where their responses go.
        turns: leave to use the connection, of which each request takes one.
        deadline: when the caller's time is up, on :func:`trio.current_time`'s clock.
    """

    def __init__(
        self,
        pipeline: Pipeline[RequestT, ResponseT],
        batch: Batch[RequestT, ResponseT],
        turns: Turns,
        deadline: float,
    ) -> None:
        self._pipeline = pipeline
        self._batch = batch
        self._turns = turns
        self._deadline = deadline
        self._calls: list[Pending[RequestT, ResponseT]] = []
        self._answered: Callable[[int], None] | None = None

    @trio.lowlevel.enable_ki_protection
    async def run(self, answered: Callable[[int], None]) -> None:
        """Make the calls, and put their responses into the batch.

        Args:
            answered: told of each response. Not after the end.

        Raises what :meth:`Pipeline.call` raises. A cancellation, or the deadline, takes back what is not on
        its way.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        calls, responses, self._answered = self._calls, self._batch.responses, answered
        try:
            ended = await self._post_all()
            if calls and not await self._pipeline.wait(calls, self._deadline):
                raise self._pipeline.timed_out(calls, self._batch)
            if len(responses) < len(calls):
                calls[len(responses)].outcome()  # raises what has ended the connection
            if ended is not None:
                raise ended
        except BaseException as exc:
            self._answered = None
            self._pipeline.withdraw(calls, exc)
            raise
        finally:
            calls.clear()  # else they and done() keep each other until the garbage collector comes

    def _done(self, outcome: BaseException | None) -> None:
        self._turns.give_back()
        if outcome is None and self._answered is not None:
            responses = self._batch.responses
            responses.append(self._calls[len(responses)].outcome())
            self._answered(1)

    async def _post_all(self) -> ChannelClosedError | None:
        """Post each request when its turn has come; return why that cannot go on, if so."""
        batch, turns, calls = self._batch, self._turns, self._calls
        work = Slice()
        for request, payload in zip(batch.requests, batch.payloads, strict=True):
            if work.is_over(len(payload)):
                await work.rest()
            if not turns.take_nowait():
                try:
                    # Of those ahead some are this call's own; all of them have their deadlines.
                    await turns.wait(deadline=self._deadline, limited=not calls)
                except CallTimeoutError:
                    if not calls:
                        raise
                    raise self._pipeline.timed_out(calls, batch) from None
                work.begin()
            try:
                self._pipeline.check_good(math.inf if calls else self._deadline)
            except ChannelClosedError as exc:
                turns.give_back()
                return exc
            except BaseException:
                turns.give_back()
                raise
            calls.append(Pending(request, self._done, self._pipeline.begin, payload))
            self._pipeline.post(calls[-1])
        return None
