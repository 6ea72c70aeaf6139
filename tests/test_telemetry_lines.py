"""Counters as a line: what a person gets to see, and what is left out."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from tests.support import IN_MEMORY, MemoryEndpoint, serving, succeed, task
from trio_ipc import IpcConfig
from trio_ipc.telemetry import counters_line


@pytest.mark.parametrize(
    ("counters", "line"),
    [
        ({"calls": 3, "transport": "legacy", "failed": 0}, "transport=legacy calls=3"),
        ({"transport": "x", "failed": {"peer": 2, "other": 0}}, "transport=x failed.peer=2"),
        ({"transport": "x", "seconds": 1.23456, "no_time": 0.0}, "transport=x seconds=1.235"),
        ({"transport": "x", "contract": "c", "bounds": [1, 2], "no": None}, "transport=x"),
        ({"transport": "x", "intact": True, "well": False}, "transport=x well=False"),
    ],
    ids=["zeros", "kinds", "floats", "no numbers", "truths"],
)
def test_a_line_has_the_transport_and_what_is_worth_telling(counters: dict[str, Any], line: str) -> None:
    assert counters_line(counters) == line


async def test_a_server_whose_endpoint_was_taken_says_so_in_its_line() -> None:
    endpoint = MemoryEndpoint(IpcConfig(endpoint_path=IN_MEMORY))
    async with serving(succeed, endpoint) as server:
        await endpoint.client().call(task())
        snapshot = server.snapshot()
    assert "endpoint_intact" not in counters_line(snapshot.as_dict())
    gone = attrs.evolve(snapshot, endpoint_intact=False)
    assert " endpoint_intact=False" in counters_line(gone.as_dict())
