from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from trio_ipc.daemoneye import (
    ASSUMED_CAPABILITIES,
    CAPABILITY_METADATA,
    CAPABILITY_TASK_PREFIX,
    DETECTION,
    PROBE_METADATA,
    PROBE_TASK_PREFIX,
    PROBE_TASK_TYPE,
    Capabilities,
    CapabilityGate,
    DetectionResult,
    DetectionTask,
    MonitoringDomain,
    TaskType,
    failed,
    is_capability_negotiation,
    is_connection_probe,
    negotiation_task,
    probe_task,
    stated_capabilities,
)

ALL = Capabilities(MonitoringDomain.values(), kernel_level=True, realtime=True, system_wide=True)


async def work(task: DetectionTask, _: None) -> DetectionResult:
    return DetectionResult(task_id=task.task_id, success=True, error_message="worked")


@pytest.mark.parametrize(
    "capabilities",
    [
        ALL,
        Capabilities([]),
        Capabilities([MonitoringDomain.NETWORK], realtime=True),
        Capabilities([42]),  # a domain of a later version
    ],
)
async def test_what_a_gate_states_is_what_the_other_side_learns(capabilities: Capabilities) -> None:
    asked = negotiation_task()
    answer = await CapabilityGate(work, capabilities)(asked, None)
    assert (answer.task_id, answer.success) == (asked.task_id, True)
    arrived = DetectionResult.FromString(answer.SerializeToString())
    assert stated_capabilities(arrived) == capabilities


def test_a_negotiation_is_the_task_that_existing_peers_send() -> None:
    asked = negotiation_task()
    assert is_capability_negotiation(asked)
    assert (asked.metadata, asked.task_type) == (CAPABILITY_METADATA, 0)
    assert asked.task_id.startswith(CAPABILITY_TASK_PREFIX)
    assert asked.task_id != negotiation_task().task_id


@pytest.mark.parametrize(
    "answer", [DetectionResult(task_id="t", success=True), failed(DetectionTask(), "no such task")]
)
def test_a_peer_that_does_not_say_is_taken_to_have_the_process_domain(answer: DetectionResult) -> None:
    assert stated_capabilities(answer) is ASSUMED_CAPABILITIES
    assert ASSUMED_CAPABILITIES.domains == {MonitoringDomain.PROCESS}


async def test_a_gate_lets_through_what_is_within_and_refuses_the_rest_in_the_known_wording() -> None:
    gate = CapabilityGate(work, Capabilities([MonitoringDomain.NETWORK]))
    network = DetectionTask(task_id="n", task_type=TaskType.MONITOR_NETWORK_CONNECTIONS)
    assert (await gate(network, None)).error_message == "worked"
    assert await gate(DetectionTask(task_id="p"), None) == failed(
        DetectionTask(task_id="p"), "Process monitoring not supported"
    )
    unknown = DetectionTask.FromString(b"\x10\x2a")
    assert (await gate(unknown, None)).error_message == "Unknown task type: 42"


async def test_capabilities_may_change_while_it_serves() -> None:
    gate = CapabilityGate(work, Capabilities([]))
    assert not (await gate(DetectionTask(task_id="t"), None)).success
    gate.capabilities = ALL
    assert (await gate(DetectionTask(task_id="t"), None)).success
    assert stated_capabilities(await gate(negotiation_task(), None)) == ALL


async def test_only_the_response_to_a_negotiation_carries_them() -> None:
    answer = await CapabilityGate(work, ALL)(DetectionTask(task_id="t"), None)
    assert not answer.HasField("capabilities")


async def test_a_decoder_that_does_not_know_the_extension_skips_it() -> None:
    """The schema as existing peers have it: ours without the field."""
    ours = descriptor_pb2.FileDescriptorProto()
    DetectionResult.DESCRIPTOR.file.CopyToProto(ours)
    ours.name = "old.proto"
    for message in ours.message_type:
        for field in [field for field in message.field if field.number >= 100]:
            message.field.remove(field)
            del message.oneof_decl[field.oneof_index]  # what proto3 makes of "optional"
    result = next(message for message in ours.message_type if message.name == "DetectionResult")
    assert [field.number for field in result.field] == list(range(1, 9))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(ours)
    old = message_factory.GetMessageClass(pool.FindMessageTypeByName("trio_ipc.daemoneye.v1.DetectionResult"))
    answer = await CapabilityGate(work, ALL)(negotiation_task(), None)
    decoded = old.FromString(answer.SerializeToString())
    assert decoded.task_id == answer.task_id  # type: ignore[attr-defined]
    assert decoded.success  # type: ignore[attr-defined]
    assert not decoded.HasField("error_message")


def test_the_contract_lets_tasks_be_repeated_and_says_how_to_ask() -> None:
    assert DETECTION.may_repeat(DetectionTask())
    assert DETECTION.negotiation is not None
    assert not DETECTION.negotiation.can_do(
        ASSUMED_CAPABILITIES, DetectionTask(task_type=TaskType.TRACK_FILE_OPERATIONS)
    )


async def test_a_probe_costs_a_gate_nothing_and_is_refused_by_who_does_not_know_it() -> None:
    probe = probe_task()
    assert is_connection_probe(probe)
    assert not is_capability_negotiation(probe)
    assert (probe.metadata, probe.task_type) == (PROBE_METADATA, PROBE_TASK_TYPE)
    assert probe.task_id.startswith(PROBE_TASK_PREFIX)
    assert probe.task_id != probe_task().task_id
    assert DetectionTask.FromString(probe.SerializeToString()) == probe
    worked: list[DetectionTask] = []

    async def note(task: DetectionTask, _: None) -> DetectionResult:
        worked.append(task)
        return DetectionResult(task_id=task.task_id)

    answer = await CapabilityGate(note, Capabilities([]))(probe, None)
    assert (answer.task_id, answer.success, worked) == (probe.task_id, True, [])
    assert ALL.refusal(probe) == "Unknown task type: 2147483647"
    for near in (DetectionTask(metadata=PROBE_METADATA), DetectionTask(task_type=probe.task_type)):
        assert not is_connection_probe(near)
