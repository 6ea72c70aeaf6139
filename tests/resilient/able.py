"""What the tests of capabilities share."""

from __future__ import annotations

from tests.support import succeed
from trio_ipc import Call
from trio_ipc.daemoneye import (
    CAPABILITY_TASK_PREFIX,
    Capabilities,
    CapabilityGate,
    DetectionResult,
    DetectionTask,
    MonitoringDomain,
    TaskType,
)

from .support import FakeServer

PROCESS, NETWORK = MonitoringDomain.PROCESS, MonitoringDomain.NETWORK

NETWORK_TASK = DetectionTask(task_id="n", task_type=TaskType.MONITOR_NETWORK_CONNECTIONS)


class Able(FakeServer):
    """A server of these domains, which may be changed."""

    def __init__(self, name: str, *domains: int, **flags: bool) -> None:
        super().__init__(name, read_timeout_ms=1_000_000)
        self.gate = CapabilityGate[Call](self.work, Capabilities(domains, **flags))
        self.handler = self.gate
        self.worked: list[str] = []

    async def work(self, task: DetectionTask, call: Call) -> DetectionResult:
        self.worked.append(task.task_id)
        return await succeed(task, call)

    @property
    def negotiations(self) -> int:
        return sum(name.startswith(CAPABILITY_TASK_PREFIX) for name in self.asked)
