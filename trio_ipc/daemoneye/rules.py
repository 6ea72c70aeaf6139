"""What DaemonEye's peers agree on beyond the encoding (docs/wire-protocol.md).

Pure functions over messages; the wording of refusals is a contract with peers in other languages.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from .detection_pb2 import DetectionResult, DetectionTask, MonitoringDomain, TaskType

#: ``DetectionTask.metadata`` of a capability negotiation: frames have no type tag, so it is a task.
CAPABILITY_METADATA: Final = "capability_negotiation"

#: A negotiation's ``task_id`` is this and a UUID4.
CAPABILITY_TASK_PREFIX: Final = "capability-negotiation-"

#: ``DetectionTask.metadata`` of a probe: a client only wants to see whether its connection has a place.
PROBE_METADATA: Final = "connection_probe"

#: A probe's ``task_id`` is this and a UUID4.
PROBE_TASK_PREFIX: Final = "connection-probe-"

#: A probe's task type, the largest that an enum of protobuf can have: peers refuse a type that they do not
#: know before they do any work (docs/wire-protocol.md).
PROBE_TASK_TYPE: Final = 2**31 - 1

_DOMAIN_OF: Final = {
    TaskType.ENUMERATE_PROCESSES: MonitoringDomain.PROCESS,
    TaskType.CHECK_PROCESS_HASH: MonitoringDomain.PROCESS,
    TaskType.MONITOR_PROCESS_TREE: MonitoringDomain.PROCESS,
    TaskType.VERIFY_EXECUTABLE: MonitoringDomain.PROCESS,
    TaskType.MONITOR_NETWORK_CONNECTIONS: MonitoringDomain.NETWORK,
    TaskType.TRACK_FILE_OPERATIONS: MonitoringDomain.FILESYSTEM,
    TaskType.COLLECT_PERFORMANCE_METRICS: MonitoringDomain.PERFORMANCE,
}

_DOMAIN_NAME: Final = {
    MonitoringDomain.PROCESS: "Process",
    MonitoringDomain.NETWORK: "Network",
    MonitoringDomain.FILESYSTEM: "Filesystem",
    MonitoringDomain.PERFORMANCE: "Performance",
}


def failed(task: DetectionTask | None, message: str) -> DetectionResult:
    """Return the result that reports a failure.

    Args:
        task: the task that failed, or None where it could not be read.
        message: for people.

    Returns:
        A result with the task's ``task_id`` (empty without a task), ``success = false`` and the message.
    """
    return DetectionResult(task_id="" if task is None else task.task_id, success=False, error_message=message)


def unsupported(task: DetectionTask, domains: Collection[int]) -> str | None:
    """Return why a collector of these domains refuses a task, in the peers' own wording.

    Args:
        task: the task as it came; its type may be a number that this version does not know.
        domains: the :class:`MonitoringDomain` values that the collector can do.

    Returns:
        The ``error_message`` of the refusal, or None if the task is within the domains.
    """
    domain = _DOMAIN_OF.get(task.task_type)
    if domain is None:
        return f"Unknown task type: {int(task.task_type)}"
    if domain not in domains:
        return f"{_DOMAIN_NAME[domain]} monitoring not supported"
    return None


def is_capability_negotiation(task: DetectionTask) -> bool:
    """Return whether a task asks what the collector can do, rather than for work."""
    return task.metadata == CAPABILITY_METADATA


def is_connection_probe(task: DetectionTask) -> bool:
    """Return whether a task asks for nothing but a response, by which a client sees that it has a place."""
    return task.metadata == PROBE_METADATA and task.task_type == PROBE_TASK_TYPE
