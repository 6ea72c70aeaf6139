"""Snapshots in the text format of Prometheus, by the library ``prometheus_client``.

It is an extra: ``trio-ipc[prometheus]``. This module must never open a port: who serves the text, and
where, is the user's to decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from .histogram import HistogramSnapshot
from .kinds import Kind, Metric
from .metrics import METRICS, Labels, Snapshot, label_names, samples
from .sources import Read, Source, Sources, Watch

__all__ = ["PrometheusCollector", "prometheus_text"]

_Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def prometheus_text(*snapshots: Snapshot) -> str:
    """Return snapshots in Prometheus' text format (version 0.0.4).

    Args:
        snapshots: of servers, clients and resilient clients. Those with the same labels are added up,
            as Prometheus allows each series only once; the longest of their uptimes is shown.

    Returns:
        The text, ending in a line break. Metrics of a side that is not there are left out.
    """
    registry = CollectorRegistry()
    registry.register(_Fixed(snapshots))
    return generate_latest(registry).decode()


class PrometheusCollector(Collector):
    """Reports servers and clients to a registry of ``prometheus_client``, each time it is asked.

    ``registry.register(collector)`` connects it. It keeps nothing alive that it watches.
    """

    def __init__(self) -> None:
        self._sources = Sources()

    def watch(self, source: Source) -> Watch:
        """Report a server, a client or a resilient client, until the watch is closed.

        One that nobody holds any longer is reported no longer, too. What it had counted stays in the series
        that it shared with others, as long as one of these is reported.
        """
        return self._sources.watch(source)

    def collect(self) -> Iterator[_Family]:
        """Return all metrics as they are now; a registry calls this, in whatever thread."""
        return _families(self._sources.read())

    def describe(self) -> Iterator[_Family]:
        """Return the metrics without values, by which a registry sees a second collector of the same."""
        return map(_empty, METRICS)


class _Fixed(Collector):
    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self._read = partial(samples, snapshots=snapshots)

    def collect(self) -> Iterator[_Family]:
        return _families(self._read)


def _families(read: Read) -> Iterator[_Family]:
    for metric in METRICS:
        found = read(metric)
        if found:
            family = _empty(metric)
            for labels, value in found.items():
                _add(family, labels, value)
            yield family


def _empty(metric: Metric) -> _Family:
    # Units are a part of the name: prometheus.io's "Metric and label naming". A counter's "_total" and a
    # histogram's "_bucket", "_count" and "_sum" are the library's to add.
    name = "_".join(filter(None, ("trio_ipc", metric.side, metric.name, metric.unit)))
    labels = label_names(metric)
    if metric.kind is Kind.COUNTER:
        return CounterMetricFamily(name, metric.help, labels=labels)
    if metric.kind is Kind.GAUGE:
        return GaugeMetricFamily(name, metric.help, labels=labels)
    return HistogramMetricFamily(name, metric.help, labels=labels)


def _add(family: _Family, labels: Labels, value: int | float | HistogramSnapshot) -> None:
    values = [text for _, text in labels]
    if isinstance(family, HistogramMetricFamily):
        assert isinstance(value, HistogramSnapshot)  # noqa: S101 - for the type checker
        bounds = (*map(floatToGoString, value.bounds), "+Inf")
        buckets = list(zip(bounds, value.cumulative(), strict=True))
        family.add_metric(values, buckets=buckets, sum_value=value.sum)
    else:
        assert not isinstance(value, HistogramSnapshot)  # noqa: S101 - for the type checker
        family.add_metric(values, value)
