"""Messages to try a peer with: the golden ones, and random ones that use every field."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from trio_ipc.daemoneye import DetectionResult, DetectionTask, TaskType

MessageT = TypeVar("MessageT", bound=Message)

#: The golden frames: ``tests/vectors``.
VECTORS: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "frames.json").read_text(encoding="utf-8")
)

_STRINGS: Final = ("", "a", "näme-ünïcode", "进程", "\x00", "\U0001f600", "with space", "x" * 200)
_DOUBLES: Final = (0.0, 0.1, -1.5, 1e308, 5e-324, float("inf"))


def _edges(bits: int, *, signed: bool) -> list[int]:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return [low, 0, 1, 127, 128, 300, high]


def _values(kind: int) -> list[Any]:
    kinds: dict[int, list[Any]] = {
        FieldDescriptor.TYPE_STRING: [*_STRINGS],
        FieldDescriptor.TYPE_DOUBLE: [*_DOUBLES],
        FieldDescriptor.TYPE_BOOL: [False, True],
        FieldDescriptor.TYPE_UINT32: _edges(32, signed=False),
        FieldDescriptor.TYPE_UINT64: _edges(64, signed=False),
        FieldDescriptor.TYPE_INT64: _edges(64, signed=True),
        FieldDescriptor.TYPE_ENUM: [value.number for value in TaskType.DESCRIPTOR.values],
    }
    return kinds[kind]


def _fill(message: Message, chance: random.Random) -> None:
    for field in message.DESCRIPTOR.fields:
        if field.number == 100 or chance.random() < 0.3:  # ours alone has the field 100
            continue
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for _ in range(chance.randrange(4)):
                value[chance.choice(_STRINGS)] = chance.choice(_DOUBLES)
        elif field.is_repeated:
            for _ in range(chance.randrange(4)):
                if field.message_type is None:
                    value.append(chance.choice(_values(field.type)))
                else:
                    _fill(value.add(), chance)
        elif field.message_type is None:
            setattr(message, field.name, chance.choice(_values(field.type)))
        else:
            value.SetInParent()
            _fill(value, chance)


def random_messages(kind: type[MessageT], number: int, seed: int) -> Iterator[MessageT]:
    """Give so many messages, the same ones for the same seed. None of them is empty."""
    chance = random.Random(seed)
    for index in range(number):
        message = kind()
        _fill(message, chance)
        assert isinstance(message, DetectionTask | DetectionResult)
        message.task_id = f"random-{index}"
        yield message


def golden(kind: type[MessageT]) -> Iterator[MessageT]:
    """Give the golden messages of a type, once each."""
    for vector in VECTORS["valid"]:
        if vector["type"] == kind.DESCRIPTOR.name and vector["crc32_variant"] == "ieee":
            yield kind.FromString(bytes.fromhex(vector["payload_hex"]))
