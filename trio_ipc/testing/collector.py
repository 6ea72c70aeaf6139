"""DaemonEye's collectors, simulated: they are asked for their capabilities, and may lie about a task's id.

All else is any simulated server's, and stands in simulator.py. This module must never know more of DaemonEye
than its contract says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from trio_ipc.config import IpcConfig
from trio_ipc.daemoneye import (
    ASSUMED_CAPABILITIES,
    DETECTION,
    Capabilities,
    DetectionResult,
    DetectionTask,
    failed,
    is_capability_negotiation,
    is_connection_probe,
    unsupported,
)
from trio_ipc.errors import shown, shown_argument
from trio_ipc.server import Call, Handler

from .endpoints import IpcEndpoint
from .memory import MemoryEndpoint
from .pair import config_for
from .reply import Behaviour, Reply, check_behaviour
from .simulator import SimulatedServer


async def succeed(task: DetectionTask, _call: Call) -> DetectionResult:
    """Return a success without findings."""
    await trio.lowlevel.checkpoint()
    return DetectionResult(task_id=task.task_id, success=True)


def wrong_task_id(task_id: str = "another") -> Behaviour:
    """Answer another task than the one that was asked."""
    if not isinstance(task_id, str):
        raise TypeError(f"task_id is {shown(task_id)}, must be a str")

    async def behave(_task: DetectionTask, reply: Reply[DetectionTask, DetectionResult]) -> None:
        await reply.send(DetectionResult(task_id=task_id, success=True))

    return behave


def same_task(
    task: DetectionTask, recorded: DetectionTask, result: DetectionResult
) -> DetectionResult | None:
    """Return a recorded result for a task that differs from the recorded one in nothing but its id.

    For :class:`~trio_ipc.testing.RecordedHandler`. The result is given the new id.
    """
    alike = DetectionTask()
    alike.CopyFrom(recorded)
    alike.task_id = task.task_id
    if alike != task:
        return None
    answer = DetectionResult()
    answer.CopyFrom(result)
    answer.task_id = task.task_id
    return answer


class SimulatedCollector(SimulatedServer[DetectionTask, DetectionResult]):
    """A collector under a script. Made by :func:`simulate_collector`.

    Attributes:
        negotiation: what it does when it is asked for its capabilities, None for stating ``capabilities``.
        capabilities: what it says that it can do; whatever it says, it takes every task. None for saying
            nothing of it, as collectors in the field do.
        negotiations: how often it was asked for its capabilities.
        probes: how often a client only wanted to see whether its connection has a place. Such a task is
            refused as one of an unknown type. ``asked`` has the tasks, these and negotiations excepted.
    """

    def __init__(
        self,
        handler: Handler[DetectionTask, DetectionResult],
        endpoint: IpcEndpoint,
        config: IpcConfig,
        capabilities: Capabilities | None,
    ) -> None:
        super().__init__(handler, DETECTION, endpoint, config)
        self.negotiation: Behaviour | None = None
        self.capabilities = capabilities
        self.negotiations: int = 0
        self.probes: int = 0

    def _check_attribute(self, name: str, value: object) -> None:
        super()._check_attribute(name, value)
        if name == "negotiation" and value is not None:
            check_behaviour(value, name)
        elif name == "capabilities" and not isinstance(value, Capabilities | None):
            raise TypeError(f"capabilities is {shown_argument(value)}, must be Capabilities or None")

    def _behaviour_for(self, request: DetectionTask) -> Behaviour:
        if is_connection_probe(request):
            self.probes += 1
            return self._refuse
        if not is_capability_negotiation(request):
            return super()._behaviour_for(request)
        self.negotiations += 1
        return self.negotiation or self._state_capabilities

    async def _refuse(self, task: DetectionTask, reply: Reply[DetectionTask, DetectionResult]) -> None:
        await reply.send(failed(task, unsupported(task, ()) or ""))

    async def _state_capabilities(
        self, task: DetectionTask, reply: Reply[DetectionTask, DetectionResult]
    ) -> None:
        said = None if self.capabilities is None else self.capabilities.to_message()
        await reply.send(DetectionResult(task_id=task.task_id, success=True, capabilities=said))


@asynccontextmanager
async def simulate_collector(
    *script: Behaviour,
    handler: Handler[DetectionTask, DetectionResult] = succeed,
    endpoint: IpcEndpoint | None = None,
    config: IpcConfig | None = None,
    capabilities: Capabilities | None = ASSUMED_CAPABILITIES,
    use_all: bool = False,
    **settings: Any,
) -> AsyncIterator[SimulatedCollector]:
    """Run a simulated collector for the length of an ``async with`` block.

    Args:
        script: what it does about the first tasks, one each.
        handler: what answers properly, as for :func:`trio_ipc.serve`; by success if not given.
        endpoint: where it listens; one in memory if None.
        config: its settings but for path and transport. It uses checksum and limit, and no deadlines.
        capabilities: what it says that it can do, None for nothing.
        use_all: whether the block fails, by an :exc:`AssertionError`, if the script was not used up.
        settings: fields of ``config`` to change.

    Returns:
        A context manager that gives the :class:`SimulatedCollector`, which listens.

    Raises:
        ConfigError: a setting is wrong.
        EndpointError: the endpoint cannot be used.
        TypeError: the handler is not async, a part of the script is no behaviour, or an argument can't be.

    What a behaviour raises is the block's failure as in :func:`~trio_ipc.testing.simulate_server`.
    """
    place = MemoryEndpoint() if endpoint is None else endpoint
    collector = SimulatedCollector(handler, place, config_for(place, config, settings), capabilities)
    collector.script(*script)
    async with collector.running(use_all=use_all):
        yield collector
