"""Recordings for the commands: reading one, and its exchanges, frames and differences as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from google.protobuf.message import Message

from trio_ipc import Contract
from trio_ipc.errors import IpcError
from trio_ipc.testing import Difference, RecordedFrame, Recording, RecordingError, read_recording

from . import output
from .group import PROGRAM
from .messages import value_of


def recording_in(file: str) -> Recording:
    """Read a recording.

    Raises:
        click.UsageError: the file is none.
        OSError: it cannot be read.
    """
    try:
        return read_recording(file)
    except RecordingError as exc:
        raise click.BadParameter(str(exc), click.get_current_context(), param_hint="FILE") from exc


def say_damage(recording: Recording, file: str) -> bool:
    """Say on standard error that a recording is damaged, or ends early; return whether it is."""
    if recording.damage is None:
        return False
    output.say(f"{PROGRAM}: {output.one_line(file)}: {output.one_line(recording.damage)}")
    return True


def contract_for(recording: Recording, given: Contract[Any, Any]) -> Contract[Any, Any] | None:
    """Return the contract to read a recording by: the one that was named, or the default if it fits."""
    source = click.get_current_context().get_parameter_source("contract")
    was_named = source is not None and source.name != "DEFAULT"
    return given if was_named or given.name == recording.contract else None


def as_json(recording: Recording, contract: Contract[Any, Any]) -> dict[str, Any]:
    """Return a recording's exchanges as what :mod:`json` can write.

    A message that JSON has no place for, such as one of another contract, is null, and one of the errors.
    """
    frames = [frame_as_json(frame, contract) for frame in recording.frames()]
    return {
        "started": recording.started,
        "contract": recording.contract,
        "crc32_variant": str(recording.crc32_variant),
        "damage": recording.damage,
        "exchanges": [
            {
                "connection": one.connection,
                "number": one.number,
                "request": _value(contract.decode_request, one.request)[0],
                "response": None
                if one.response is None
                else _value(contract.decode_response, one.response)[0],
            }
            for one in recording.exchanges()
        ],
        "errors": [
            {name: frame[name] for name in ("at", "connection", "by", "error")}
            for frame in frames
            if frame["error"] is not None
        ],
    }


def frame_as_json(frame: RecordedFrame, contract: Contract[Any, Any]) -> dict[str, Any]:
    """Return a frame as what :mod:`json` can write: its message, or what is wrong with it."""
    message: Any = None
    error: IpcError | None = frame.error
    if error is None:
        decode = contract.decode_request if frame.by == "client" else contract.decode_response
        message, error = _value(decode, frame.payload)
    return {
        "at": round(frame.at, 6),
        "connection": frame.connection,
        "by": frame.by,
        "bytes": len(frame.payload),
        "message": message,
        "error": None if error is None else error.message,
    }


def _value(decode: Callable[[bytes], Message], payload: bytes) -> tuple[Any, IpcError | None]:
    """Return a payload's message as what :mod:`json` can write, or why there is none."""
    try:
        return value_of(decode(payload)), None
    except IpcError as exc:
        return None, exc


def difference_as_json(one: Difference[Any, Any]) -> dict[str, Any]:
    """Return a difference as what :mod:`json` can write."""
    return {
        "connection": one.connection,
        "number": one.number,
        "request": value_of(one.request),
        "expected": None if one.expected is None else value_of(one.expected),
        "got": None if one.got is None else value_of(one.got),
        "error": None if one.error is None else one.error.message,
    }


def without(message: Message, fields: tuple[str, ...]) -> Message:
    """Return a copy of a message without some of its fields."""
    copy = type(message)()
    copy.CopyFrom(message)
    for field in fields:
        copy.ClearField(field)
    return copy
