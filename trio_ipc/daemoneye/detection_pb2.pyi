from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENUMERATE_PROCESSES: _ClassVar[TaskType]
    CHECK_PROCESS_HASH: _ClassVar[TaskType]
    MONITOR_PROCESS_TREE: _ClassVar[TaskType]
    VERIFY_EXECUTABLE: _ClassVar[TaskType]
    MONITOR_NETWORK_CONNECTIONS: _ClassVar[TaskType]
    TRACK_FILE_OPERATIONS: _ClassVar[TaskType]
    COLLECT_PERFORMANCE_METRICS: _ClassVar[TaskType]

class MonitoringDomain(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROCESS: _ClassVar[MonitoringDomain]
    NETWORK: _ClassVar[MonitoringDomain]
    FILESYSTEM: _ClassVar[MonitoringDomain]
    PERFORMANCE: _ClassVar[MonitoringDomain]
ENUMERATE_PROCESSES: TaskType
CHECK_PROCESS_HASH: TaskType
MONITOR_PROCESS_TREE: TaskType
VERIFY_EXECUTABLE: TaskType
MONITOR_NETWORK_CONNECTIONS: TaskType
TRACK_FILE_OPERATIONS: TaskType
COLLECT_PERFORMANCE_METRICS: TaskType
PROCESS: MonitoringDomain
NETWORK: MonitoringDomain
FILESYSTEM: MonitoringDomain
PERFORMANCE: MonitoringDomain

class ProcessFilter(_message.Message):
    __slots__ = ("process_names", "pids", "executable_pattern")
    PROCESS_NAMES_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    EXECUTABLE_PATTERN_FIELD_NUMBER: _ClassVar[int]
    process_names: _containers.RepeatedScalarFieldContainer[str]
    pids: _containers.RepeatedScalarFieldContainer[int]
    executable_pattern: str
    def __init__(self, process_names: _Optional[_Iterable[str]] = ..., pids: _Optional[_Iterable[int]] = ..., executable_pattern: _Optional[str] = ...) -> None: ...

class HashCheck(_message.Message):
    __slots__ = ("expected_hash", "hash_algorithm", "executable_path")
    EXPECTED_HASH_FIELD_NUMBER: _ClassVar[int]
    HASH_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    EXECUTABLE_PATH_FIELD_NUMBER: _ClassVar[int]
    expected_hash: str
    hash_algorithm: str
    executable_path: str
    def __init__(self, expected_hash: _Optional[str] = ..., hash_algorithm: _Optional[str] = ..., executable_path: _Optional[str] = ...) -> None: ...

class HashResult(_message.Message):
    __slots__ = ("hash_value", "algorithm", "file_path", "success", "error_message")
    HASH_VALUE_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    FILE_PATH_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    hash_value: str
    algorithm: str
    file_path: str
    success: bool
    error_message: str
    def __init__(self, hash_value: _Optional[str] = ..., algorithm: _Optional[str] = ..., file_path: _Optional[str] = ..., success: bool = ..., error_message: _Optional[str] = ...) -> None: ...

class ProcessRecord(_message.Message):
    __slots__ = ("pid", "ppid", "name", "executable_path", "command_line", "start_time", "cpu_usage", "memory_usage", "executable_hash", "hash_algorithm", "user_id", "accessible", "file_exists", "collection_time", "ssdeep_hash", "on_disk_mismatch", "ssdeep_degraded")
    PID_FIELD_NUMBER: _ClassVar[int]
    PPID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXECUTABLE_PATH_FIELD_NUMBER: _ClassVar[int]
    COMMAND_LINE_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    CPU_USAGE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USAGE_FIELD_NUMBER: _ClassVar[int]
    EXECUTABLE_HASH_FIELD_NUMBER: _ClassVar[int]
    HASH_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ACCESSIBLE_FIELD_NUMBER: _ClassVar[int]
    FILE_EXISTS_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_TIME_FIELD_NUMBER: _ClassVar[int]
    SSDEEP_HASH_FIELD_NUMBER: _ClassVar[int]
    ON_DISK_MISMATCH_FIELD_NUMBER: _ClassVar[int]
    SSDEEP_DEGRADED_FIELD_NUMBER: _ClassVar[int]
    pid: int
    ppid: int
    name: str
    executable_path: str
    command_line: _containers.RepeatedScalarFieldContainer[str]
    start_time: int
    cpu_usage: float
    memory_usage: int
    executable_hash: str
    hash_algorithm: str
    user_id: str
    accessible: bool
    file_exists: bool
    collection_time: int
    ssdeep_hash: str
    on_disk_mismatch: bool
    ssdeep_degraded: bool
    def __init__(self, pid: _Optional[int] = ..., ppid: _Optional[int] = ..., name: _Optional[str] = ..., executable_path: _Optional[str] = ..., command_line: _Optional[_Iterable[str]] = ..., start_time: _Optional[int] = ..., cpu_usage: _Optional[float] = ..., memory_usage: _Optional[int] = ..., executable_hash: _Optional[str] = ..., hash_algorithm: _Optional[str] = ..., user_id: _Optional[str] = ..., accessible: bool = ..., file_exists: bool = ..., collection_time: _Optional[int] = ..., ssdeep_hash: _Optional[str] = ..., on_disk_mismatch: bool = ..., ssdeep_degraded: bool = ...) -> None: ...

class NetworkFilter(_message.Message):
    __slots__ = ("protocols", "source_addresses", "destination_addresses", "connection_states")
    PROTOCOLS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_STATES_FIELD_NUMBER: _ClassVar[int]
    protocols: _containers.RepeatedScalarFieldContainer[str]
    source_addresses: _containers.RepeatedScalarFieldContainer[str]
    destination_addresses: _containers.RepeatedScalarFieldContainer[str]
    connection_states: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, protocols: _Optional[_Iterable[str]] = ..., source_addresses: _Optional[_Iterable[str]] = ..., destination_addresses: _Optional[_Iterable[str]] = ..., connection_states: _Optional[_Iterable[str]] = ...) -> None: ...

class FilesystemFilter(_message.Message):
    __slots__ = ("path_patterns", "operation_types", "file_extensions")
    PATH_PATTERNS_FIELD_NUMBER: _ClassVar[int]
    OPERATION_TYPES_FIELD_NUMBER: _ClassVar[int]
    FILE_EXTENSIONS_FIELD_NUMBER: _ClassVar[int]
    path_patterns: _containers.RepeatedScalarFieldContainer[str]
    operation_types: _containers.RepeatedScalarFieldContainer[str]
    file_extensions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, path_patterns: _Optional[_Iterable[str]] = ..., operation_types: _Optional[_Iterable[str]] = ..., file_extensions: _Optional[_Iterable[str]] = ...) -> None: ...

class PerformanceFilter(_message.Message):
    __slots__ = ("metric_names", "components", "min_thresholds", "max_thresholds")
    class MinThresholdsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class MaxThresholdsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    METRIC_NAMES_FIELD_NUMBER: _ClassVar[int]
    COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    MIN_THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    MAX_THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    metric_names: _containers.RepeatedScalarFieldContainer[str]
    components: _containers.RepeatedScalarFieldContainer[str]
    min_thresholds: _containers.ScalarMap[str, float]
    max_thresholds: _containers.ScalarMap[str, float]
    def __init__(self, metric_names: _Optional[_Iterable[str]] = ..., components: _Optional[_Iterable[str]] = ..., min_thresholds: _Optional[_Mapping[str, float]] = ..., max_thresholds: _Optional[_Mapping[str, float]] = ...) -> None: ...

class NetworkRecord(_message.Message):
    __slots__ = ("connection_id", "source_address", "destination_address", "protocol", "state", "pid", "bytes_sent", "bytes_received", "collection_time")
    CONNECTION_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    BYTES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_TIME_FIELD_NUMBER: _ClassVar[int]
    connection_id: str
    source_address: str
    destination_address: str
    protocol: str
    state: str
    pid: int
    bytes_sent: int
    bytes_received: int
    collection_time: int
    def __init__(self, connection_id: _Optional[str] = ..., source_address: _Optional[str] = ..., destination_address: _Optional[str] = ..., protocol: _Optional[str] = ..., state: _Optional[str] = ..., pid: _Optional[int] = ..., bytes_sent: _Optional[int] = ..., bytes_received: _Optional[int] = ..., collection_time: _Optional[int] = ...) -> None: ...

class FilesystemRecord(_message.Message):
    __slots__ = ("operation_id", "path", "operation_type", "pid", "file_size", "permissions", "file_hash", "collection_time")
    OPERATION_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    OPERATION_TYPE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    FILE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    FILE_HASH_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_TIME_FIELD_NUMBER: _ClassVar[int]
    operation_id: str
    path: str
    operation_type: str
    pid: int
    file_size: int
    permissions: str
    file_hash: str
    collection_time: int
    def __init__(self, operation_id: _Optional[str] = ..., path: _Optional[str] = ..., operation_type: _Optional[str] = ..., pid: _Optional[int] = ..., file_size: _Optional[int] = ..., permissions: _Optional[str] = ..., file_hash: _Optional[str] = ..., collection_time: _Optional[int] = ...) -> None: ...

class PerformanceRecord(_message.Message):
    __slots__ = ("metric_id", "metric_name", "value", "unit", "pid", "component", "collection_time")
    METRIC_ID_FIELD_NUMBER: _ClassVar[int]
    METRIC_NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    COMPONENT_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_TIME_FIELD_NUMBER: _ClassVar[int]
    metric_id: str
    metric_name: str
    value: float
    unit: str
    pid: int
    component: str
    collection_time: int
    def __init__(self, metric_id: _Optional[str] = ..., metric_name: _Optional[str] = ..., value: _Optional[float] = ..., unit: _Optional[str] = ..., pid: _Optional[int] = ..., component: _Optional[str] = ..., collection_time: _Optional[int] = ...) -> None: ...

class AdvancedCapabilities(_message.Message):
    __slots__ = ("kernel_level", "realtime", "system_wide")
    KERNEL_LEVEL_FIELD_NUMBER: _ClassVar[int]
    REALTIME_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_WIDE_FIELD_NUMBER: _ClassVar[int]
    kernel_level: bool
    realtime: bool
    system_wide: bool
    def __init__(self, kernel_level: bool = ..., realtime: bool = ..., system_wide: bool = ...) -> None: ...

class CollectionCapabilities(_message.Message):
    __slots__ = ("supported_domains", "advanced")
    SUPPORTED_DOMAINS_FIELD_NUMBER: _ClassVar[int]
    ADVANCED_FIELD_NUMBER: _ClassVar[int]
    supported_domains: _containers.RepeatedScalarFieldContainer[MonitoringDomain]
    advanced: AdvancedCapabilities
    def __init__(self, supported_domains: _Optional[_Iterable[_Union[MonitoringDomain, str]]] = ..., advanced: _Optional[_Union[AdvancedCapabilities, _Mapping[str, object]]] = ...) -> None: ...

class DetectionTask(_message.Message):
    __slots__ = ("task_id", "task_type", "process_filter", "hash_check", "metadata", "network_filter", "filesystem_filter", "performance_filter")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_TYPE_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FILTER_FIELD_NUMBER: _ClassVar[int]
    HASH_CHECK_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FILTER_FIELD_NUMBER: _ClassVar[int]
    FILESYSTEM_FILTER_FIELD_NUMBER: _ClassVar[int]
    PERFORMANCE_FILTER_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    task_type: TaskType
    process_filter: ProcessFilter
    hash_check: HashCheck
    metadata: str
    network_filter: NetworkFilter
    filesystem_filter: FilesystemFilter
    performance_filter: PerformanceFilter
    def __init__(self, task_id: _Optional[str] = ..., task_type: _Optional[_Union[TaskType, str]] = ..., process_filter: _Optional[_Union[ProcessFilter, _Mapping[str, object]]] = ..., hash_check: _Optional[_Union[HashCheck, _Mapping[str, object]]] = ..., metadata: _Optional[str] = ..., network_filter: _Optional[_Union[NetworkFilter, _Mapping[str, object]]] = ..., filesystem_filter: _Optional[_Union[FilesystemFilter, _Mapping[str, object]]] = ..., performance_filter: _Optional[_Union[PerformanceFilter, _Mapping[str, object]]] = ...) -> None: ...

class DetectionResult(_message.Message):
    __slots__ = ("task_id", "success", "error_message", "processes", "hash_result", "network_events", "filesystem_events", "performance_events", "capabilities")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    HASH_RESULT_FIELD_NUMBER: _ClassVar[int]
    NETWORK_EVENTS_FIELD_NUMBER: _ClassVar[int]
    FILESYSTEM_EVENTS_FIELD_NUMBER: _ClassVar[int]
    PERFORMANCE_EVENTS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    success: bool
    error_message: str
    processes: _containers.RepeatedCompositeFieldContainer[ProcessRecord]
    hash_result: HashResult
    network_events: _containers.RepeatedCompositeFieldContainer[NetworkRecord]
    filesystem_events: _containers.RepeatedCompositeFieldContainer[FilesystemRecord]
    performance_events: _containers.RepeatedCompositeFieldContainer[PerformanceRecord]
    capabilities: CollectionCapabilities
    def __init__(self, task_id: _Optional[str] = ..., success: bool = ..., error_message: _Optional[str] = ..., processes: _Optional[_Iterable[_Union[ProcessRecord, _Mapping[str, object]]]] = ..., hash_result: _Optional[_Union[HashResult, _Mapping[str, object]]] = ..., network_events: _Optional[_Iterable[_Union[NetworkRecord, _Mapping[str, object]]]] = ..., filesystem_events: _Optional[_Iterable[_Union[FilesystemRecord, _Mapping[str, object]]]] = ..., performance_events: _Optional[_Iterable[_Union[PerformanceRecord, _Mapping[str, object]]]] = ..., capabilities: _Optional[_Union[CollectionCapabilities, _Mapping[str, object]]] = ...) -> None: ...

class CapabilityRequest(_message.Message):
    __slots__ = ("client_id", "requested_domains", "client_version")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_DOMAINS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    requested_domains: _containers.RepeatedScalarFieldContainer[MonitoringDomain]
    client_version: str
    def __init__(self, client_id: _Optional[str] = ..., requested_domains: _Optional[_Iterable[_Union[MonitoringDomain, str]]] = ..., client_version: _Optional[str] = ...) -> None: ...

class CapabilityResponse(_message.Message):
    __slots__ = ("negotiation_success", "capabilities", "error_message", "server_version")
    NEGOTIATION_SUCCESS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    negotiation_success: bool
    capabilities: CollectionCapabilities
    error_message: str
    server_version: str
    def __init__(self, negotiation_success: bool = ..., capabilities: _Optional[_Union[CollectionCapabilities, _Mapping[str, object]]] = ..., error_message: _Optional[str] = ..., server_version: _Optional[str] = ...) -> None: ...
