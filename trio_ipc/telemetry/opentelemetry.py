"""Snapshots as OpenTelemetry's observable instruments, by the API alone.

It is an extra: ``trio-ipc[opentelemetry]``. The SDK, its readers and its exporters are the program's to
choose. Nothing is recorded when something happens; the instruments read a snapshot when they are collected,
in the collecting thread. This module must never keep a server or a client alive.

OpenTelemetry has no observable histogram, and its synchronous one would have to be recorded into on the hot
path, under a lock and with a dictionary of attributes for each value. So a histogram is three observable
counters, as Prometheus has it: ``….bucket`` counts the values up to its attribute ``le`` (less or equal, in
seconds; ``+Inf`` for all), ``….count`` all values, and ``….sum`` their sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter

from .kinds import Kind, Metric
from .metrics import METRICS, Labels
from .sources import Source, Sources, Watch

__all__ = ["OpenTelemetryExporter"]

_Callback: TypeAlias = Callable[[CallbackOptions], Iterable[Observation]]

#: Codes of the UCUM, as the semantic conventions ask for.
_UNITS: Final = {"seconds": "s", "bytes": "By", "": "1"}


class OpenTelemetryExporter:
    """Reports servers and clients by instruments of one meter, ``trio_ipc``.

    Make one for the whole program: instruments cannot be taken back.

    Args:
        meter_provider: where the meter comes from; None for the global provider.
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        self._sources = Sources()
        meter = get_meter("trio_ipc", meter_provider=meter_provider)
        for metric in METRICS:
            self._make_instruments(meter, metric)

    def watch(self, source: Source) -> Watch:
        """Report a server, a client or a resilient client, until the watch is closed.

        One that nobody holds any longer is reported no longer, too. What it had counted stays in the series
        that it shared with others, as long as one of these is reported.
        """
        return self._sources.watch(source)

    def _make_instruments(self, meter: Meter, metric: Metric) -> None:
        name, unit = f"trio_ipc.{metric.side}.{metric.name}", _UNITS[metric.unit]
        if metric.kind is Kind.HISTOGRAM:
            whole = metric.help.rstrip(".")
            for part, of_it, values in (
                ("bucket", "1", _buckets),
                ("count", "1", lambda labels, value: [(labels, value.count)]),
                ("sum", unit, lambda labels, value: [(labels, value.sum)]),
            ):
                callback = self._reader(metric, values)
                meter.create_observable_counter(f"{name}.{part}", [callback], of_it, f"{whole}: {part}.")
            return
        callbacks = [self._reader(metric, _itself)]
        if metric.kind is Kind.COUNTER:
            meter.create_observable_counter(name, callbacks, unit, metric.help)
        elif metric.adds_up:
            meter.create_observable_up_down_counter(name, callbacks, unit, metric.help)
        else:
            meter.create_observable_gauge(name, callbacks, unit, metric.help)

    def _reader(
        self, metric: Metric, values: Callable[[Labels, Any], Iterable[tuple[Labels, float]]]
    ) -> _Callback:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(number, dict(attributes))
                for labels, value in self._sources.read()(metric).items()
                for attributes, number in values(labels, value)
            ]

        return read


def _itself(labels: Labels, value: float) -> list[tuple[Labels, float]]:
    return [(labels, value)]


def _buckets(labels: Labels, value: Any) -> list[tuple[Labels, float]]:
    bounds = (*map(repr, value.bounds), "+Inf")
    return [
        ((*labels, ("le", bound)), count) for bound, count in zip(bounds, value.cumulative(), strict=True)
    ]
