"""DaemonEye's contract: its messages, and the rules that its peers already follow.

Everything here is data or a pure function over messages. It must never know how they travel.
"""

from .contract import (
    CAPABILITY_METADATA,
    CAPABILITY_TASK_PREFIX,
    DETECTION,
    failed,
    is_capability_negotiation,
    unsupported,
)
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

__all__ = [
    "CAPABILITY_METADATA",
    "CAPABILITY_TASK_PREFIX",
    "DETECTION",
    "AdvancedCapabilities",
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
    "unsupported",
]
