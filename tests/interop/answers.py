"""What a server of any peer answers to a task. The other languages have the same rule."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks.messages import process_record
from trio_ipc.daemoneye import (
    DetectionResult,
    DetectionTask,
    FilesystemFilter,
    FilesystemRecord,
    HashCheck,
    HashResult,
    NetworkFilter,
    NetworkRecord,
    PerformanceFilter,
    PerformanceRecord,
    ProcessFilter,
    ProcessRecord,
)


def milliseconds(task: DetectionTask) -> int:
    """How long the response takes."""
    command, _, rest = task.metadata.partition(" ")
    return int(rest) if command == "sleep" else 0


def answer(task: DetectionTask) -> DetectionResult:
    """What is answered: by the metadata, or by the filters, field by field."""
    command, _, rest = task.metadata.partition(" ")
    result = DetectionResult(task_id=task.task_id, success=True)
    if command == "fail":
        result.success = False
        result.error_message = rest
    elif command == "pad":
        result.error_message = "x" * int(rest)
    elif command == "records":
        result.processes.extend(process_record(number) for number in range(int(rest)))
    elif command != "sleep":
        _mirror(task, result)
    return result


def _mirror(task: DetectionTask, result: DetectionResult) -> None:
    """Put all that the filters say into records, and into each kind of number its extremes."""
    if task.HasField("process_filter"):
        result.processes.extend(_processes(task.process_filter))
    if task.HasField("hash_check"):
        result.hash_result.CopyFrom(_hash_result(task.hash_check))
    if task.HasField("network_filter"):
        result.network_events.extend(_network(task.network_filter))
    if task.HasField("filesystem_filter"):
        result.filesystem_events.extend(_filesystem(task.filesystem_filter))
    if task.HasField("performance_filter"):
        result.performance_events.extend(_performance(task.performance_filter))


def _processes(asked: ProcessFilter) -> Iterator[ProcessRecord]:
    names = asked.process_names
    for index, pid in enumerate(asked.pids):
        record = ProcessRecord(
            pid=pid,
            ppid=pid // 2,
            name=names[index] if index < len(names) else "",
            command_line=names,
            start_time=-pid,
            cpu_usage=pid / 4,
            memory_usage=pid << 32,
            accessible=True,
            file_exists=pid % 2 == 1,
            collection_time=-1 - pid,
        )
        if asked.HasField("executable_pattern"):
            record.executable_path = asked.executable_pattern
        yield record


def _hash_result(asked: HashCheck) -> HashResult:
    return HashResult(
        hash_value=asked.expected_hash,
        algorithm=asked.hash_algorithm,
        file_path=asked.executable_path,
        success=bool(asked.expected_hash),
        error_message="",
    )


def _network(asked: NetworkFilter) -> Iterator[NetworkRecord]:
    for index, protocol in enumerate(asked.protocols):
        yield NetworkRecord(
            connection_id=str(index),
            source_address=",".join(asked.source_addresses),
            destination_address=",".join(asked.destination_addresses),
            protocol=protocol,
            state=",".join(asked.connection_states),
            pid=index,
            bytes_sent=2**64 - 1 - index,
            bytes_received=index,
            collection_time=-index,
        )


def _filesystem(asked: FilesystemFilter) -> Iterator[FilesystemRecord]:
    for index, path in enumerate(asked.path_patterns):
        yield FilesystemRecord(
            operation_id=str(index),
            path=path,
            operation_type=",".join(asked.operation_types),
            file_size=2**63 + index,
            permissions="",
            file_hash=",".join(asked.file_extensions),
            collection_time=2**63 - 1 - index,
        )


def _performance(asked: PerformanceFilter) -> Iterator[PerformanceRecord]:
    for unit, thresholds in (("min", asked.min_thresholds), ("max", asked.max_thresholds)):
        for key in sorted(thresholds):
            yield PerformanceRecord(
                metric_id=key,
                metric_name=",".join(asked.metric_names),
                value=thresholds[key],
                unit=unit,
                component=",".join(asked.components),
            )
