"""A server played against any client: which play comes next, and when all of it is over."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

import trio

from trio_ipc.channel import close_at_once
from trio_ipc.config import Crc32Variant, IpcConfig
from trio_ipc.contract import Contract, RequestT, ResponseT, contract_of
from trio_ipc.testing.checking import check_callable, check_seconds, checked
from trio_ipc.testing.endpoints import IpcEndpoint
from trio_ipc.testing.outcome import Outcome
from trio_ipc.testing.pair import config_for
from trio_ipc.transports import LocalStream

from .answering import Answering
from .frames import End, Frame, RawConnection
from .plays import Plain, Play, all_plays
from .rules import CLIENT_RULES, Conformance, Finding, Notes

#: How many clients are served at a time. More wait in the backlog.
_MOST_CLIENTS: Final = 64

#: Seconds that are left for the response to the last request.
_LAST_RESPONSE: Final = 0.1


class _Program:
    """Which play comes next.

    Args:
        answering: the server by hand.

    Attributes:
        fitted: whether there was a play for the last request, or will be for the next one.
        is_over: set when everything was played.
    """

    def __init__(self, answering: Answering) -> None:
        self.fitted = True
        self._answering = answering
        wanted = [play for play in all_plays() if answering.notes.wanted(play.rule)]
        self._waiting = deque(wanted)
        self._playing: set[Play] = set()
        self._tried: Counter[str] = Counter()
        self._rest = True  # to begin with: how a client asks is learnt by plain answers
        self.is_over = trio.Event()

    def next(self, *, first: bool) -> Play:
        """Return what is done about the next request.

        Args:
            first: whether it is the first one of its connection. A second try waits for one.
        """
        fitting = [play for play in self._waiting if first or play.ends or not self._tried[play.rule]]
        self.fitted = bool(fitting)
        if self._rest or not fitting:
            self._rest = False
            return Plain()
        play = fitting[0]
        self._waiting.remove(play)
        self._playing.add(play)
        # A client of several tries, or with a breaker, would give up after failures in a row.
        self._rest = play.ends and self._answering.stays
        return play

    def done(self, play: Play, *, possible: bool) -> None:
        """Say that a play is over. It is played again where nothing was shown, if it may be."""
        if isinstance(play, Plain):
            return
        self._playing.discard(play)
        self._tried[play.rule] += 1
        notes = self._answering.notes
        shown = notes.is_kept(play.rule) or notes.is_broken(play.rule)
        again = play.ends or self._answering.stays
        if possible and again and not shown and self._tried[play.rule] < play.tries:
            self._waiting.appendleft(play)
        else:
            notes.tell([play.rule])
        if not self._waiting and not self._playing:
            self.is_over.set()


async def check_client(
    contract: Contract[RequestT, ResponseT],
    endpoint: IpcEndpoint,
    config: IpcConfig | None = None,
    *,
    answer: Callable[[RequestT], ResponseT] | None = None,
    hostile: bool = False,
    deadlines: bool = False,
    patience: float = 2.0,
    wait: float = 60.0,
    stop: trio.Event | None = None,
    on_finding: Callable[[Finding], object] | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    **settings: Any,
) -> Conformance:
    """Play a server against whichever client comes to an endpoint, and tell which rules it keeps.

    Each request is answered in another way. A client that asks on and on sees all of them; one that asks once
    must be run again and again: how often depends on what was asked for, and :attr:`Finding.seen` says what
    could not be seen. It ends once everything was played, or when no request comes any more that could be
    answered in a new way. A second try of some rules waits for a new connection.

    Args:
        contract: the message types.
        endpoint: where to listen.
        config: what the client is said to be set to: limits, deadlines, ``crc32_variant`` (``"auto"`` takes
            both). None for the defaults. Path and transport are the endpoint's.
        answer: makes a good response to a request; None for the contract's failure.
        hostile: whether to break the protocol as well. A client that breaks rules may break down by it.
        deadlines: whether to let a request wait for as long as the client's read deadline.
        patience: seconds in which the client has to close where it must.
        wait: seconds without such a request after which it ends.
        stop: ends it when it is set, with what was seen until then.
        on_finding: called with each finding as soon as it is final.
        task_status: ``nursery.start`` returns once clients can connect.
        settings: fields of ``config`` to change.

    Returns:
        What was found of each rule in ``CLIENT_RULES``.

    Raises:
        EndpointError: it cannot listen there.
        ConfigError: a setting is wrong.
        MessageError: a response cannot be sent.
        ContractError: a function of the contract returned what it must not.
        ValueError: ``patience`` or ``wait`` is no number of seconds.
        TypeError: what is to be called cannot be, ``answer`` made no response, or ``stop`` is no event.

    Cancellation ends it at once, and leaves nothing open or behind.
    """
    contract_of(contract)
    check_seconds("patience", patience)
    check_seconds("wait", wait)
    check_callable("answer", answer, optional=True)
    check_callable("on_finding", on_finding, optional=True)
    if stop is not None:
        checked("stop", stop, trio.Event, "a trio.Event or None")
    notes = Notes(CLIENT_RULES, hostile=hostile, deadlines=deadlines, on_finding=on_finding)
    made = config_for(endpoint, config, settings)
    answering = Answering(contract, made, patience=patience, wait=wait, answer=answer, notes=notes)
    playing = _Playing(answering)
    listener = await endpoint.listen_streams()
    try:
        task_status.started()
        await playing.run(listener, stop)
    finally:
        await close_at_once(listener)
    return notes.result(endpoint.path, "client", playing.otherwise)


class _Playing:
    """All connections of one check."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._program = _Program(answering)
        self._places = trio.CapacityLimiter(_MOST_CLIENTS)
        self._busy = 0
        self._asked_at = trio.current_time()
        self._has_come = False

    @property
    def otherwise(self) -> str:
        """Why there is nothing to be said of what was not seen."""
        if not self._has_come:
            return "no client came"
        return (
            "the client asked nothing more"
            if self._answering.stays
            else ("each connection had one request: run the client again while this listens")
        )

    async def run(self, listener: trio.abc.Listener[LocalStream], stop: trio.Event | None) -> None:
        """Serve until all of it is over."""
        with Outcome().told():
            await self._run(listener, stop)

    async def _run(self, listener: trio.abc.Listener[LocalStream], stop: trio.Event | None) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._accept, listener, nursery)
            nursery.start_soon(_cancel_after, self._program.is_over, nursery.cancel_scope, _LAST_RESPONSE)
            if stop is not None:
                nursery.start_soon(_cancel_after, stop, nursery.cancel_scope)
            await self._wait_for_nobody()
            nursery.cancel_scope.cancel()

    async def _wait_for_nobody(self) -> None:
        wait = self._answering.wait
        while True:
            if self._busy:
                self._asked_at = trio.current_time()
            left = self._asked_at + wait - trio.current_time()
            if left <= 0:
                return
            await trio.sleep(left)

    async def _accept(self, listener: trio.abc.Listener[LocalStream], nursery: trio.Nursery) -> None:
        while True:
            await self._places.acquire_on_behalf_of(place := object())
            stream = await listener.accept()
            self._has_come = True
            nursery.start_soon(self._serve, stream, place)

    async def _serve(self, stream: LocalStream, place: object) -> None:
        try:
            async with RawConnection(stream, self._answering.config.max_frame_bytes) as connection:
                await self._play(connection)
        finally:
            self._places.release_on_behalf_of(place)

    async def _play(self, connection: RawConnection) -> None:
        """Play on one connection until it is over."""
        answering, program = self._answering, self._program
        variant: Crc32Variant | None = None
        got: Frame | End | None = await connection.frame(answering.answer_within)
        while isinstance(got, Frame):
            asked = answering.judge(got, variant)
            if asked is None:
                return
            answering.stays |= not asked.first
            variant = asked.variant
            play = program.next(first=asked.first)
            if program.fitted:  # a client that asks on where nothing more can be seen is not waited for
                self._asked_at = trio.current_time()
            refused: str | None = None
            self._busy += play.ends
            try:
                refused = await play.answer(answering, connection, asked)
                if refused is not None:
                    answering.notes.not_shown(play.rule, refused)
                    await Plain().answer(answering, connection, asked)
                    got = await Plain().judge(answering, connection, asked)
                else:
                    got = await play.judge(answering, connection, asked)
            finally:
                self._busy -= play.ends
                program.done(play, possible=refused is None)
        if isinstance(got, End):
            answering.judge_end(got, connection, first=variant is None)


async def _cancel_after(event: trio.Event, scope: trio.CancelScope, seconds: float = 0.0) -> None:
    await event.wait()
    await trio.sleep(seconds)
    scope.cancel()
