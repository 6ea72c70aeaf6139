"""Asks servers what they can do, beside what a new connection asks first of all.

:class:`Asker` asks because somebody wants to know; :class:`Refresher` so that what is known stays fresh, over
connections that are there. Nothing is connected for that alone: where there is no connection, the next one
will ask. This module must never end the client, whatever a server or the contract's functions do.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final, TypeAlias

import trio
from trio.lowlevel import enable_ki_protection

from trio_ipc.contract import Contract
from trio_ipc.errors import ContractError, IpcError
from trio_ipc.logs import Log

from .calls import PendingCall
from .connection import Connection
from .endpoints import Upstream
from .failures import is_failure
from .settings import ResilientConfig
from .together import together

_log = Log(__name__)

_BROKEN: Final = "the contract's negotiation failed"

#: Makes a call, and returns its response.
Caller: TypeAlias = Callable[[PendingCall], Awaitable[Any]]


def is_health_check(contract: Contract[Any, Any]) -> bool:
    """Return whether the contract's negotiation is its health check as well."""
    negotiation, health = contract.negotiation, contract.health
    return negotiation is not None and health is not None and negotiation.ask == health.ask


class _Question:
    """One wish to know what a server can do, which somebody else's question may meet as well.

    Attributes:
        number: of the question that was asked for it, 0 while none was.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._asked_before = upstream.questions
        self.number = 0

    def is_answered(self, _: Connection) -> bool:
        """Return whether a question was answered that was asked since; if not, this one is asked now."""
        if self._upstream.answered_question > self._asked_before:
            return True
        self.number = self._upstream.next_question()
        return False


class Asker:
    """Asks servers what they can do.

    Args:
        contract: how they are asked.
        call: makes a call.
    """

    def __init__(self, contract: Contract[Any, Any], call: Caller) -> None:
        self._contract = contract
        self._call = call

    @enable_ki_protection
    async def ask(self, upstream: Upstream, seconds: float, *, may_connect: bool) -> Any:
        """Ask one server, and return what it says, which is noted as well.

        A connection that is opened for it may ask first of all. Then that is the response.

        Args:
            upstream: whom.
            seconds: how long that may take.
            may_connect: whether a connection may be opened for it.

        Raises:
            IpcError: as a call raises it.

        Cancellation closes the connection that waits for the response, unless others share it.
        """
        question = _Question(upstream)
        call = PendingCall(
            self._contract.capabilities_request(),
            began=trio.current_time(),
            seconds=seconds,
            repeatable=True,
            only=upstream,
            is_task=False,
            may_connect=may_connect,
            is_done=question.is_answered,
        )
        response = await self._call(call)
        if response is not None:
            assert call.asked is not None  # noqa: S101 - for the type checker: there is a response
            capabilities = self._contract.capabilities_in(response)
            upstream.learned(capabilities, question=question.number, process=call.asked.process)
        return upstream.capabilities

    @enable_ki_protection
    async def ask_all(self, upstreams: Iterable[Upstream], seconds: float) -> dict[str, IpcError]:
        """Ask several at the same time, and return why some could not be asked, by their ids.

        Raises:
            ContractError: the contract's functions returned what they must not. What they raise comes out as
                it is.

        Cancellation as in :meth:`ask`.
        """
        failures: dict[str, IpcError] = {}

        @enable_ki_protection
        async def ask(upstream: Upstream) -> None:
            try:
                await self.ask(upstream, seconds, may_connect=True)
            except ContractError:
                raise
            except IpcError as exc:
                if not upstream.removed:
                    failures[upstream.endpoint.id] = exc

        await together([partial(ask, upstream) for upstream in upstreams])
        return failures


class Refresher:
    """Keeps what is known of servers fresh.

    Args:
        asker: asks them.
        settings: how often, and how long a response may take.
        has_connection: says whether there is a connection to ask by.
    """

    def __init__(
        self, asker: Asker, settings: ResilientConfig, *, has_connection: Callable[[Upstream], bool]
    ) -> None:
        self._asker = asker
        self._believed = settings.capabilities_refresh_ms / 1000
        self._timeout = settings.call_timeout_ms / 1000
        self._has_connection = has_connection

    @enable_ki_protection
    async def run(self, upstream: Upstream) -> None:
        """Ask a server every so often, until its keeper is cancelled."""
        with upstream.keeper:
            due = math.inf
            while True:
                with trio.CancelScope(deadline=due):
                    await upstream.news.wait()
                upstream.news = trio.Event()
                # A connection that is being opened may ask just now. Nobody is kept from asking meanwhile:
                # a call in the queue sees in the end whether that was done.
                async with upstream.asking:
                    pass
                due = await self._look(upstream)

    async def _look(self, upstream: Upstream) -> float:
        """Ask if it is time, and return when it will be time again."""
        learnt_at = upstream.capabilities_at
        due = math.inf if learnt_at is None else learnt_at + self._believed
        if not upstream.owes_answer and due > trio.current_time():
            return due
        if not self._has_connection(upstream):
            return math.inf  # the next one asks, and that is news
        upstream.owes_answer = False
        await self._ask(upstream)
        return trio.current_time() + self._believed

    async def _ask(self, upstream: Upstream) -> None:
        fields = {"endpoint": upstream.path}
        try:
            await self._asker.ask(upstream, self._timeout, may_connect=False)
        except ContractError:
            _log.exception(_BROKEN, extra=fields)
        except IpcError as exc:
            # What it says about the server is noted; the next connection will ask again. Its text may
            # hold what the server sent, and no payload is logged.
            _log.debug("capabilities were not refreshed: %s", type(exc).__name__, extra=fields)
        except BaseException as exc:
            if not is_failure(exc):
                raise
            # The contract's functions are users' code; what they raise must not end the client.
            _log.exception(_BROKEN, extra=fields)
