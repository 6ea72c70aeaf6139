"""Shows what goes over connections while it goes: a recorder that has no file."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import trio

from trio_ipc import Contract, IpcConfig
from trio_ipc.errors import UndecodableMessageError
from trio_ipc.testing import RecordedFrame, Recorder
from trio_ipc.testing.recording import Event, FrameReader

from .messages import value_of

#: Is told each event, with the frames that it makes whole.
Told = Callable[[Event, list[RecordedFrame]], None]


class LiveRecorder(Recorder):
    """Tells what happens on the streams that it wraps, and keeps nothing.

    Args:
        told: is told each event. What it raises comes out of the stream.
        config: how frames are to be read.
    """

    def __init__(self, told: Told, config: IpcConfig) -> None:
        # Not the file that a Recorder begins with, and all that it keeps besides.
        self.path = ""
        self.failure = None
        self._file = None
        self._connections = 0
        self._began = None
        self._told = told
        self._frames = FrameReader(config.max_frame_bytes, config.crc32_variant)

    def _record(self, connection: int, event: str, **details: Any) -> None:
        now = trio.current_time()
        self._began = now if self._began is None else self._began
        data = base64.b64decode(details["data"]) if event == "data" else b""
        endpoint = details.get("endpoint", "")
        happened = Event(now - self._began, connection, event, details["by"], data, endpoint)
        self._told(happened, self._frames.frames(happened))


def frame_as_json(frame: RecordedFrame, contract: Contract[Any, Any]) -> dict[str, Any]:
    """Return a frame as what :mod:`json` can write: its message, or what is wrong with it."""
    message, error = None, frame.error
    if error is None:
        decode = contract.decode_request if frame.by == "client" else contract.decode_response
        try:
            message = value_of(decode(frame.payload))
        except UndecodableMessageError as exc:
            error = exc
    return {
        "at": round(frame.at, 6),
        "connection": frame.connection,
        "by": frame.by,
        "bytes": len(frame.payload),
        "message": message,
        "error": None if error is None else error.message,
    }
