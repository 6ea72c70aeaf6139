"""What the exporters say is what the snapshots say, in the forms that others can read."""

from __future__ import annotations

import gc
import math
import re
import subprocess
import sys
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import pytest
import trio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.support import DetectionServer, Handler, serving, success, task
from trio_ipc import (
    LATENCY_BOUNDS,
    Call,
    ClientSnapshot,
    HistogramSnapshot,
    IpcConfig,
    ServerCounts,
    ServerSnapshot,
    open_client,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.telemetry.kinds import Metric
from trio_ipc.telemetry.metrics import METRICS
from trio_ipc.telemetry.opentelemetry import OpenTelemetryExporter
from trio_ipc.telemetry.prometheus import PrometheusCollector, prometheus_text
from trio_ipc.telemetry.resilience import RESILIENT_METRICS

#: What a snapshot has besides its metrics: labels, and what another metric's count tells.
NO_METRICS = {"transport", "endpoint", "contract", "by_transport", "calls_answered"}
OF_BOTH = [metric for metric in METRICS if metric.side in {"server", "client"}]
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def sometimes(task: DetectionTask, _: Call) -> DetectionResult:
    await trio.lowlevel.checkpoint()
    if task.task_id == "bad":
        raise ValueError("no")
    return success(task.task_id)


handler: Handler = sometimes


async def talk(config: IpcConfig) -> tuple[ServerSnapshot, ClientSnapshot]:
    """Both sides' snapshots of a few calls."""
    async with serving(handler, config) as server, open_client(DETECTION, config) as client:
        for task_id in ("a", "bad", "b"):
            await client.call(task(task_id))
        await trio.testing.wait_all_tasks_blocked()
        return server.snapshot(), client.snapshot()


def labels(of: ServerSnapshot | ClientSnapshot, **more: str) -> frozenset[tuple[str, str]]:
    whole = {"endpoint": of.endpoint, "contract": of.contract, "transport": of.transport, **more}
    return frozenset(whole.items())


def check_all(
    series: Mapping[tuple[str, frozenset[tuple[str, str]]], float], of: Any, side: str, **names: str
) -> None:
    """Expect every number of a snapshot in its series; ``names`` are those of the exporter."""
    separator = names["separator"]
    counts = of.by_transport[of.transport] if side == "server" else of
    for field in attrs.fields(type(counts)):
        value = getattr(counts, field.name)
        if field.name in NO_METRICS | {"uptime_seconds"}:
            continue
        [metric] = [metric for metric in METRICS if (metric.side, metric.field) == (side, field.name)]
        name = f"trio_ipc{separator}{side}{separator}{metric.name}"
        if isinstance(value, HistogramSnapshot):
            name += names["seconds"]
            assert series[name + names["count"], labels(of)] == value.count == 3
            assert series[name + names["sum"], labels(of)] == value.sum > 0
            cumulative = value.cumulative()
            found = sorted(
                (float(dict(marks)["le"]), number)
                for (other, marks), number in series.items()
                if other == name + names["bucket"]
            )
            assert found == list(zip([*LATENCY_BOUNDS, math.inf], cumulative, strict=True))
        elif isinstance(value, Mapping):
            for kind, number in value.items():
                marks = labels(of, **{metric.label: kind})
                assert series[name + names[metric.kind.name], marks] == number
        else:
            unit = names["bytes"] if metric.unit else ""
            assert series[name + unit + names[metric.kind.name], labels(of)] == value


def test_every_number_of_a_snapshot_is_one_metric() -> None:
    for side, kinds in {"server": (ServerCounts, ServerSnapshot), "client": (ClientSnapshot,)}.items():
        fields = {field.name for kind in kinds for field in attrs.fields(kind)} - NO_METRICS
        metrics = [metric.field for metric in METRICS if metric.side == side]
        assert len(metrics) == len(set(metrics))
        assert set(metrics) - {"transport_active"} == fields


# --- Prometheus ---------------------------------------------------------------------------------------------


PROMETHEUS = {
    "separator": "_",
    "seconds": "_seconds",
    "bytes": "_bytes",
    "count": "_count",
    "sum": "_sum",
    "bucket": "_bucket",
    "COUNTER": "_total",
    "GAUGE": "",
}


def series_in(text: str) -> Series:
    """The samples of a text as Prometheus' own parser reads it. Each series must be there but once."""
    found: Series = {}
    for family in parse(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


async def test_the_text_says_what_the_snapshots_say(config: IpcConfig) -> None:
    server, client = await talk(config)
    series = series_in(prometheus_text(server, client))
    check_all(series, server, "server", **PROMETHEUS)
    check_all(series, client, "client", **PROMETHEUS)
    assert series["trio_ipc_server_transport_active", labels(server)] == 1
    whose = frozenset({("endpoint", server.endpoint), ("contract", server.contract)})
    assert series["trio_ipc_server_uptime_seconds", whose] == server.uptime_seconds
    assert series["trio_ipc_server_endpoint_intact", whose] == server.endpoint_intact == 1
    gone = series_in(prometheus_text(attrs.evolve(server, endpoint_intact=False)))
    assert gone["trio_ipc_server_endpoint_intact", whose] == 0


async def test_the_text_keeps_to_the_rules_for_names_and_explains_each_metric(config: IpcConfig) -> None:
    text = prometheus_text(*await talk(config))
    assert text.endswith("\n")
    lines = text.splitlines()
    types = dict(line.split()[2:4] for line in lines if line.startswith("# TYPE "))
    helps = {line.split()[2] for line in lines if line.startswith("# HELP ")}
    assert set(types) == helps
    assert len(types) == len(OF_BOTH)
    for name, kind in types.items():
        assert name.startswith(("trio_ipc_server_", "trio_ipc_client_"))
        assert name.endswith("_total") == (kind == "counter")
        assert kind != "histogram" or name.endswith("_seconds")
    assert 'le="2.5e-05"' in text
    assert 'le="+Inf"' in text


async def test_a_metric_of_a_side_that_is_not_there_is_left_out(config: IpcConfig) -> None:
    server, client = await talk(config)
    assert "trio_ipc_client_" not in prometheus_text(server)
    assert "trio_ipc_server_" not in prometheus_text(client)
    assert prometheus_text() == ""


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "a{b},c=\x7f", "ä€"])
async def test_a_label_of_any_text_survives(config: IpcConfig, name: str) -> None:
    server, _ = await talk(config)
    text = prometheus_text(attrs.evolve(server, contract=name))
    assert {dict(marks)["contract"] for _, marks in series_in(text)} == {name}


async def test_snapshots_of_the_same_labels_are_added_up_and_of_the_uptimes_the_longest_counts(
    config: IpcConfig,
) -> None:
    _, one = await talk(config)
    other = attrs.evolve(one, uptime_seconds=one.uptime_seconds + 5, bytes_sent=7)
    series = series_in(prometheus_text(one, other))
    assert series["trio_ipc_client_calls_total", labels(one)] == 6
    assert series["trio_ipc_client_call_duration_seconds_count", labels(one)] == 6
    assert series["trio_ipc_client_sent_bytes_total", labels(one)] == one.bytes_sent + 7
    assert series["trio_ipc_client_uptime_seconds", labels(one)] == other.uptime_seconds


async def test_after_a_switch_each_transport_has_its_series_and_one_is_active(config: IpcConfig) -> None:
    config = config.replace(transport="interprocess")
    async with serving(handler, config) as server:
        async with open_client(DETECTION, config) as client:
            await client.call(task())
        await server.switch_transport("legacy")
        snapshot = server.snapshot()
    series = series_in(prometheus_text(snapshot))
    old, new = labels(snapshot, transport="interprocess"), labels(snapshot)
    assert dict(new)["transport"] == "legacy"
    assert series["trio_ipc_server_transport_active", old] == 0
    assert series["trio_ipc_server_transport_active", new] == 1
    assert series["trio_ipc_server_requests_total", old] == 1
    assert series["trio_ipc_server_requests_total", new] == 0


async def test_a_registry_collects_what_is_watched_until_the_watch_is_closed(config: IpcConfig) -> None:
    registry = CollectorRegistry(auto_describe=True)
    collector = PrometheusCollector()
    registry.register(collector)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(PrometheusCollector())
    async with serving(handler, config) as server:
        with collector.watch(server), collector.watch(server):
            async with open_client(DETECTION, config) as client:
                await client.call(task())
            await trio.testing.wait_all_tasks_blocked()
            series = series_in(generate_latest(registry).decode())
            name = "trio_ipc_server_requests_total"
            assert series[name, labels(server.snapshot())] == 1, "it is watched twice, and reported once"
        assert generate_latest(registry) == b""


async def test_it_is_valid_openmetrics_too(config: IpcConfig) -> None:
    registry = CollectorRegistry()
    collector = PrometheusCollector()
    registry.register(collector)
    async with serving(handler, config) as server, open_client(DETECTION, config) as client:
        collector.watch(server)
        collector.watch(client)
        await client.call(task())
        text = generate_openmetrics(registry).decode()  # type: ignore[no-untyped-call]
    assert len(list(parse_openmetrics(text))) == len(OF_BOTH)  # type: ignore[no-untyped-call]


# --- OpenTelemetry ------------------------------------------------------------------------------------------


OPENTELEMETRY = {
    "separator": ".",
    "seconds": "",
    "bytes": "",
    "count": ".count",
    "sum": ".sum",
    "bucket": ".bucket",
    "COUNTER": "",
    "GAUGE": "",
}


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def exporter(reader: InMemoryMetricReader) -> Iterator[OpenTelemetryExporter]:
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield OpenTelemetryExporter(provider)
    provider.shutdown()


def collected(reader: InMemoryMetricReader) -> list[Any]:
    data = reader.get_metrics_data()
    if not isinstance(data, MetricsData):
        return []
    [resource] = data.resource_metrics
    [scope] = resource.scope_metrics
    assert scope.scope.name == "trio_ipc"
    return list(scope.metrics)


def points(reader: InMemoryMetricReader) -> Series:
    found: Series = {}
    for metric in collected(reader):
        for point in metric.data.data_points:
            found[metric.name, frozenset(point.attributes.items())] = point.value
    return found


async def test_the_instruments_say_what_the_snapshots_say(
    config: IpcConfig, reader: InMemoryMetricReader, exporter: OpenTelemetryExporter
) -> None:
    async with serving(handler, config) as server, open_client(DETECTION, config) as client:
        with exporter.watch(server), exporter.watch(client):
            for task_id in ("a", "bad", "b"):
                await client.call(task(task_id))
            await trio.testing.wait_all_tasks_blocked()
            found = await trio.to_thread.run_sync(points, reader)  # as a periodic reader does
            check_all(found, server.snapshot(), "server", **OPENTELEMETRY)
            check_all(found, client.snapshot(), "client", **OPENTELEMETRY)
            assert found["trio_ipc.server.transport_active", labels(server.snapshot())] == 1
        assert points(reader) == {}


async def test_a_value_that_only_grows_is_monotonic_and_units_are_ucums(
    config: IpcConfig, reader: InMemoryMetricReader, exporter: OpenTelemetryExporter
) -> None:
    async with serving(handler, config) as server, open_client(DETECTION, config) as client:
        exporter.watch(server)
        exporter.watch(client)
        metrics = {metric.name: metric for metric in collected(reader)}
    assert metrics["trio_ipc.server.requests"].data.is_monotonic
    assert metrics["trio_ipc.server.handler_duration.bucket"].data.is_monotonic
    assert not metrics["trio_ipc.server.connections_active"].data.is_monotonic
    assert type(metrics["trio_ipc.client.uptime"].data).__name__ == "Gauge"
    units = {metric.unit for metric in metrics.values()}
    assert units == {"1", "s", "By"}
    assert metrics["trio_ipc.server.handler_duration.sum"].unit == "s"
    assert metrics["trio_ipc.server.received"].unit == "By"
    assert all(metric.description for metric in metrics.values())


async def test_who_is_gone_is_reported_no_longer_and_was_not_kept_alive(
    config: IpcConfig, reader: InMemoryMetricReader, exporter: OpenTelemetryExporter
) -> None:
    async def come_and_go() -> weakref.ref[DetectionServer]:
        async with serving(handler, config) as server:
            exporter.watch(server)
            assert points(reader) != {}
            return weakref.ref(server)

    gone = await come_and_go()
    gc.collect()
    assert gone() is None
    assert points(reader) == {}
    async with serving(handler, config) as server:
        watch = exporter.watch(server)
        assert points(reader)["trio_ipc.server.requests", labels(server.snapshot())] == 0
        watch.close()
        watch.close()
        assert points(reader) == {}


async def test_a_server_that_has_ended_tells_its_last_numbers_while_somebody_holds_it(
    config: IpcConfig, reader: InMemoryMetricReader, exporter: OpenTelemetryExporter
) -> None:
    async with serving(handler, config) as server:
        exporter.watch(server)
        async with open_client(DETECTION, config) as client:
            await client.call(task())
        server.stop()
        await server.wait_stopped()
    assert points(reader)["trio_ipc.server.requests", labels(server.snapshot())] == 1


# --- Both are extras ----------------------------------------------------------------------------------------


def test_the_package_imports_neither() -> None:
    code = "import sys, trio_ipc; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"opentelemetry", "prometheus_client"} & set(run.stdout.split())


def test_the_opentelemetry_exporter_needs_no_sdk() -> None:
    code = (
        "import sys, trio_ipc.telemetry.opentelemetry as o; o.OpenTelemetryExporter();"
        "print('opentelemetry.sdk' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False"]


@pytest.mark.parametrize(
    "metric", [*METRICS, *RESILIENT_METRICS], ids=lambda metric: f"{metric.side}-{metric.name}"
)
def test_the_help_of_a_metric_needs_no_other_metric_beside_it(metric: Metric) -> None:
    assert not re.search(r"\bthese\b|that were not\.|\bcame\.", metric.help)
