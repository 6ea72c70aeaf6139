"""Reads what a :class:`~trio_ipc.testing.Recorder` has written: as frames, as exchanges, as text.

This module must never fail because a recording ends early or holds what broke the protocol: to show that is
what it is for.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, Final, cast

import attrs
from google.protobuf.message import Message
from google.protobuf.text_format import MessageToString

from trio_ipc.config import AUTO, Crc32Setting, Crc32Variant
from trio_ipc.contract import Contract, contract_of
from trio_ipc.errors import ProtocolError, UndecodableMessageError, plural
from trio_ipc.wire import FrameDecoder

from .checking import check_seconds, check_whole, checked
from .recorder import FORMAT, VERSION, Event, Side

#: Bytes of a payload that are shown, where there is no message to show.
_SHOWN_BYTES: Final = 64

#: What the first line has besides format and version.
_OF_HEADER: Final = ("started", "contract", "crc32_variant", "max_frame_bytes")

#: Bytes of the first line, at the most: a recorder writes some hundred.
_LONGEST_HEADER: Final = 65_536

#: Bytes that are given to a decoder at a time.
_PIECE: Final = 65_536

_WORDS: Final = {
    "open": "connected to",
    "eof": "no more will be sent",
    "close": "closed",
    "broken": "broken",
}


class RecordingError(ValueError):
    """The file is no recording that this version can read."""


@attrs.frozen
class RecordedFrame:
    """A frame that went over a connection, or what was wrong with it.

    Attributes:
        at: seconds since the first thing that was recorded, when its last byte went.
        connection: the number of the connection, from 1.
        by: who sent it.
        payload: its payload; empty where ``error`` is set.
        error: why there is no payload. It is the last of its direction.
    """

    at: float
    connection: int
    by: Side
    payload: bytes = b""
    error: ProtocolError | None = None


@attrs.frozen
class Exchange:
    """A request and what was answered.

    Attributes:
        connection: the number of the connection, from 1.
        number: the number of the request on it, from 1.
        request: its payload.
        response: the response's payload, None if no whole one came.
    """

    connection: int
    number: int
    request: bytes
    response: bytes | None


@attrs.frozen
class Recording:
    """What a file holds. Made by :func:`read_recording`.

    Attributes:
        started: when, in ISO 8601.
        contract: the contract's name.
        crc32_variant, max_frame_bytes: how its frames are to be read.
        events: what happened, in order.
        damage: why it ends before the file does, None if the file is whole.
    """

    started: str
    contract: str
    crc32_variant: Crc32Setting
    max_frame_bytes: int
    events: tuple[Event, ...]
    damage: str | None = None

    def frames(self) -> Iterator[RecordedFrame]:
        """Yield the frames of all connections, in the order in which they were whole."""
        for _, frames in self._with_frames():
            yield from frames

    def exchanges(self) -> list[Exchange]:
        """Return every whole request with its response, in the order of the requests.

        A response is that of the oldest request that has none yet. One to no request is left out.
        """
        found: list[Exchange] = []
        asked: Counter[int] = Counter()
        unanswered: dict[int, deque[int]] = {}
        for frame in self.frames():
            waiting = unanswered.setdefault(frame.connection, deque())
            if frame.error is None and frame.by == "client":
                asked[frame.connection] += 1
                waiting.append(len(found))
                found.append(Exchange(frame.connection, asked[frame.connection], frame.payload, None))
            elif frame.error is None and waiting:
                number = waiting.popleft()
                found[number] = attrs.evolve(found[number], response=frame.payload)
        return found

    def lines(self, contract: Contract[Any, Any] | None = None) -> Iterator[str]:
        """Give it as people read it: messages in protobuf's text form, errors marked by ``!!``.

        Args:
            contract: the message types; None for showing payloads as bytes.

        Raises:
            TypeError: that is no contract.
        """
        return self._lines(None if contract is None else contract_of(contract))

    def _lines(self, contract: Contract[Any, Any] | None) -> Iterator[str]:
        yield (
            f"recorded {self.started!r}: contract {self.contract!r}, {self.crc32_variant}, "
            f"frames of at most {self.max_frame_bytes} bytes"
        )
        if contract is None:
            yield f"!! the contract {self.contract!r} was not given: payloads are shown as bytes"
        elif contract.name != self.contract:
            yield f"!! shown by another contract, {contract.name!r}"
        for event, frames in self._with_frames():
            if event is not None and event.what != "data":
                yield event_line(event)
            for frame in frames:
                yield from frame_lines(frame, contract)
        if self.damage is not None:
            yield f"!! {self.damage}"

    def _with_frames(self) -> Iterator[tuple[Event | None, list[RecordedFrame]]]:
        """Yield every event with the frames that it makes whole, or shows to be broken."""
        reader = FrameReader(self.max_frame_bytes, self.crc32_variant)
        for event in self.events:
            yield event, reader.frames(event)
        yield None, reader.close(self.events[-1].at if self.events else 0.0)


def recording_of(given: object) -> Recording:
    """Return the recording that a test gave.

    Raises:
        TypeError: it is something else, such as a path.
    """
    return checked("recording", given, Recording, "a Recording, such as read_recording(path)")


class FrameReader:
    """Makes frames of events, in the order in which they happen.

    Args:
        max_frame_bytes, crc32_variant: how frames are to be read.
    """

    def __init__(self, max_frame_bytes: int, crc32_variant: Crc32Setting) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._crc32_variant: Crc32Setting = crc32_variant
        self._decoders: dict[tuple[int, Side], FrameDecoder | None] = {}

    def frames(self, event: Event) -> list[RecordedFrame]:
        """Return the frames that an event makes whole, or shows to be broken."""
        if event.what == "data":
            return self._decoded(event)
        has_ended = event.what in {"close", "broken"}
        ends: list[Side] = ["client", "server"] if has_ended else [event.by] if event.what == "eof" else []
        frames = [frame for side in ends for frame in self._ended(event.at, event.connection, side)]
        if has_ended:  # nothing follows, and there may be any number of connections
            for side in ends:
                self._decoders.pop((event.connection, side), None)
        return frames

    def close(self, at: float) -> list[RecordedFrame]:
        """Return what is cut off where nothing follows."""
        return [frame for key in sorted(self._decoders) for frame in self._ended(at, *key)]

    def _decoded(self, event: Event) -> list[RecordedFrame]:
        key = (event.connection, event.by)
        if key not in self._decoders:
            self._decoders[key] = FrameDecoder(self._max_frame_bytes, self._crc32_variant)
        decoder = self._decoders[key]
        if decoder is None:
            return []
        frames = []
        for start in range(0, len(event.data), _PIECE):
            decoder.feed(event.data[start : start + _PIECE])
            try:
                while (payload := decoder.next_payload()) is not None:
                    frames.append(RecordedFrame(event.at, event.connection, event.by, bytes(payload)))
            except ProtocolError as exc:
                self._decoders[key] = None
                return [*frames, RecordedFrame(event.at, event.connection, event.by, error=exc)]
        return frames

    def _ended(self, at: float, connection: int, side: Side) -> list[RecordedFrame]:
        decoder = self._decoders.get((connection, side))
        if decoder is None:
            return []
        self._decoders[connection, side] = None
        try:
            decoder.end()
        except ProtocolError as exc:
            return [RecordedFrame(at, connection, side, error=exc)]
        return []


def read_recording(path: str | os.PathLike[str]) -> Recording:
    """Read a recording, as far as it goes.

    One that a crash cut off, even within a line, is read up to there; ``damage`` then says where.

    Raises:
        RecordingError: the file is no recording, or of another version.
        OSError: it cannot be read.
        TypeError: ``path`` is no path.
    """
    with open(os.fspath(path), "rb") as file:  # open() would take a number for a descriptor
        first = file.readline(_LONGEST_HEADER)
        # Before the rest is read: it may be any file, without an end.
        header = _header(first, os.fspath(path))
        lines = (first + file.read()).split(b"\n")
    torn = lines.pop()  # what follows the last newline: nothing, in a whole file
    events: list[Event] = []
    damage = "the recording ends in the middle of a record" if torn else None
    for number, line in enumerate(lines[1:], start=2):
        try:
            _add(json.loads(line), events)
        except (ValueError, KeyError, TypeError, RecursionError):
            damage = f"the recording is damaged at line {number}; what follows was not read"
            break
    if not lines:
        damage = "the recording ends in the middle of a record"
    return Recording(
        started=str(header["started"]),
        contract=str(header["contract"]),
        crc32_variant=_variant(header["crc32_variant"]),
        max_frame_bytes=header["max_frame_bytes"],
        events=tuple(events),
        damage=damage,
    )


def _variant(name: str) -> Crc32Setting:
    return AUTO if name == AUTO else Crc32Variant(name)


def _header(line: bytes, path: str) -> dict[str, Any]:
    try:
        header = json.loads(line)
        if header["format"] != FORMAT:
            raise ValueError(line)
        if header["version"] == VERSION and type(header["version"]) is int:  # not true, nor 1.0
            _variant(header["crc32_variant"])
            check_whole("max_frame_bytes", header["max_frame_bytes"], 1)
            return {name: header[name] for name in _OF_HEADER}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RecordingError(f"{path} is no recording of trio_ipc") from None
    raise RecordingError(f"{path} is a recording of version {header['version']!r}, must be {VERSION}")


def _add(record: dict[str, Any], events: list[Event]) -> None:
    event = _event(record)
    if event.what != "cut":
        events.append(event)
        return
    # What was recorded before it went did not go, or not all of it.
    for place in range(len(events) - 1, -1, -1):
        sending = events[place]
        if (sending.what, sending.connection, sending.by) == ("data", event.connection, event.by):
            if event.sent is None:
                events[place] = attrs.evolve(sending, what="cut")
            else:
                check_whole("sent", event.sent, 0, len(sending.data))
                events[place] = attrs.evolve(sending, data=sending.data[: event.sent])
            return
    raise ValueError(record)


def _event(record: dict[str, Any]) -> Event:
    if record["by"] not in {"client", "server"}:
        raise ValueError(record)
    try:
        data = base64.b64decode(record.get("data", ""), validate=True)
    except binascii.Error as exc:
        raise ValueError(record) from exc
    check_seconds("at", record["at"])
    check_whole("connection", record["connection"], 1)
    return Event(
        at=float(record["at"]),
        connection=record["connection"],
        what=str(record["event"]),
        by=cast(Side, record["by"]),
        data=data,
        endpoint=str(record.get("endpoint", "")),
        sent=record.get("sent"),
    )


def event_line(event: Event) -> str:
    """Return an event, but for what data it has, as people read it."""
    head = f"{event.at:10.6f} #{event.connection} {event.by}: "
    if event.what == "cut":
        went = "none were sent, or a part of them" if event.sent is None else f"{event.sent} were sent"
        return f"{head}of {len(event.data)} {plural(len(event.data), 'byte')} {went}"
    endpoint = f" {event.endpoint!r}" if event.endpoint else ""
    return f"{head}{_WORDS.get(event.what) or ascii(event.what)}{endpoint}"


def frame_lines(frame: RecordedFrame, contract: Contract[Any, Any] | None) -> Iterator[str]:
    """Yield a frame as people read it; by no contract, as bytes."""
    head = f"{frame.at:10.6f} #{frame.connection} {frame.by}: "
    if frame.error is not None:
        yield f"{head}!! {frame.error}"
        return
    size = f"{len(frame.payload)} {plural(len(frame.payload), 'byte')}"
    if contract is None:
        yield f"{head}{size}"
        yield _bytes_line(frame.payload)
        return
    decode = contract.decode_request if frame.by == "client" else contract.decode_response
    try:
        message: Message = decode(frame.payload)
    except UndecodableMessageError as exc:
        yield f"{head}!! {exc}"
        yield _bytes_line(frame.payload)
        return
    yield f"{head}{message.DESCRIPTOR.name}, {size}"
    # What is no printable ASCII is escaped: a recording can't steer a terminal.
    for line in MessageToString(message, as_utf8=False).splitlines():
        yield f"    {line}"


def _bytes_line(payload: bytes) -> str:
    more = " ..." if len(payload) > _SHOWN_BYTES else ""
    return f"    {payload[:_SHOWN_BYTES].hex(' ')}{more}"
