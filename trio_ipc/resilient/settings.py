"""The settings of a resilient client: checked once, then frozen. Each endpoint has its own IpcConfig besides.

Defaults are DaemonEye's own where it has them. This module must never start
anything.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from trio_ipc.settings import ENV_PREFIX, Settings, WholeNumber, choice

from .balancing import Strategy


def _strategy(value: Strategy | str) -> Strategy:
    return choice(Strategy, "strategy", value)


@attrs.frozen(kw_only=True)
class ResilientConfig(Settings):
    """How a resilient client calls its servers.

    Raises:
        ConfigError: a field has a wrong value.

    Attributes:
        strategy: how calls are spread.
        call_timeout_ms: how long a call may take in all, whatever happens inside; a call may set its own.
            How long one server may take to answer is the ``read_timeout_ms`` of its endpoint, which
            should be shorter, or there is no time left to ask another.
        pool_timeout_ms: how long to wait for a connection while all that the limits allow are in use.
        max_connections: connections to all endpoints together, from being opened to being closed. None for
            ``max_connections_per_endpoint`` times the number of endpoints, and at least 16. Where it is fewer
            than the endpoints, calls go to those with a connection first.
        max_connections_per_endpoint: the same to one endpoint.
        max_in_flight: calls that may share a connection at a time. 1 for no sharing.
        idle_timeout_ms: how long a connection is kept without being used.
        lifetime_ms: how old a connection may become; it is closed when no call uses it any longer.
        connect_attempts: how often a call tries to reach a server that is not there at the moment.
        backoff_first_ms: how long it waits before the second try; twice as long before each further one,
            less a random part of up to a half.
        backoff_longest_ms: the longest such wait.
        breaker_failures: failures in a row that open an endpoint's circuit breaker.
        breaker_reset_ms: how long it stays open until one call may try again. Also how long an endpoint
            that failed counts as unhealthy, unless it succeeds meanwhile; and how long a server that closed
            one connection too many is believed to have no more places.
        breaker_successes: successes in a row that close it again.
        capabilities_refresh_ms: how long a server's capabilities are believed. They are asked for again
            after that where a connection is there; else by the next one.
    """

    _PREFIX: ClassVar[str] = f"{ENV_PREFIX}RESILIENT_"
    _TABLE: ClassVar[str] = "ipc.resilient"

    strategy: Strategy = attrs.field(default=Strategy.ROUND_ROBIN, converter=_strategy)
    call_timeout_ms: int = attrs.field(default=60_000, validator=WholeNumber("milliseconds"))
    pool_timeout_ms: int = attrs.field(default=30_000, validator=WholeNumber("milliseconds"))
    max_connections: int | None = attrs.field(
        default=None, validator=WholeNumber("connections", optional=True)
    )
    max_connections_per_endpoint: int = attrs.field(default=4, validator=WholeNumber("connections"))
    max_in_flight: int = attrs.field(default=1, validator=WholeNumber("calls"))
    idle_timeout_ms: int = attrs.field(default=300_000, validator=WholeNumber("milliseconds"))
    lifetime_ms: int = attrs.field(default=3_600_000, validator=WholeNumber("milliseconds"))
    connect_attempts: int = attrs.field(default=10, validator=WholeNumber("tries"))
    backoff_first_ms: int = attrs.field(default=100, validator=WholeNumber("milliseconds"))
    backoff_longest_ms: int = attrs.field(default=30_000, validator=WholeNumber("milliseconds"))
    breaker_failures: int = attrs.field(default=5, validator=WholeNumber("failures"))
    breaker_reset_ms: int = attrs.field(default=30_000, validator=WholeNumber("milliseconds"))
    breaker_successes: int = attrs.field(default=3, validator=WholeNumber("successes"))
    capabilities_refresh_ms: int = attrs.field(default=300_000, validator=WholeNumber("milliseconds"))
