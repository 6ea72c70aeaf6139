from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import UNPRINTABLE
from trio_ipc.daemoneye import (
    CAPABILITY_METADATA,
    DETECTION,
    CapabilityRequest,
    DetectionResult,
    DetectionTask,
    MonitoringDomain,
    TaskType,
    failed,
    is_capability_negotiation,
    unsupported,
)


def test_a_failure_carries_the_tasks_id() -> None:
    assert failed(DetectionTask(task_id="t"), "no") == DetectionResult(task_id="t", error_message="no")
    assert failed(None, "no") == DetectionResult(error_message="no")
    assert DETECTION.failure is failed


@pytest.mark.parametrize(
    ("task_type", "refusal"),
    [
        (TaskType.ENUMERATE_PROCESSES, "Process monitoring not supported"),
        (TaskType.CHECK_PROCESS_HASH, "Process monitoring not supported"),
        (TaskType.MONITOR_PROCESS_TREE, "Process monitoring not supported"),
        (TaskType.VERIFY_EXECUTABLE, "Process monitoring not supported"),
        (TaskType.MONITOR_NETWORK_CONNECTIONS, "Network monitoring not supported"),
        (TaskType.TRACK_FILE_OPERATIONS, "Filesystem monitoring not supported"),
        (TaskType.COLLECT_PERFORMANCE_METRICS, "Performance monitoring not supported"),
    ],
)
def test_a_task_outside_the_domains_is_refused_in_the_known_wording(
    task_type: TaskType, refusal: str
) -> None:
    task = DetectionTask(task_type=task_type)
    assert unsupported(task, []) == refusal
    assert unsupported(task, MonitoringDomain.values()) is None


def test_a_task_type_from_the_future_is_refused_by_its_number() -> None:
    task = DetectionTask.FromString(b"\x10\x2a")
    assert unsupported(task, MonitoringDomain.values()) == "Unknown task type: 42"


def test_a_response_to_another_task_is_a_mismatch_that_repeats_what_the_peer_said() -> None:
    task = DetectionTask(task_id="mine")
    assert DETECTION.mismatch(task, DetectionResult(task_id="mine")) is None
    assert DETECTION.mismatch(task, DetectionResult(task_id="yours")) == (
        "the response has task_id 'yours', the request had 'mine'"
    )
    said = DETECTION.mismatch(task, failed(None, "protocol violation"))
    assert said is not None
    assert said.endswith("; the peer says: 'protocol violation'")


def test_a_mismatch_shows_nothing_that_steers_a_terminal() -> None:
    said = DETECTION.mismatch(DetectionTask(task_id=UNPRINTABLE), failed(None, UNPRINTABLE * 1_000))
    assert said is not None
    assert said.isprintable()
    assert len(said) < 10_000


def test_the_negotiation_marker_is_known() -> None:
    assert is_capability_negotiation(DetectionTask(metadata=CAPABILITY_METADATA))
    assert not is_capability_negotiation(DetectionTask(metadata="x"))


def test_the_registry_names_are_ours_alone() -> None:
    file = CapabilityRequest.DESCRIPTOR.file
    assert file.package == "trio_ipc.daemoneye.v1"
    assert file.name == "trio_ipc/daemoneye/detection.proto"


def test_the_schema_is_the_wire_contracts() -> None:
    """The .proto file and the table in docs/wire-protocol.md say the same of every field."""
    document = (Path(__file__).parents[2] / "docs" / "wire-protocol.md").read_text()
    for message in DetectionTask.DESCRIPTOR.file.message_types_by_name.values():
        row = re.search(rf"^- `{message.name}`: (.*)$", document, re.MULTILINE)
        assert row is not None, message.name
        for field in message.fields:
            assert re.search(rf"\b{field.number} {field.name}\b", row[1]), f"{message.name}.{field.name}"
