"""DaemonEye's contract: its messages, and the rules that its peers already follow.

Everything here is data or a pure function over messages. It must never know how they travel.
"""

from .capabilities import (
    ASSUMED_CAPABILITIES,
    Capabilities,
    CapabilityGate,
    negotiation_task,
    stated_capabilities,
)
from .contract import DETECTION
from .detection_pb2 import (
    AdvancedCapabilities,
    CapabilityRequest,
    CapabilityResponse,
    CollectionCapabilities,
    DetectionResult,
    DetectionTask,
    FilesystemFilter,
    FilesystemRecord,
    HashCheck,
    HashResult,
    MonitoringDomain,
    NetworkFilter,
    NetworkRecord,
    PerformanceFilter,
    PerformanceRecord,
    ProcessFilter,
    ProcessRecord,
    TaskType,
)
from .rules import (
    CAPABILITY_METADATA,
    CAPABILITY_TASK_PREFIX,
    failed,
    is_capability_negotiation,
    unsupported,
)

__all__ = [
    "ASSUMED_CAPABILITIES",
    "CAPABILITY_METADATA",
    "CAPABILITY_TASK_PREFIX",
    "DETECTION",
    "AdvancedCapabilities",
    "Capabilities",
    "CapabilityGate",
    "CapabilityRequest",
    "CapabilityResponse",
    "CollectionCapabilities",
    "DetectionResult",
    "DetectionTask",
    "FilesystemFilter",
    "FilesystemRecord",
    "HashCheck",
    "HashResult",
    "MonitoringDomain",
    "NetworkFilter",
    "NetworkRecord",
    "PerformanceFilter",
    "PerformanceRecord",
    "ProcessFilter",
    "ProcessRecord",
    "TaskType",
    "failed",
    "is_capability_negotiation",
    "negotiation_task",
    "stated_capabilities",
    "unsupported",
]
