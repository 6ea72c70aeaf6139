"""Paths that are no UTF-8: they are files like any other, and whatever writes them as text goes on."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tests.examples.support import procmond, spawn
from tests.platforms import unix_only
from tests.support import serving, succeed, success, task
from trio_ipc import EndpointInUseError, IpcConfig, IpcError, TransportType, open_client, serve
from trio_ipc.daemoneye import DETECTION
from trio_ipc.errors import writable
from trio_ipc.telemetry.opentelemetry import OpenTelemetryExporter
from trio_ipc.telemetry.prometheus import prometheus_text

pytestmark = [
    unix_only,
    pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take no names but UTF-8"),
]


@pytest.fixture
def odd(directory: str, transport: TransportType) -> IpcConfig:
    path = os.fsdecode(os.fsencode(directory) + b"/\xff\xe9.sock")
    return IpcConfig(endpoint_path=path, transport=transport)


def test_what_is_no_text_is_written_as_python_writes_it() -> None:
    assert writable("/run/x.sock") == "/run/x.sock"
    assert writable("/run/\u00e9\udcff") == "/run/\u00e9\\udcff"


async def test_such_a_path_is_served_called_and_exported(odd: IpcConfig) -> None:
    async with serving(succeed, odd) as server, open_client(DETECTION, odd) as client:
        assert await client.call(task()) == success()
        assert os.path.exists(server.endpoint)
        snapshots = server.snapshot(), client.snapshot()
        assert r"\\udcff\\udce9.sock" in prometheus_text(*snapshots)
        prometheus_text(*snapshots).encode()
        reader = InMemoryMetricReader()
        exporter = OpenTelemetryExporter(MeterProvider([reader]))
        with exporter.watch(server), exporter.watch(client):
            data: Any = reader.get_metrics_data()
        data.to_json().encode()
        points = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
        for point in points:
            assert point.attributes["endpoint"].encode().endswith(rb"/\udcff\udce9.sock")


async def test_its_errors_can_be_printed(odd: IpcConfig) -> None:
    with pytest.raises(IpcError) as missing:
        async with open_client(DETECTION, odd):
            pass
    async with serving(succeed, odd):
        with pytest.raises(EndpointInUseError) as taken:
            await serve(succeed, DETECTION, odd)
    for error in (missing.value, taken.value):
        assert rb"\udcff\udce9.sock: " in str(error).encode()
        assert error.endpoint == odd.endpoint_path


async def test_its_lines_in_a_log_file_are_not_lost(
    odd: IpcConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = logging.FileHandler(tmp_path / "log", encoding="utf-8")
    logger = logging.getLogger("trio_ipc")
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        async with serving(succeed, odd):
            pass
    finally:
        logger.removeHandler(handler)
        logger.setLevel("NOTSET")
        handler.close()
    assert rb"listening at" in (tmp_path / "log").read_bytes()
    assert rb"\udcff\udce9.sock" in (tmp_path / "log").read_bytes()
    assert capsys.readouterr().err == ""


async def test_the_example_collector_says_where_it_listens(odd: IpcConfig) -> None:
    async with spawn(*procmond(odd.endpoint_path)) as collector:
        with trio.fail_after(60):
            assert await collector.stdout.next() == f"listening on {writable(odd.endpoint_path)}"
        collector.process.terminate()
        assert await collector.end() == 0
