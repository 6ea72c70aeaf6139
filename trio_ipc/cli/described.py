"""What a contract says, for people and for programs: its messages, fields and rules. Without I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from trio_ipc.contract import Contract

from .messages import OTHER_FORMS

#: The names of protobuf's types in a .proto ("Scalar Value Types"), by descriptor.proto's numbers.
_TYPES: Final = {
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_FIXED64: "fixed64",
    FieldDescriptor.TYPE_FIXED32: "fixed32",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_SFIXED32: "sfixed32",
    FieldDescriptor.TYPE_SFIXED64: "sfixed64",
    FieldDescriptor.TYPE_SINT32: "sint32",
    FieldDescriptor.TYPE_SINT64: "sint64",
}


def described(contract: Contract[Any, Any]) -> dict[str, Any]:
    """Return a contract as what :mod:`json` can write."""
    messages, enums = _reachable(contract)
    return {
        "contract": contract.name,
        "request": contract.request_type.DESCRIPTOR.full_name,
        "response": contract.response_type.DESCRIPTOR.full_name,
        "repeatable": contract.repeatable if isinstance(contract.repeatable, bool) else "some",
        "reports_failures": contract.failure is not None,
        "negotiation": contract.negotiation is not None,
        "health": contract.health is not None,
        "example": example(contract.request_type.DESCRIPTOR),
        "messages": [_message(one) for one in messages],
        "enums": [
            {"name": one.full_name, "values": {value.name: value.number for value in one.values}}
            for one in enums
        ],
    }


def lines(contract: Contract[Any, Any]) -> Iterator[str]:
    """Give a contract as text: what is known of it, an example, and its messages as in a .proto."""
    said = described(contract)
    repeatable = {True: "any request does no harm if it is made twice", False: "no request may be made twice"}
    yield f"contract {said['contract']}: {said['request']} -> {said['response']}"
    yield f"  repeating: {repeatable.get(said['repeatable'], 'some requests do no harm if made twice')}"
    yield f"  failures:  {'a response says them' if said['reports_failures'] else 'the connection is closed'}"
    yield f"  servers can be asked what they can do: {_yes(said['negotiation'])}"
    yield f"  servers can be asked whether they are well: {_yes(said['health'])}"
    yield f"  example of a request: {json.dumps(said['example'])}"
    for message in said["messages"]:
        yield ""
        yield f"message {message['name']} {{"
        for field in message["fields"]:
            label = f"{field['label']} " if field["label"] else ""
            choice = f"  // one of {field['oneof']}" if field["oneof"] else ""
            yield f"  {label}{field['type']} {field['name']} = {field['number']};{choice}"
        yield "}"
    for enum in said["enums"]:
        yield ""
        yield f"enum {enum['name']} {{"
        for name, number in enum["values"].items():
            yield f"  {name} = {number};"
        yield "}"


def example(kind: Descriptor) -> Any:
    """Return a message of that kind as JSON has it: its fields without presence, and the first of each oneof.

    Where that is nothing, it is the first field: no frame carries an empty message.
    """
    return _example(kind, frozenset())


def _example(kind: Descriptor, around: frozenset[str]) -> Any:
    if kind.full_name in OTHER_FORMS:
        return OTHER_FORMS[kind.full_name]
    around |= {kind.full_name}
    first = {choice.fields[0].name for choice in kind.oneofs if not _is_optional(choice.fields[0])}
    said = {
        field.name: _example_value(field, around)
        for field in kind.fields
        if field.name in first
        or field.is_required
        or (not field.has_presence and field.message_type is None and not field.is_repeated)
    }
    return said or {field.name: _example_value(field, around) for field in kind.fields[:1]}


def _example_value(field: FieldDescriptor, around: frozenset[str]) -> Any:
    """Return a value for a field of a message that stands within those of ``around``, or is one of them."""
    kind = field.message_type
    value: Any
    if kind is not None and kind.GetOptions().map_entry:
        key, value = (_example_value(part, around) for part in kind.fields)
        return {key if isinstance(key, str) else json.dumps(key): value}
    if kind is not None:
        # a message that holds its like ends somewhere, and an Any holds what only its user knows
        ends = kind.full_name in {*around, "google.protobuf.Any"}
        value = {} if ends else _example(kind, around)
    elif field.enum_type is not None:
        value = field.enum_type.values[0].name
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        value = "Ynl0ZXM=" if field.type == FieldDescriptor.TYPE_BYTES else field.name
    else:
        value = field.cpp_type == FieldDescriptor.CPPTYPE_BOOL or 1
    return [value] if field.is_repeated else value


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _reachable(contract: Contract[Any, Any]) -> tuple[list[Descriptor], list[EnumDescriptor]]:
    """Return all messages and enumerations that may stand in a request or a response, the nearest first."""
    messages: dict[str, Descriptor] = {}
    enums: dict[str, EnumDescriptor] = {}
    waiting = [contract.request_type.DESCRIPTOR, contract.response_type.DESCRIPTOR]
    while waiting:
        kind = waiting.pop(0)
        if kind.full_name in messages:
            continue
        messages[kind.full_name] = kind
        for field in kind.fields:
            if field.enum_type is not None:
                enums[field.enum_type.full_name] = field.enum_type
            if field.message_type is not None:
                waiting.append(field.message_type)
    maps = {name for name, kind in messages.items() if kind.GetOptions().map_entry}
    return [kind for name, kind in messages.items() if name not in maps], list(enums.values())


def _message(kind: Descriptor) -> dict[str, Any]:
    return {"name": kind.full_name, "fields": [_field(field) for field in kind.fields]}


def _field(field: FieldDescriptor) -> dict[str, Any]:
    entry = field.message_type if field.message_type is not None else None
    is_map = entry is not None and entry.GetOptions().map_entry
    choice = field.containing_oneof
    is_optional = _is_optional(field)
    if is_map and entry is not None:
        key, value = (_type(entry.fields_by_name[part]) for part in ("key", "value"))
        kind, label = f"map<{key}, {value}>", ""
    else:
        kind = _type(field)
        required = field.is_required
        label = "repeated" if field.is_repeated else "required" if required else "optional" * is_optional
    return {
        "name": field.name,
        "number": field.number,
        "type": kind,
        "label": label,
        "oneof": choice.name if choice is not None and not is_optional else None,
    }


def _is_optional(field: FieldDescriptor) -> bool:
    # An optional field of proto3 is, within, the only one of a choice of its own ("oneof") called _NAME.
    choice = field.containing_oneof
    return choice is not None and len(choice.fields) == 1 and choice.name == f"_{field.name}"


def _type(field: FieldDescriptor) -> str:
    named = field.message_type or field.enum_type
    return named.full_name if named is not None else _TYPES.get(field.type, "group")
