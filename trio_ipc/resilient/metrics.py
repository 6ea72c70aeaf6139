"""What a resilient client has done, in numbers that operators of DaemonEye know by name.

Plain values: the client adds, readers take a copy. This module must never lock, format or export.
"""

from __future__ import annotations

import attrs


def _rate(good: int, bad: int) -> float:
    return good / (good + bad) if good or bad else 1.0


def _average(total: float, count: int) -> float:
    return total / count if count else 0.0


@attrs.define(kw_only=True)
class ClientMetrics:
    """A resilient client's metrics.

    A task is one call of the client's user, however many tries it takes. Negotiations are no tasks, but
    their bytes count.

    Attributes:
        transport: the active transport.
        tasks_sent_total: calls that were begun: those completed, failed and in flight.
        tasks_completed_total: calls that were answered, also by a failed result.
        tasks_failed_total: calls that ended by an error, or were cancelled.
        connection_attempts_total: connections that were tried: those established, failed and in flight.
        connections_established_total: those that were opened, checked and negotiated on.
        connection_failures_total: those that were not, for whatever reason.
        circuit_breaker_activations_total: how often a circuit breaker has opened.
        bytes_sent_total, bytes_received_total: of whole frames, headers included.
        active_connections_current: established connections that a call, or a refresh of capabilities, uses.
        pooled_connections_current: established connections that nobody uses, and that are still good as
            far as can be seen when the metrics are read.
        task_duration_ms_total: how long the completed tasks took, in milliseconds.
        connection_duration_ms_total: how long establishing the established connections took.
    """

    transport: str = ""
    tasks_sent_total: int = 0
    tasks_completed_total: int = 0
    tasks_failed_total: int = 0
    connection_attempts_total: int = 0
    connections_established_total: int = 0
    connection_failures_total: int = 0
    circuit_breaker_activations_total: int = 0
    bytes_sent_total: int = 0
    bytes_received_total: int = 0
    active_connections_current: int = 0
    pooled_connections_current: int = 0
    task_duration_ms_total: float = 0.0
    connection_duration_ms_total: float = 0.0

    @property
    def success_rate(self) -> float:
        """Of the tasks that have ended, those completed: from 0 to 1, and 1 if none has ended."""
        return _rate(self.tasks_completed_total, self.tasks_failed_total)

    @property
    def connection_success_rate(self) -> float:
        """Of the connections tried, those established: from 0 to 1, and 1 if none was tried."""
        return _rate(self.connections_established_total, self.connection_failures_total)

    @property
    def average_task_duration_ms(self) -> float:
        """How long a completed task took on average; 0 if there is none."""
        return _average(self.task_duration_ms_total, self.tasks_completed_total)

    @property
    def average_connection_duration_ms(self) -> float:
        """How long establishing a connection took on average; 0 if there is none."""
        return _average(self.connection_duration_ms_total, self.connections_established_total)
