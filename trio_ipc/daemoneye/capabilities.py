"""What a collector can do: how it is stated, asked for and told.

Frames carry no type tag, so that the question is an ordinary task with a marker that all peers know
(docs/wire-protocol.md). Existing collectors answer it by ``success = true`` and nothing else; ours put
the truth beside that, in a field that old decoders skip. Nothing here may know how messages travel.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Generic, TypeVar, cast

import attrs

from trio_ipc.contract import Negotiation

from .detection_pb2 import (
    AdvancedCapabilities,
    CollectionCapabilities,
    DetectionResult,
    DetectionTask,
    MonitoringDomain,
    TaskType,
)
from .rules import (
    CAPABILITY_METADATA,
    CAPABILITY_TASK_PREFIX,
    PROBE_METADATA,
    PROBE_TASK_PREFIX,
    PROBE_TASK_TYPE,
    failed,
    is_capability_negotiation,
    is_connection_probe,
    unsupported,
)

_CallT = TypeVar("_CallT")


def _as_set(domains: Iterable[int]) -> frozenset[int]:
    return frozenset(int(domain) for domain in domains)


@attrs.frozen
class Capabilities:
    """What a collector can do.

    Attributes:
        domains: the :class:`MonitoringDomain` values whose tasks it takes.
        kernel_level, realtime, system_wide: its advanced capabilities.
        stated: False for what is assumed of a peer that does not say.
    """

    domains: frozenset[int] = attrs.field(converter=_as_set)
    kernel_level: bool = attrs.field(default=False, kw_only=True)
    realtime: bool = attrs.field(default=False, kw_only=True)
    system_wide: bool = attrs.field(default=False, kw_only=True)
    stated: bool = attrs.field(default=True, kw_only=True)

    def refusal(self, task: DetectionTask) -> str | None:
        """Return why a collector of these capabilities refuses a task, None if it takes it."""
        return unsupported(task, self.domains)

    def to_message(self) -> CollectionCapabilities:
        """Return the same as a message."""
        return CollectionCapabilities(
            # A plain int to protobuf, though its stub has a class for it.
            supported_domains=cast("list[MonitoringDomain]", sorted(self.domains)),
            advanced=AdvancedCapabilities(
                kernel_level=self.kernel_level, realtime=self.realtime, system_wide=self.system_wide
            ),
        )


#: What existing agents assume of a collector that does not say: the process domain, nothing advanced.
ASSUMED_CAPABILITIES: Final = Capabilities([MonitoringDomain.PROCESS], stated=False)


def negotiation_task() -> DetectionTask:
    """Return a task that asks a collector what it can do."""
    return DetectionTask(task_id=f"{CAPABILITY_TASK_PREFIX}{uuid.uuid4()}", metadata=CAPABILITY_METADATA)


def probe_task() -> DetectionTask:
    """Return a task that costs a collector nothing; any response shows that the connection has a place."""
    return DetectionTask(
        task_id=f"{PROBE_TASK_PREFIX}{uuid.uuid4()}",
        metadata=PROBE_METADATA,
        task_type=cast("TaskType", PROBE_TASK_TYPE),  # a plain int to protobuf, though its stub has a class
    )


def stated_capabilities(result: DetectionResult) -> Capabilities:
    """Return what the response to :func:`negotiation_task` says, or what is assumed where it says nothing."""
    if not result.HasField("capabilities"):
        return ASSUMED_CAPABILITIES
    said = result.capabilities
    return Capabilities(
        said.supported_domains,
        kernel_level=said.advanced.kernel_level,
        realtime=said.advanced.realtime,
        system_wide=said.advanced.system_wide,
    )


def _can_do(capabilities: Capabilities, task: DetectionTask) -> bool:
    return capabilities.refusal(task) is None


#: How a client asks a collector what it can do and whether it has a place, and what is enough for a task.
NEGOTIATION: Final = Negotiation(
    ask=negotiation_task, learn=stated_capabilities, can_do=_can_do, probe=probe_task
)


class CapabilityGate(Generic[_CallT]):
    """A handler in front of a collector's own: states what it can do, and refuses everything else.

    Serve it in the other's place: ``serve(CapabilityGate(collector.handle, capabilities), DETECTION)``.

    Args:
        handler: answers the tasks within the capabilities. It sees no negotiation and no probe.
        capabilities: what the collector can do.

    Attributes:
        capabilities: as given. It may be set while the server runs: the next task is judged by it, and
            agents learn of it when they ask the next time.
    """

    def __init__(
        self,
        handler: Callable[[DetectionTask, _CallT], Awaitable[DetectionResult]],
        capabilities: Capabilities,
    ) -> None:
        self._handler = handler
        self.capabilities = capabilities

    async def __call__(self, task: DetectionTask, call: _CallT) -> DetectionResult:
        """Answer one task; what the handler raises comes out."""
        if is_capability_negotiation(task):
            return DetectionResult(
                task_id=task.task_id, success=True, capabilities=self.capabilities.to_message()
            )
        if is_connection_probe(task):
            return DetectionResult(task_id=task.task_id, success=True)
        refusal = self.capabilities.refusal(task)
        if refusal is not None:
            return failed(task, refusal)
        return await self._handler(task, call)
