"""What exporters get to see of a resilient client: frozen copies, and the metrics that they are.

docs/telemetry.md says what each field counts. This module must never know who counts, or when.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import attrs

from .kinds import Kind, Metric
from .snapshot import AsDict, Counts


@attrs.frozen(kw_only=True)
class EndpointSnapshot(AsDict):
    """One endpoint of a resilient client at one moment.

    Attributes:
        id, endpoint, transport: its id, where it is, and the transport that leads there.
        priority: a smaller number is asked first.
        healthy: whether calls are expected to succeed.
        health_score: what strategies by score go by, 0 while it is not healthy.
        breaker: its circuit breaker: 1 for the state that it is in, 0 for the others.
        breaker_activations: how often that has opened.
        answers, failures: calls, refreshes and negotiations that it answered, and failed.
        connection_failures: failed attempts to connect to it.
        connections_active, connections_pooled: those in use, and those kept for the next call.
    """

    id: str
    endpoint: str
    transport: str
    priority: int
    healthy: bool
    health_score: float
    breaker: Counts
    breaker_activations: int
    answers: int
    failures: int
    connection_failures: int
    connections_active: int
    connections_pooled: int


@attrs.frozen(kw_only=True)
class ResilientSnapshot(AsDict):
    """A resilient client at one moment.

    Whenever a snapshot is taken in Trio's thread, ``tasks_sent`` = ``tasks_completed`` + ``tasks_failed`` +
    those in flight, and ``connection_attempts`` = ``connections_established`` + ``connection_failures`` +
    those in flight.

    Attributes:
        contract: the name of its contract.
        transport: those of its endpoints, separated by commas.
        strategy: how it spreads calls.
        uptime_seconds: since it was opened.
        tasks_sent, tasks_completed, tasks_failed: calls of its users, by :class:`~trio_ipc.ClientMetrics`.
        task_seconds: how long those completed took together.
        connection_attempts, connections_established, connection_failures: likewise.
        connecting_seconds: how long establishing those established took together.
        breaker_activations: how often a circuit breaker has opened.
        bytes_sent, bytes_received: of whole frames, headers included.
        connections_active, connections_pooled: those in use, and those kept; one that its server has closed
            is counted until the client notices.
        endpoints: each of them, in the order in which they were added.
    """

    contract: str
    transport: str
    strategy: str
    uptime_seconds: float
    tasks_sent: int
    tasks_completed: int
    tasks_failed: int
    task_seconds: float
    connection_attempts: int
    connections_established: int
    connection_failures: int
    connecting_seconds: float
    breaker_activations: int
    bytes_sent: int
    bytes_received: int
    connections_active: int
    connections_pooled: int
    endpoints: tuple[EndpointSnapshot, ...]


def _of(
    side: Literal["resilient", "resilient_endpoint"], name: str, kind: Kind, help_: str, **more: Any
) -> Metric:
    return Metric(side=side, name=name, kind=kind, help=help_, field=more.pop("field", name), **more)


def _whole(name: str, kind: Kind, help_: str, **more: Any) -> Metric:
    return _of("resilient", name, kind, help_, **more)


def _each(name: str, kind: Kind, help_: str, **more: Any) -> Metric:
    return _of("resilient_endpoint", name, kind, help_, **more)


RESILIENT_METRICS: Final[Sequence[Metric]] = (
    _whole(
        "uptime",
        Kind.GAUGE,
        "Time since the client was opened.",
        field="uptime_seconds",
        unit="seconds",
        adds_up=False,
    ),
    _whole("tasks_sent", Kind.COUNTER, "Calls that were begun."),
    _whole("tasks_completed", Kind.COUNTER, "Calls that were answered."),
    _whole("tasks_failed", Kind.COUNTER, "Calls that raised."),
    _whole(
        "task_duration",
        Kind.COUNTER,
        "How long the answered calls took together.",
        field="task_seconds",
        unit="seconds",
    ),
    _whole("connection_attempts", Kind.COUNTER, "Connections that were tried."),
    _whole("connections_established", Kind.COUNTER, "Connections that were opened and checked."),
    _whole("connection_failures", Kind.COUNTER, "Connections that were not opened, or failed their check."),
    _whole(
        "connection_duration",
        Kind.COUNTER,
        "How long establishing the established connections took together.",
        field="connecting_seconds",
        unit="seconds",
    ),
    _whole("breaker_activations", Kind.COUNTER, "How often a circuit breaker has opened."),
    _whole("sent", Kind.COUNTER, "Bytes of whole frames sent.", field="bytes_sent", unit="bytes"),
    _whole("received", Kind.COUNTER, "Bytes of whole frames received.", field="bytes_received", unit="bytes"),
    _whole("connections_active", Kind.GAUGE, "Connections in use."),
    _whole("connections_pooled", Kind.GAUGE, "Connections kept for the next call."),
    _each("priority", Kind.GAUGE, "Its priority; a smaller number is asked first.", adds_up=False),
    _each("healthy", Kind.GAUGE, "1 while calls are expected to succeed, else 0.", adds_up=False),
    _each("health_score", Kind.GAUGE, "What strategies by score go by.", adds_up=False),
    _each("breaker", Kind.GAUGE, "1 for the state of its circuit breaker.", label="state", adds_up=False),
    _each("breaker_activations", Kind.COUNTER, "How often its circuit breaker has opened."),
    _each("answers", Kind.COUNTER, "Calls and questions that it answered."),
    _each("failures", Kind.COUNTER, "Calls and questions that it failed."),
    _each("connection_failures", Kind.COUNTER, "Failed attempts to connect to it."),
    _each("connections_active", Kind.GAUGE, "Connections to it in use."),
    _each("connections_pooled", Kind.GAUGE, "Connections to it kept for the next call."),
)
