"""A server as the client knows it: where it is, how it does, what it can do.

:class:`Endpoint` is what the user says, :class:`EndpointStatistics` what the user is told, and
:class:`Upstream` what the client keeps between the two. This module must never open a connection.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import trio

from trio_ipc.config import IpcConfig, checked_config
from trio_ipc.errors import ChannelClosedError, ContractError, IpcError, MessageError, OutOfResourcesError
from trio_ipc.settings import WholeNumber, refuse

from .balancing import Candidate, Strategy, score
from .breaker import BreakerStatistics, CircuitBreaker
from .settings import ResilientConfig
from .variants import Variants


def _default_id(endpoint: Endpoint) -> str:
    return endpoint.config.endpoint_path


def _is_text(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise refuse(field.name, value, "a str")


@attrs.frozen
class Endpoint:
    """Where a server is to be found.

    Raises:
        ConfigError: the priority is none, or the id is no str.
        TypeError: the config is none.

    Attributes:
        config: its path, and the limits and deadlines of connections to it.
        id: what statistics and answers call it; its path if it is not given.
        priority: 1 or more; a smaller number is asked first. Half the number is twice the share where
            the strategy is "weighted".
    """

    # A converter, as the default of the id looks at it before any validator does.
    config: IpcConfig = attrs.field(converter=checked_config)
    id: str = attrs.field(
        default=attrs.Factory(_default_id, takes_self=True), validator=_is_text, kw_only=True
    )
    priority: int = attrs.field(default=1, validator=WholeNumber("ranks"), kw_only=True)


@attrs.frozen(kw_only=True)
class EndpointStatistics:
    """How an endpoint does, at one moment. Times are on :func:`trio.current_time`'s clock, in seconds.

    Attributes:
        endpoint: as it was added, with its priority as it is now.
        healthy: whether calls are expected to succeed: its circuit breaker lets them through, and it did
            not fail just before.
        health_score: what strategies by score go by: ``1 / priority``, up to twice that the more recent the
            last response is (that decays to 1/e in 300 s); 0 while it is not healthy, as DaemonEye has it.
        strategy: how the client spreads its calls over the endpoints.
        breaker: its circuit breaker.
        answers, failures: calls that it answered; calls that it failed, as it could not be reached, broke
            off or did not answer in time. One for each call and each refresh of capabilities, however
            many tries it took: its breaker is told the same. A call that was cancelled is neither.
        connection_failures: failed attempts to connect to it, for whatever reason, several for
            a call that tries several times. Over all endpoints they are ``connection_failures_total``.
        last_success, last_failure: when it last answered, and when a try last failed; None if never.
        connections_active, connections_pooled: those in use, and those kept that are still good.
        capabilities: what it said that it can do, None while it was not asked.
        capabilities_at: when it said so.
        capabilities_stale: whether that is longer ago than ``capabilities_refresh_ms``, and no connection
            is there to ask by. Calls that go by it only prefer others; the next connection asks first.
    """

    endpoint: Endpoint
    healthy: bool
    health_score: float
    strategy: Strategy
    breaker: BreakerStatistics
    answers: int
    failures: int
    connection_failures: int
    last_success: float | None
    last_failure: float | None
    connections_active: int
    connections_pooled: int
    capabilities: Any
    capabilities_at: float | None
    capabilities_stale: bool


class Upstream(Candidate):
    """What a client knows of one endpoint.

    Args:
        endpoint: as the user gave it.
        settings: the client's.
        on_open: called each time its breaker opens.
        on_failure: called each time it is found not to be well.

    Attributes:
        endpoint: as given, with its priority as it is now.
        path: the endpoint's.
        breaker: whether it may be called at all.
        capabilities, capabilities_at: what it said that it can do, and when.
        questions: how often it was asked what it can do; also the number of the question asked last.
        answered_question: the number of the latest question that it has answered.
        connections_made: how many connections were made to it.
        news: set when there is something for its keeper: it has said what it can do, or has to be asked.
        owes_answer: whether a connection was opened that has not asked, though a response is due: another one
            waited for it, which may never come, or what was known grew old meanwhile.
        asks_anew: whether the next connection has to ask for them: the server was lost since.
        asking: held by the connection that asks; others wait for what it learns.
        told_by: the process that said what it can do, None where the system does not tell.
        variants: which checksum variant it speaks.
        places_proven: how many connections it has served at a time since it was last lost.
        connection_failures: failed attempts to connect.
        removed: set when it is no longer to be used.
        keeper: what is done for it in the background, to be cancelled when it is removed.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        settings: ResilientConfig,
        *,
        on_open: Callable[[], None],
        on_failure: Callable[[Upstream], None],
    ) -> None:
        super().__init__(endpoint.priority)
        self.endpoint = endpoint
        self.path = endpoint.config.endpoint_path
        self.breaker = CircuitBreaker(
            failures_to_open=settings.breaker_failures,
            reset_after=settings.breaker_reset_ms / 1000,
            successes_to_close=settings.breaker_successes,
            on_open=on_open,
        )
        self.capabilities: Any = None
        self.capabilities_at: float | None = None
        self.questions = self.answered_question = 0
        self.connections_made = 0
        self.news = trio.Event()
        self.owes_answer = False
        self.asks_anew = False
        self.asking = trio.Lock()
        self.told_by: int | None = None
        self.places_proven = 0
        self.variants = Variants(endpoint.config.crc32_variant)
        self.connection_failures = 0
        self.removed = False
        self.keeper = trio.CancelScope()
        self._on_failure = on_failure
        self._unhealthy_for = settings.breaker_reset_ms / 1000
        self._unhealthy_until = -math.inf

    def is_healthy(self, now: float) -> bool:
        """Return whether calls are expected to succeed.

        One that failed is given another chance after a while: without calls it could never show that it is
        well.
        """
        return now >= self._unhealthy_until and self.breaker.would_admit_at(now)

    def succeeded(self, now: float) -> None:
        """Note that it is well: it has done what it should."""
        self._unhealthy_until = -math.inf
        self.last_success = now

    def failed(self) -> None:
        """Note that it is not well: it could not be reached, broke off, or did not answer in time.

        May be said several times of one failure. Those are counted by the breaker's verdicts.
        """
        self.lost()
        self.last_failure = trio.current_time()
        self._unhealthy_until = self.last_failure + self._unhealthy_for
        self._on_failure(self)

    def lost(self) -> None:
        """Note that it may be another server by now, which can do other things."""
        self.asks_anew = True
        self.places_proven = 0
        self.variants.doubt()

    def next_question(self) -> int:
        """Return the number of a question that is about to be asked."""
        self.questions += 1
        return self.questions

    def learned(self, capabilities: Any, *, question: int, process: int | None) -> None:
        """Note what it said that it can do.

        Args:
            capabilities: what it said.
            question: the number of the question that it has answered.
            process: which process has answered, None where the system does not tell.
        """
        if question < self.answered_question:
            return  # a later one was answered sooner
        self.asks_anew = self.owes_answer = False
        self.capabilities = capabilities
        self.capabilities_at = trio.current_time()
        self.answered_question = question
        self.told_by = process
        self.news.set()

    def wants_answer(self) -> None:
        """Note that a connection was opened which has not asked, though a response is due."""
        self.owes_answer = True
        self.news.set()

    def health_score(self, now: float) -> float:
        """Return its score, 0 while it is not healthy."""
        return score(self, now) if self.is_healthy(now) else 0.0

    def statistics(self, *, active: int, pooled: int, stale: bool, strategy: Strategy) -> EndpointStatistics:
        """Return how it does now, with what only the client knows."""
        breaker, now = self.breaker.statistics(), trio.current_time()
        return EndpointStatistics(
            endpoint=self.endpoint,
            healthy=self.is_healthy(now),
            health_score=self.health_score(now),
            strategy=strategy,
            breaker=breaker,
            answers=breaker.succeeded_total,
            failures=breaker.failed_total,
            connection_failures=self.connection_failures,
            last_success=self.last_success,
            last_failure=self.last_failure,
            connections_active=active,
            connections_pooled=pooled,
            capabilities=self.capabilities,
            capabilities_at=self.capabilities_at,
            capabilities_stale=stale,
        )


def is_its_fault(outcome: BaseException) -> bool:
    """Return whether a try that ended by this exception is a failure of the server.

    A :exc:`MessageError` is the request's fault, a :exc:`ChannelClosedError` says that this side has closed,
    and an :exc:`OutOfResourcesError` that it has no descriptor left. A :exc:`ContractError`, and what is
    no :exc:`IpcError`, came out of users' code.
    """
    ours = (MessageError, ChannelClosedError, ContractError, OutOfResourcesError)
    return isinstance(outcome, IpcError) and not isinstance(outcome, ours)
