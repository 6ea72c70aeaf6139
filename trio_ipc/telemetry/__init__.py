"""What happened, in plain integers, and what readers get to see of it.

The hot path adds to counters.py's objects; readers take snapshots. Nothing here may lock, log, format or
open anything, and nothing that is imported here may import an exporter's library: opentelemetry.py and
prometheus.py are there for those who have one.
"""

from .counters import (
    CallFailure,
    ClientTelemetry,
    Clock,
    CloseReason,
    Refusal,
    RequestFailure,
    ServerCounters,
    ServerTelemetry,
    TimeoutKind,
    Traffic,
)
from .histogram import LATENCY_BOUNDS, HistogramSnapshot
from .lines import counters_line
from .resilience import EndpointSnapshot, ResilientSnapshot
from .snapshot import ClientSnapshot, ServerCounts, ServerSnapshot

__all__ = [
    "LATENCY_BOUNDS",
    "CallFailure",
    "ClientSnapshot",
    "ClientTelemetry",
    "Clock",
    "CloseReason",
    "EndpointSnapshot",
    "HistogramSnapshot",
    "Refusal",
    "RequestFailure",
    "ResilientSnapshot",
    "ServerCounters",
    "ServerCounts",
    "ServerSnapshot",
    "ServerTelemetry",
    "TimeoutKind",
    "Traffic",
    "counters_line",
]
