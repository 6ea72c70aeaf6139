"""What a resilient client shows to exporters, in whatever thread they ask.

Numbers are read as they are; no connection is looked at. This module must never touch what only Trio's thread
may.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from trio_ipc.telemetry import Clock, EndpointSnapshot, ResilientSnapshot, Traffic

from .balancing import Strategy
from .breaker import BreakerState
from .endpoints import Upstream
from .metrics import ClientMetrics
from .pool import Pool


class Snapshots:
    """Takes snapshots of one client.

    Args:
        contract: its contract's name.
        strategy: how it spreads calls.
        upstreams, pool, metrics, traffic: the client's.
    """

    def __init__(
        self,
        contract: str,
        strategy: Strategy,
        *,
        upstreams: Mapping[str, Upstream],
        pool: Pool,
        metrics: ClientMetrics,
        traffic: Traffic,
    ) -> None:
        self._contract = contract
        self._strategy = strategy
        self._upstreams = upstreams
        self._pool = pool
        self._metrics = metrics
        self._traffic = traffic
        self._clock = Clock()

    def end(self) -> None:
        """Stop the uptime's clock."""
        self._clock.end()

    def take(self) -> ResilientSnapshot:
        """Return all of it as it is now."""
        metrics = self._metrics
        active, pooled = self._pool.counts(looks=False)
        endpoints = tuple(map(self._of, [*self._upstreams.values()]))
        return ResilientSnapshot(
            contract=self._contract,
            transport=", ".join(sorted({one.transport for one in endpoints})),
            strategy=str(self._strategy),
            uptime_seconds=self._clock.seconds(),
            tasks_sent=metrics.tasks_sent_total,
            tasks_completed=metrics.tasks_completed_total,
            tasks_failed=metrics.tasks_failed_total,
            task_seconds=metrics.task_duration_ms_total / 1000,
            connection_attempts=metrics.connection_attempts_total,
            connections_established=metrics.connections_established_total,
            connection_failures=metrics.connection_failures_total,
            connecting_seconds=metrics.connection_duration_ms_total / 1000,
            breaker_activations=metrics.circuit_breaker_activations_total,
            bytes_sent=self._traffic.bytes_sent,
            bytes_received=self._traffic.bytes_received,
            connections_active=active,
            connections_pooled=pooled,
            endpoints=endpoints,
        )

    def _of(self, upstream: Upstream) -> EndpointSnapshot:
        now = self._clock.now()
        active, pooled = self._pool.counts(upstream, looks=False)
        breaker = upstream.breaker.statistics(now)
        return EndpointSnapshot(
            id=upstream.endpoint.id,
            endpoint=upstream.path,
            transport=str(upstream.endpoint.config.transport),
            priority=upstream.priority,
            healthy=upstream.is_healthy(now),
            health_score=upstream.health_score(now),
            breaker=MappingProxyType({str(state): int(state is breaker.state) for state in BreakerState}),
            breaker_activations=breaker.activations,
            answers=breaker.succeeded_total,
            failures=breaker.failed_total,
            connection_failures=upstream.connection_failures,
            connections_active=active,
            connections_pooled=pooled,
        )
