"""The snapshots as metrics: what each is called, what it measures, and the labels that tell series apart.

opentelemetry.py and prometheus.py put this into their libraries' forms. This module must never know of
either, nor of what the snapshots were taken.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

from trio_ipc.errors import writable

from .histogram import HistogramSnapshot
from .kinds import Kind, Metric
from .resilience import RESILIENT_METRICS, ResilientSnapshot
from .snapshot import ClientSnapshot, ServerSnapshot

Snapshot: TypeAlias = ServerSnapshot | ClientSnapshot | ResilientSnapshot
Labels: TypeAlias = tuple[tuple[str, str], ...]
Number: TypeAlias = int | float


def _server(name: str, kind: Kind, help_: str, *, field: str = "", **more: Any) -> Metric:
    return Metric(side="server", name=name, kind=kind, help=help_, field=field or name, **more)


def _client(name: str, kind: Kind, help_: str, *, field: str = "", **more: Any) -> Metric:
    return Metric(side="client", name=name, kind=kind, help=help_, field=field or name, **more)


def _of_both(make: Callable[..., Metric]) -> list[Metric]:
    counter = Kind.COUNTER
    return [
        make("timeouts", counter, "Deadlines that passed.", label="deadline"),
        make("received_frames", counter, "Whole frames received.", field="frames_received"),
        make("sent_frames", counter, "Whole frames sent.", field="frames_sent"),
        make("received", counter, "Bytes of whole frames received.", field="bytes_received", unit="bytes"),
        make("sent", counter, "Bytes of whole frames sent.", field="bytes_sent", unit="bytes"),
    ]


METRICS: Final[Sequence[Metric]] = (
    _server(
        "uptime",
        Kind.GAUGE,
        "Time since the server began to listen.",
        field="uptime_seconds",
        unit="seconds",
        adds_up=False,
        of_the_whole=True,
    ),
    _server(
        "endpoint_intact",
        Kind.GAUGE,
        "1 while the socket file is as the server made it, 0 once it was removed, replaced or opened up.",
        adds_up=False,
        of_the_whole=True,
    ),
    _server(
        "transport_active",
        Kind.GAUGE,
        "1 for the transport that new connections get, 0 for one that was active before.",
        adds_up=False,
    ),
    _server("connections_accepted", Kind.COUNTER, "Connections that were accepted."),
    _server("connections_refused", Kind.COUNTER, "Connections that were refused.", label="reason"),
    _server("connections_left", Kind.COUNTER, "Connections that ended before they had a place."),
    _server("connections_waiting", Kind.GAUGE, "Connections that wait for a place."),
    _server("connections_served", Kind.COUNTER, "Connections that had a place."),
    _server("connections_active", Kind.GAUGE, "Connections that have a place."),
    _server("connections_closed", Kind.COUNTER, "Served connections that ended.", label="reason"),
    _server("requests", Kind.COUNTER, "Requests that came whole and could be decoded."),
    _server("requests_answered", Kind.COUNTER, "Requests whose own response was handed over."),
    _server(
        "requests_failed",
        Kind.COUNTER,
        "Requests whose own response was not handed over, by what failed first.",
        label="reason",
    ),
    _server("requests_in_flight", Kind.GAUGE, "Requests that are handled now, and their responses."),
    *_of_both(_server),
    _server(
        "handler_duration",
        Kind.HISTOGRAM,
        "How long handlers ran.",
        field="handler_seconds",
        unit="seconds",
    ),
    _client(
        "uptime",
        Kind.GAUGE,
        "Time since the client was connected.",
        field="uptime_seconds",
        unit="seconds",
        adds_up=False,
    ),
    _client("calls", Kind.COUNTER, "Calls that were begun."),
    _client("calls_failed", Kind.COUNTER, "Calls that raised.", label="reason"),
    _client("calls_in_flight", Kind.GAUGE, "Calls that wait for their turn or their response."),
    *_of_both(_client),
    _client(
        "call_duration",
        Kind.HISTOGRAM,
        "How long the answered calls took, waiting for their turn included.",
        field="call_seconds",
        unit="seconds",
    ),
    *RESILIENT_METRICS,
)


def samples(metric: Metric, snapshots: Iterable[Snapshot]) -> dict[Labels, Any]:
    """Return a metric's values by their labels; those of the same labels become one.

    The values are numbers, or :class:`HistogramSnapshot` where that is the metric's kind.
    """
    readings = chain.from_iterable(_readings(metric, snapshot) for snapshot in snapshots)
    return merged(readings, operator.add if metric.adds_up else max)


def merged(readings: Iterable[tuple[Labels, Any]], merge: Callable[[Any, Any], Any]) -> dict[Labels, Any]:
    """Return values by their labels, of which those of the same labels become one."""
    found: dict[Labels, Any] = {}
    for labels, value in readings:
        found[labels] = merge(found[labels], value) if labels in found else value
    return found


def _readings(metric: Metric, snapshot: Snapshot) -> Iterator[tuple[Labels, Any]]:
    if isinstance(snapshot, ResilientSnapshot):
        yield from _readings_of_resilient(metric, snapshot)
        return
    whose = (("endpoint", writable(snapshot.endpoint)), ("contract", writable(snapshot.contract)))
    if isinstance(snapshot, ClientSnapshot):
        if metric.side == "client":
            yield from _values(metric, (*whose, ("transport", snapshot.transport)), snapshot)
    elif metric.side == "server":
        if metric.of_the_whole:
            yield from _values(metric, whose, snapshot)
            return
        for transport, counts in snapshot.by_transport.items():
            labels = (*whose, ("transport", transport))
            if metric.field == "transport_active":
                yield labels, int(transport == snapshot.transport)
            else:
                yield from _values(metric, labels, counts)


def _readings_of_resilient(metric: Metric, snapshot: ResilientSnapshot) -> Iterator[tuple[Labels, Any]]:
    contract, strategy = ("contract", writable(snapshot.contract)), ("strategy", snapshot.strategy)
    if metric.side == "resilient":
        # Without the transports: an endpoint that is added would end the series and begin others.
        yield from _values(metric, (contract, strategy), snapshot)
    elif metric.side == "resilient_endpoint":
        for one in snapshot.endpoints:
            where = (("endpoint", writable(one.endpoint)), ("id", writable(one.id)))
            yield from _values(metric, (*where, contract, ("transport", one.transport), strategy), one)


def _values(metric: Metric, labels: Labels, holder: object) -> Iterator[tuple[Labels, Any]]:
    value: Number | HistogramSnapshot | Mapping[str, int] = getattr(holder, metric.field)
    if isinstance(value, Mapping):
        for name, count in value.items():
            yield (*labels, (metric.label, name)), count
    else:
        yield labels, int(value) if isinstance(value, bool) else value


def whose(metric: Metric, labels: Labels) -> Labels:
    """Return the labels that say whose values they are, without what the metric's own label adds."""
    return labels[:-1] if metric.label else labels


def label_names(metric: Metric) -> list[str]:
    """Return the names of a metric's labels, in the order in which :func:`samples` has them."""
    names = {
        "resilient": ["contract", "strategy"],
        "resilient_endpoint": ["endpoint", "id", "contract", "transport", "strategy"],
    }.get(metric.side, ["endpoint", "contract"] + ([] if metric.of_the_whole else ["transport"]))
    return names + ([metric.label] if metric.label else [])
