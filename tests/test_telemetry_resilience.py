"""What exporters report of a resilient client is what it says of itself."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import trio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from trio.testing import MockClock

from tests.resilient.support import DetectionResilientClient, FakeServer, calling, connections_of
from tests.support import IN_MEMORY, task
from tests.test_telemetry_exporters import points, series_in
from trio_ipc import Endpoint, EndpointSnapshot, IpcConfig, ResilientSnapshot, TransportType
from trio_ipc.daemoneye import DETECTION
from trio_ipc.errors import IpcError
from trio_ipc.telemetry.kinds import Kind
from trio_ipc.telemetry.metrics import METRICS
from trio_ipc.telemetry.opentelemetry import OpenTelemetryExporter
from trio_ipc.telemetry.prometheus import PrometheusCollector, prometheus_text

Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]

#: What is a label, or has metrics of its own.
NO_METRICS = {"contract", "transport", "strategy", "endpoint", "id", "endpoints"}


async def some_calls(client: DetectionResilientClient, failing: FakeServer) -> None:
    """So many that no number is 0 and few are equal."""
    for number in range(3):
        await client.call(task(str(number)))
    failing.crash()
    for number in range(7):
        try:
            await client.call(task(f"x{number}"), endpoint=failing.name, timeout=3)
        except IpcError:
            await trio.sleep(1)
    await client.call(task("last"))


def whole_labels(of: ResilientSnapshot) -> dict[str, str]:
    return {"contract": of.contract, "strategy": of.strategy}


def one_labels(one: EndpointSnapshot, of: ResilientSnapshot) -> dict[str, str]:
    return {**whole_labels(of), "endpoint": one.endpoint, "id": one.id, "transport": one.transport}


def check_all(series: Series, of: ResilientSnapshot, *, prometheus: bool) -> None:
    """Expect every number of a snapshot in its series."""
    expected: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    holders: list[tuple[str, Any, dict[str, str]]] = [("resilient", of, whole_labels(of))]
    holders += [("resilient_endpoint", one, one_labels(one, of)) for one in of.endpoints]
    for side, holder, labels in holders:
        for field in attrs.fields(type(holder)):
            if field.name in NO_METRICS:
                continue
            [metric] = [one for one in METRICS if (one.side, one.field) == (side, field.name)]
            name = f"trio_ipc.{side}.{metric.name}"
            if prometheus:
                name = "_".join(filter(None, (name.replace(".", "_"), metric.unit)))
                name += "_total" if metric.kind is Kind.COUNTER else ""
            value = getattr(holder, field.name)
            values = value if isinstance(value, Mapping) else {None: value}
            for kind, number in values.items():
                more = {} if kind is None else {metric.label: kind}
                expected[name, frozenset({**labels, **more}.items())] = float(number)
    assert series == expected


def test_every_number_of_a_snapshot_is_one_metric() -> None:
    for side, kind in {"resilient": ResilientSnapshot, "resilient_endpoint": EndpointSnapshot}.items():
        fields = {field.name for field in attrs.fields(kind)} - NO_METRICS
        metrics = [metric.field for metric in METRICS if metric.side == side]
        assert sorted(metrics) == sorted(fields)


async def test_a_snapshot_says_what_metrics_and_statistics_say(autojump_clock: MockClock) -> None:
    a, b = FakeServer("a"), FakeServer("b")
    async with calling(a, b, contract=DETECTION, priorities=[1, 2]) as client:
        await some_calls(client, b)
        said, metrics, statistics = client.snapshot(), client.metrics(), client.statistics()
    assert (said.tasks_sent, said.tasks_completed, said.tasks_failed) == (
        metrics.tasks_sent_total,
        metrics.tasks_completed_total,
        metrics.tasks_failed_total,
    )
    assert said.tasks_failed >= 5
    assert (said.connection_attempts, said.connections_established, said.connection_failures) == (
        metrics.connection_attempts_total,
        metrics.connections_established_total,
        metrics.connection_failures_total,
    )
    assert (said.bytes_sent, said.bytes_received) == (metrics.bytes_sent_total, metrics.bytes_received_total)
    assert said.breaker_activations == metrics.circuit_breaker_activations_total == 1
    assert (said.task_seconds, said.connecting_seconds) == (
        metrics.task_duration_ms_total / 1000,
        metrics.connection_duration_ms_total / 1000,
    )
    assert said.uptime_seconds == trio.current_time()
    for one, told in zip(said.endpoints, statistics, strict=True):
        assert (one.id, one.priority, one.healthy, one.breaker_activations) == (
            told.endpoint.id,
            told.endpoint.priority,
            told.healthy,
            told.breaker.activations,
        )
        assert one.health_score == pytest.approx(told.health_score)
        assert (one.answers, one.failures, one.connection_failures) == (
            told.answers,
            told.failures,
            told.connection_failures,
        )
        assert {state for state, is_it in one.breaker.items() if is_it} == {told.breaker.state}
    assert [one.healthy for one in said.endpoints] == [True, False]
    assert json.loads(json.dumps(said.as_dict()))["endpoints"][1]["breaker"]["open"] == 1


async def test_prometheus_text_says_it_all(autojump_clock: MockClock) -> None:
    a, b = FakeServer("a"), FakeServer("b")
    async with calling(a, b, contract=DETECTION) as client:
        await some_calls(client, b)
        said = client.snapshot()
    check_all(series_in(prometheus_text(said)), said, prometheus=True)


async def test_counters_go_on_in_their_series_when_an_endpoint_of_another_transport_is_added(
    autojump_clock: MockClock,
) -> None:
    async with calling(FakeServer("a")) as client:
        before = {key for key in series_in(prometheus_text(client.snapshot())) if "endpoint" not in key[0]}
        client.add_endpoint(Endpoint(IpcConfig(endpoint_path=IN_MEMORY, transport=TransportType.LEGACY)))
        said = client.snapshot()
        after = {key for key in series_in(prometheus_text(said)) if "endpoint" not in key[0]}
    assert said.transport == "interprocess, legacy"
    assert before == after


async def test_exporters_read_it_in_a_thread_of_their_own_while_calls_are_made(mock_clock: MockClock) -> None:
    registry, collector = CollectorRegistry(), PrometheusCollector()
    registry.register(collector)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    exporter = OpenTelemetryExporter(provider)
    async with calling(FakeServer("a"), FakeServer("b"), contract=DETECTION) as client:
        for _ in range(5):
            client._upstreams["b"].breaker.admit().fail()  # type: ignore[union-attr]
        with collector.watch(client), exporter.watch(client):
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(client.call, task(str(number)))
                await trio.to_thread.run_sync(generate_latest, registry)
            text = await trio.to_thread.run_sync(generate_latest, registry)
            check_all(series_in(text.decode()), client.snapshot(), prometheus=True)
            found = await trio.to_thread.run_sync(points, reader)
            check_all(found, client.snapshot(), prometheus=False)
            openmetrics = generate_openmetrics(registry).decode()  # type: ignore[no-untyped-call]
            assert len(list(parse_openmetrics(openmetrics))) == 24  # type: ignore[no-untyped-call]
    provider.shutdown()


async def test_exporters_keep_no_client_alive() -> None:
    registry, collector = CollectorRegistry(), PrometheusCollector()
    registry.register(collector)

    async def come_and_go() -> weakref.ref[DetectionResilientClient]:
        async with calling(FakeServer("a")) as client:
            collector.watch(client)
            assert b"trio_ipc_resilient_tasks_sent_total" in generate_latest(registry)
            return weakref.ref(client)

    gone = await come_and_go()
    gc.collect()
    assert gone() is None
    assert generate_latest(registry) == b""


async def test_a_closed_client_tells_its_last_numbers_and_its_clock_stands(autojump_clock: MockClock) -> None:
    async with calling(FakeServer("a"), contract=DETECTION) as client:
        await client.call(task())
        await trio.sleep(5)
    last = client.snapshot()
    await trio.sleep(5)
    assert (last.tasks_completed, last.uptime_seconds) == (1, 5)
    assert client.snapshot().uptime_seconds == 5
    assert (last.connections_active, last.connections_pooled) == (0, 0)
    assert not connections_of(client)
