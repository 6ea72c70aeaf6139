"""DaemonEye's messages in proto3's encoding, by hand: a schema as a table, and an encoder and decoder for it.

For those who write a peer where there is no protobuf; peer.py has the rest of the protocol.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeAlias

#: A message is a dict by the names of its fields. An optional field that is absent is not in it.
Message: TypeAlias = dict[str, Any]

#: Number, name and kind of each field, as docs/wire-protocol.md has them. "?" is optional, "*" is repeated.
_TEXT: Final = {
    "ProcessFilter": "1 process_names string*, 2 pids uint32*, 3 executable_pattern string?",
    "HashCheck": "1 expected_hash string, 2 hash_algorithm string, 3 executable_path string",
    "HashResult": "1 hash_value string, 2 algorithm string, 3 file_path string, 4 success bool, "
    "5 error_message string?",
    "ProcessRecord": "1 pid uint32, 2 ppid uint32?, 3 name string, 4 executable_path string?, "
    "5 command_line string*, 6 start_time int64?, 7 cpu_usage double?, 8 memory_usage uint64?, "
    "9 executable_hash string?, 10 hash_algorithm string?, 11 user_id string?, 12 accessible bool, "
    "13 file_exists bool, 14 collection_time int64, 15 ssdeep_hash string?, 16 on_disk_mismatch bool, "
    "17 ssdeep_degraded bool",
    "NetworkFilter": "1 protocols string*, 2 source_addresses string*, 3 destination_addresses string*, "
    "4 connection_states string*",
    "FilesystemFilter": "1 path_patterns string*, 2 operation_types string*, 3 file_extensions string*",
    # A map is a repeated message of a key and a value.
    "PerformanceFilter": "1 metric_names string*, 2 components string*, 3 min_thresholds Threshold*, "
    "4 max_thresholds Threshold*",
    "Threshold": "1 key string, 2 value double",
    "NetworkRecord": "1 connection_id string, 2 source_address string, 3 destination_address string, "
    "4 protocol string, 5 state string, 6 pid uint32?, 7 bytes_sent uint64, 8 bytes_received uint64, "
    "9 collection_time int64",
    "FilesystemRecord": "1 operation_id string, 2 path string, 3 operation_type string, 4 pid uint32?, "
    "5 file_size uint64?, 6 permissions string?, 7 file_hash string?, 8 collection_time int64",
    "PerformanceRecord": "1 metric_id string, 2 metric_name string, 3 value double, 4 unit string, "
    "5 pid uint32?, 6 component string, 7 collection_time int64",
    "DetectionTask": "1 task_id string, 2 task_type enum, 3 process_filter ProcessFilter?, "
    "4 hash_check HashCheck?, 5 metadata string?, 6 network_filter NetworkFilter?, "
    "7 filesystem_filter FilesystemFilter?, 8 performance_filter PerformanceFilter?",
    "DetectionResult": "1 task_id string, 2 success bool, 3 error_message string?, "
    "4 processes ProcessRecord*, 5 hash_result HashResult?, 6 network_events NetworkRecord*, "
    "7 filesystem_events FilesystemRecord*, 8 performance_events PerformanceRecord*",
}


class Field(NamedTuple):
    number: int
    name: str
    kind: str
    label: str


def _field(text: str) -> Field:
    number, name, kind = text.split()
    label = kind[-1] if kind[-1] in "?*" else ""
    return Field(int(number), name, kind.rstrip("?*"), label)


SCHEMA: Final = {kind: [_field(part) for part in text.split(", ")] for kind, text in _TEXT.items()}

# How a value is laid out; what is not in this table is of a message.
_VARINT, _FIXED64, _SIZED, _FIXED32 = 0, 1, 2, 5
_LAYOUT: Final = dict.fromkeys(("uint32", "uint64", "int64", "bool", "enum"), _VARINT) | {"double": _FIXED64}
_DEFAULT: Final = {"string": "", "bool": False, "double": 0.0}


def encode(kind: str, message: Message) -> bytes:
    """Encode a message of a kind, its fields in the order of their numbers."""
    out = bytearray()
    for field in SCHEMA[kind]:
        value = message.get(field.name)
        layout = _LAYOUT.get(field.kind, _SIZED)
        if value is None:
            continue
        if field.label == "*" and layout == _VARINT:  # numbers are packed into one field
            packed = b"".join(_value(field.kind, one) for one in value)
            if packed:
                out += _varint(field.number << 3 | _SIZED) + _varint(len(packed)) + packed
            continue
        for one in value if field.label == "*" else [value]:
            data = _value(field.kind, one)
            # Without presence the default is left out; each default is encoded as nothing but zeros.
            if field.label or any(data):
                out += _varint(field.number << 3 | layout) + data
    return bytes(out)


def _value(kind: str, value: Any) -> bytes:
    if kind == "string":
        value = value.encode()
    if kind == "double":
        return struct.pack("<d", value)
    if kind in SCHEMA:
        value = encode(kind, value)
    return _varint(len(value)) + value if isinstance(value, bytes) else _varint(value)


def _varint(value: int) -> bytes:
    value &= 0xFFFF_FFFF_FFFF_FFFF  # negative numbers take ten bytes
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def decode(kind: str, data: bytes, message: Message | None = None) -> Message:
    """Decode a message. Fields that are absent and without presence have their defaults.

    Raises:
        ValueError: it is none.
    """
    if message is None:
        message = {
            field.name: [] if field.label == "*" else _DEFAULT.get(field.kind, 0)
            for field in SCHEMA[kind]
            if field.label != "?"
        }
    fields = {field.number: field for field in SCHEMA[kind]}
    for number, layout, value in _parts(data):
        field = fields.get(number)
        if field is None:
            continue  # of a newer peer
        if field.label == "*" and layout == _SIZED and field.kind in _LAYOUT:
            message[field.name] += [_number(field.kind, one) for one in _packed(value)]
        elif layout != _LAYOUT.get(field.kind, _SIZED):
            continue  # as protobuf does with a field of another layout
        elif field.label == "*":
            message[field.name].append(_decoded(field.kind, value, None))
        else:  # the last one holds; parts of one message are merged
            message[field.name] = _decoded(field.kind, value, message.get(field.name))
    return message


def _decoded(kind: str, value: Any, earlier: Any) -> Any:
    if kind == "string":
        return str(value, "utf-8")
    if kind == "double":
        return struct.unpack("<d", value)[0]
    return decode(kind, value, earlier) if kind in SCHEMA else _number(kind, value)


def _number(kind: str, value: int) -> int | bool:
    if kind == "bool":
        return value != 0
    bits = 64 if kind.endswith("64") else 32
    value &= (1 << bits) - 1
    signed = kind in {"int64", "enum"}
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def _parts(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Give number, layout and raw value of each field."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, layout = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"field number {number}")
        if layout == _VARINT:
            value, at = _read_varint(data, at)
            yield number, layout, value
            continue
        if layout == _SIZED:
            size, at = _read_varint(data, at)
        elif layout in {_FIXED64, _FIXED32}:
            size = 8 if layout == _FIXED64 else 4
        else:
            raise ValueError(f"layout {layout}")
        if at + size > len(data):
            raise ValueError(f"field {number} ends {at + size - len(data)} bytes after its message")
        yield number, layout, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + index + 1
    raise ValueError("a number without an end")


def _packed(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _read_varint(data, at)
        yield value
