"""Several clients of the same labels are one series, and a counter does not fall where one of them goes."""

from __future__ import annotations

import gc
from collections.abc import Mapping

import attrs
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from trio_ipc import LATENCY_BOUNDS, ClientSnapshot, HistogramSnapshot
from trio_ipc.telemetry.opentelemetry import OpenTelemetryExporter
from trio_ipc.telemetry.prometheus import PrometheusCollector


@attrs.define(eq=False)
class Done:
    """A client that has made so many calls, each of a second."""

    calls: int
    failed: Mapping[str, int] = attrs.field(factory=dict)
    endpoint: str = "/run/it.sock"

    def snapshot(self) -> ClientSnapshot:
        return ClientSnapshot(
            transport="interprocess",
            endpoint=self.endpoint,
            contract="test",
            uptime_seconds=7.0,
            calls=self.calls,
            calls_answered=self.calls,
            calls_failed=self.failed,
            calls_in_flight=1,
            timeouts={},
            call_seconds=HistogramSnapshot(
                counts=(self.calls, *(0 for _ in LATENCY_BOUNDS)), sum=float(self.calls)
            ),
            frames_received=self.calls,
            frames_sent=self.calls,
            bytes_received=self.calls,
            bytes_sent=self.calls,
        )


class Scraped:
    """A collector, and what a scrape of it finds, by the name of a series and its reason."""

    def __init__(self) -> None:
        self.collector = PrometheusCollector()
        self._registry = CollectorRegistry()
        self._registry.register(self.collector)

    def series(self) -> dict[tuple[str, str], float]:
        return {
            (sample.name.removeprefix("trio_ipc_client_"), sample.labels.get("reason", "")): sample.value
            for family in parse(generate_latest(self._registry).decode())
            for sample in family.samples
        }

    def calls(self) -> float | None:
        return self.series().get(("calls_total", ""))


@pytest.fixture
def scraped() -> Scraped:
    return Scraped()


def test_what_a_client_had_called_stays_in_the_series_that_another_reports(scraped: Scraped) -> None:
    lasting, brief = Done(1), Done(1_000)
    with scraped.collector.watch(lasting):
        with scraped.collector.watch(brief):
            assert scraped.calls() == 1_001
            brief.calls = 2_000
        assert scraped.calls() == 2_001, "what was counted since the last scrape, too"
        brief.calls = 9_000
        assert scraped.calls() == 2_001, "nobody watches it"
        lasting.calls = 2
        series = scraped.series()
        assert series["calls_total", ""] == series["call_duration_seconds_sum", ""] == 2_002
        assert series["call_duration_seconds_count", ""] == series["sent_bytes_total", ""] == 2_002
        assert series["uptime_seconds", ""] == 7
        assert series["calls_in_flight", ""] == 1, "of the one that is there"
    assert scraped.series() == {}


def test_what_was_never_scraped_counts_from_when_its_watch_is_closed(scraped: Scraped) -> None:
    lasting = Done(1)
    with scraped.collector.watch(lasting):
        brief = Done(0)
        with scraped.collector.watch(brief):
            brief.calls = 5
        del brief
        gc.collect()
        assert scraped.calls() == 6


def test_one_that_is_watched_again_counts_once(scraped: Scraped) -> None:
    lasting, again = Done(1), Done(10)
    with scraped.collector.watch(lasting):
        for calls in (10, 20, 30):
            again.calls = calls
            with scraped.collector.watch(again), scraped.collector.watch(again):
                assert scraped.calls() == 1 + calls
            assert scraped.calls() == 1 + calls
        watch = scraped.collector.watch(again)
        with scraped.collector.watch(again):
            watch.close()
            watch.close()
            assert scraped.series()["calls_in_flight", ""] == 2, "one of its watches is not closed"


def test_what_one_had_called_that_nobody_holds_any_longer_stays_as_it_was_scraped(scraped: Scraped) -> None:
    lasting = Done(1)
    with scraped.collector.watch(lasting):
        for number in range(4):
            brief = Done(100)
            watches = [scraped.collector.watch(brief), scraped.collector.watch(brief)]
            assert scraped.calls() == 101 + number * 100
            if number % 2:
                watches.pop().close()
            del brief
            gc.collect()
            for _ in range(2):
                assert scraped.calls() == 101 + number * 100
            for watch in watches:
                watch.close()
            assert scraped.calls() == 101 + number * 100


def test_a_series_that_nobody_reports_ends_and_begins_anew(scraped: Scraped) -> None:
    other = Done(1, endpoint="/run/other.sock")
    with scraped.collector.watch(other):
        first = Done(10)
        with scraped.collector.watch(first):
            pass
        assert scraped.calls() == 1, "the other one's series"
        del first
        gc.collect()
        assert scraped.calls() == 1
    second = Done(2)
    with scraped.collector.watch(second):
        assert scraped.calls() == 2


def test_a_reason_of_one_that_is_gone_is_still_told_where_the_other_has_another(scraped: Scraped) -> None:
    lasting, brief = Done(1, {"read_timeout": 1}), Done(1, {"closed": 5})
    with scraped.collector.watch(lasting):
        with scraped.collector.watch(brief):
            pass
        failed = {reason: count for (name, reason), count in scraped.series().items() if "failed" in name}
    assert failed == {"read_timeout": 1, "closed": 5}


def test_what_opentelemetry_is_told_does_not_fall_either() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    exporter = OpenTelemetryExporter(provider)

    def calls() -> float:
        [point] = [
            point
            for resource in reader.get_metrics_data().resource_metrics  # type: ignore[union-attr]
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "trio_ipc.client.calls"
            for point in metric.data.data_points
        ]
        return point.value  # type: ignore[union-attr]

    try:
        lasting, brief = Done(1), Done(10)
        with exporter.watch(lasting):
            with exporter.watch(brief):
                assert calls() == 11
            assert calls() == 11
            del brief
            gc.collect()
            assert (calls(), calls()) == (11, 11)
    finally:
        provider.shutdown()
