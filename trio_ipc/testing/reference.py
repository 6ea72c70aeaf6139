"""A collector as DaemonEye's own is: what it does otherwise than ours, in one simulated server.

It speaks CRC-32C alone, has one place, closes without a word whatever goes wrong, ignores filters, and takes
the question for its capabilities for an enumeration (docs/wire-protocol.md). This module must never do what
the reference was not seen to do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import trio

from trio_ipc.config import Crc32Variant, IpcConfig
from trio_ipc.contract import encode
from trio_ipc.daemoneye import DetectionResult, DetectionTask, ProcessRecord, TaskType, failed
from trio_ipc.errors import MessageError, leaves
from trio_ipc.server import Call

from .checking import check_whole, checked_all
from .collector import SimulatedCollector, simulate_collector
from .endpoints import IpcEndpoint
from .outcome import is_the_tests
from .reply import Behaviour, Reply


def close_on_failure() -> Behaviour:
    """Answer properly; close without a word if the handler fails or the response fits no frame.

    What the handler asserts reaches the test nevertheless.
    """

    async def behave(_request: Any, reply: Reply[Any, Any]) -> None:
        try:
            response = await reply.proper()
        except Exception as exc:
            if any(map(is_the_tests, leaves(exc))):
                raise
            await reply.close()
            return
        try:
            frame = reply.framed(encode(response))
        except (MessageError, ValueError):
            await reply.close()
            return
        await reply.send_bytes(frame)

    return behave


@asynccontextmanager
async def simulate_reference(
    records: Iterable[ProcessRecord] = (),
    *,
    endpoint: IpcEndpoint | None = None,
    config: IpcConfig | None = None,
    places: int = 1,
    **settings: Any,
) -> AsyncIterator[SimulatedCollector]:
    """Run a collector as DaemonEye's own is, for the length of an ``async with`` block.

    Args:
        records: all processes that it sees. It gives all of them, whatever is asked for.
        endpoint: where it listens; one in memory if None.
        config: its settings but for path, transport and checksum.
        places: how many connections it serves at a time; one more is closed at once.
        settings: fields of ``config`` to change.

    Returns:
        A context manager that gives the :class:`SimulatedCollector`, which listens.

    Raises:
        ConfigError: a setting is wrong.
        EndpointError: the endpoint cannot be used.
        TypeError: ``records`` has something else, or ``places`` is no number of connections.
        ValueError: ``places`` is negative.
    """
    check_whole("places", places, 0)
    seen = checked_all("records", records, ProcessRecord, "ProcessRecords only")

    async def enumerate_all(task: DetectionTask, _call: Call) -> DetectionResult:
        await trio.lowlevel.checkpoint()
        if task.task_type != TaskType.ENUMERATE_PROCESSES:
            return failed(task, "not yet implemented")
        return DetectionResult(task_id=task.task_id, success=True, processes=seen)

    settings["crc32_variant"] = Crc32Variant.CASTAGNOLI
    async with simulate_collector(
        handler=enumerate_all, endpoint=endpoint, config=config, capabilities=None, **settings
    ) as collector:
        collector.places = places
        collector.default = collector.negotiation = close_on_failure()
        yield collector
