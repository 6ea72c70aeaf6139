"""Reads what a :class:`~trio_ipc.testing.Recorder` has written: as frames, as text, as a peer.

This module must never fail because a recording ends early or holds what broke the protocol: to show that is
what it is for.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, Generic, cast

import attrs
from google.protobuf.message import Message
from google.protobuf.text_format import MessageToString

from trio_ipc.channel import Channel, close_at_once
from trio_ipc.config import Crc32Variant
from trio_ipc.contract import Contract, RequestT, ResponseT
from trio_ipc.conversation import Call
from trio_ipc.daemoneye import DETECTION
from trio_ipc.errors import IpcError, ProtocolError, UndecodableMessageError
from trio_ipc.wire import FrameDecoder

from .recorder import FORMAT, VERSION, Side

#: Bytes of what cannot be decoded that are shown.
_SHOWN_BYTES: Final = 64

#: Bytes that are given to a decoder at a time.
_PIECE: Final = 65_536

_WORDS: Final = {
    "open": "connected to",
    "eof": "no more will be sent",
    "cut": "what was sent last did not go out whole",
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
        response: the answer's payload, None if no whole one came.
    """

    connection: int
    number: int
    request: bytes
    response: bytes | None


@attrs.frozen
class Event:
    """One line of the file. ``data`` is what went, empty for what is no data."""

    at: float
    connection: int
    what: str
    by: Side
    data: bytes = b""
    endpoint: str = ""


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
    crc32_variant: Crc32Variant
    max_frame_bytes: int
    events: tuple[Event, ...]
    damage: str | None = None

    def frames(self) -> Iterator[RecordedFrame]:
        """Yield the frames of all connections, in the order in which they were whole."""
        for _, frames in self._with_frames():
            yield from frames

    def exchanges(self) -> list[Exchange]:
        """Return every whole request with its answer, in the order of the requests."""
        requests: list[RecordedFrame] = []
        answers: dict[int, list[bytes]] = {}
        for frame in self.frames():
            if frame.error is None and frame.by == "client":
                requests.append(frame)
            elif frame.error is None:
                answers.setdefault(frame.connection, []).append(frame.payload)
        asked: dict[int, int] = {}
        found = []
        for frame in requests:
            number = asked[frame.connection] = asked.get(frame.connection, 0) + 1
            of_connection = answers.get(frame.connection, [])
            response = of_connection[number - 1] if number <= len(of_connection) else None
            found.append(Exchange(frame.connection, number, frame.payload, response))
        return found

    def lines(self, contract: Contract[Any, Any] = DETECTION) -> Iterator[str]:
        """Yield it as people read it: messages in protobuf's text form, errors marked by ``!!``.

        Args:
            contract: the message types.
        """
        yield (
            f"recorded {self.started!r}: contract {self.contract!r}, {self.crc32_variant}, "
            f"frames of at most {self.max_frame_bytes} bytes"
        )
        for event, frames in self._with_frames():
            if event is not None and event.what != "data":
                endpoint = f" {event.endpoint!r}" if event.endpoint else ""
                what = _WORDS.get(event.what) or ascii(event.what)
                yield f"{event.at:10.6f} #{event.connection} {event.by}: {what}{endpoint}"
            for frame in frames:
                yield from _frame_lines(frame, contract)
        if self.damage is not None:
            yield f"!! {self.damage}"

    def _with_frames(self) -> Iterator[tuple[Event | None, list[RecordedFrame]]]:
        """Yield every event with the frames that it makes whole, or shows to be broken."""
        decoders: dict[tuple[int, Side], FrameDecoder | None] = {}
        for event in self.events:
            ends: list[Side] = []
            frames = []
            if event.what == "data":
                frames = self._decoded(event, decoders)
            elif event.what in {"eof", "cut"}:
                ends = [event.by]
            elif event.what in {"close", "broken"}:
                ends = ["client", "server"]
            for side in ends:
                frames += self._ended(event.at, event.connection, side, decoders)
            yield event, frames
        at = self.events[-1].at if self.events else 0.0
        for connection, side in sorted(decoders):
            yield None, self._ended(at, connection, side, decoders)

    def _decoded(
        self, event: Event, decoders: dict[tuple[int, Side], FrameDecoder | None]
    ) -> list[RecordedFrame]:
        key = (event.connection, event.by)
        if key not in decoders:
            decoders[key] = FrameDecoder(self.max_frame_bytes, self.crc32_variant)
        decoder = decoders[key]
        if decoder is None:
            return []
        frames = []
        for start in range(0, len(event.data), _PIECE):
            decoder.feed(event.data[start : start + _PIECE])
            try:
                while (payload := decoder.next_payload()) is not None:
                    frames.append(RecordedFrame(event.at, event.connection, event.by, bytes(payload)))
            except ProtocolError as exc:
                decoders[key] = None
                return [*frames, RecordedFrame(event.at, event.connection, event.by, error=exc)]
        return frames

    @staticmethod
    def _ended(
        at: float, connection: int, side: Side, decoders: dict[tuple[int, Side], FrameDecoder | None]
    ) -> list[RecordedFrame]:
        decoder = decoders.get((connection, side))
        if decoder is None:
            return []
        decoders[connection, side] = None
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
    """
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")
    torn = lines.pop()  # what follows the last newline: nothing, in a whole file
    header = _header(lines[0] if lines else torn, os.fspath(path))
    events: list[Event] = []
    damage = "the recording ends in the middle of a record" if torn else None
    for number, line in enumerate(lines[1:], start=2):
        try:
            events.append(_event(json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError):
            damage = f"the recording is damaged at line {number}; what follows was not read"
            break
    if not lines:
        damage = "the recording ends in the middle of a record"
    return Recording(
        started=str(header["started"]),
        contract=str(header["contract"]),
        crc32_variant=Crc32Variant(header["crc32_variant"]),
        max_frame_bytes=int(header["max_frame_bytes"]),
        events=tuple(events),
        damage=damage,
    )


def _header(line: bytes, path: str) -> dict[str, Any]:
    try:
        header = json.loads(line)
        if header["format"] != FORMAT:
            raise ValueError(line)
        if header["version"] == VERSION:
            Crc32Variant(header["crc32_variant"])
            return {**header, "max_frame_bytes": int(header["max_frame_bytes"])}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RecordingError(f"{path} is no recording of trio_ipc") from None
    raise RecordingError(f"{path} is a recording of version {header['version']!r}, must be {VERSION}")


def _event(record: dict[str, Any]) -> Event:
    if record["by"] not in {"client", "server"}:
        raise ValueError(record)
    try:
        data = base64.b64decode(record.get("data", ""), validate=True)
    except binascii.Error as exc:
        raise ValueError(record) from exc
    return Event(
        at=float(record["at"]),
        connection=int(record["connection"]),
        what=str(record["event"]),
        by=cast(Side, record["by"]),
        data=data,
        endpoint=str(record.get("endpoint", "")),
    )


def _frame_lines(frame: RecordedFrame, contract: Contract[Any, Any]) -> Iterator[str]:
    head = f"{frame.at:10.6f} #{frame.connection} {frame.by}: "
    if frame.error is not None:
        yield f"{head}!! {frame.error}"
        return
    decode = contract.decode_request if frame.by == "client" else contract.decode_response
    try:
        message: Message = decode(frame.payload)
    except UndecodableMessageError as exc:
        yield f"{head}!! {exc}"
        more = " ..." if len(frame.payload) > _SHOWN_BYTES else ""
        yield f"    {frame.payload[:_SHOWN_BYTES].hex(' ')}{more}"
        return
    yield f"{head}{message.DESCRIPTOR.name}, {len(frame.payload)} bytes"
    # What is no printable ASCII is escaped: a recording can't steer a terminal.
    for line in MessageToString(message, as_utf8=False).splitlines():
        yield f"    {line}"


# --- Playing it again ---------------------------------------------------------------------------------------


@attrs.frozen
class Difference(Generic[RequestT, ResponseT]):
    """A request that was answered otherwise than when it was recorded.

    Attributes:
        connection, number: which one, as in :class:`Exchange`.
        request: what was asked.
        expected: what was answered then, None if nothing was.
        got: what was answered now, None if nothing was.
        error: why nothing was.
    """

    connection: int
    number: int
    request: RequestT
    expected: ResponseT | None
    got: ResponseT | None
    error: IpcError | None = None


async def replay_requests(
    recording: Recording,
    connect: Callable[[], Awaitable[Channel]],
    *,
    contract: Contract[RequestT, ResponseT],
    same: Callable[[ResponseT, ResponseT], bool] = lambda expected, got: expected == got,
) -> list[Difference[RequestT, ResponseT]]:
    """Make the recorded requests of a server again, and compare its answers.

    Each recorded connection becomes one, one after the other; after an error a connection's other requests
    are left out. Requests are sent as they were recorded, byte for byte, and only whole ones.

    Args:
        recording: what was recorded.
        connect: opens a channel to the server, such as ``partial(endpoint.open_channel, config)``.
        contract: the message types.
        same: whether an answer is as expected; by default it must be equal.

    Returns:
        What differs, in order; nothing if all is as it was.

    Raises:
        ConnectError: the server can't be reached.
        UndecodableMessageError: the recording is one of another contract.

    Cancellation closes the connection.
    """
    differences = []
    exchanges = recording.exchanges()
    for connection in dict.fromkeys(exchange.connection for exchange in exchanges):
        channel = await connect()
        try:
            for exchange in exchanges:
                if exchange.connection != connection:
                    continue
                difference = await _replay(channel, exchange, contract, same)
                if difference is not None:
                    differences.append(difference)
                if difference is not None and difference.error is not None:
                    break
        finally:
            await close_at_once(channel)
    return differences


async def _replay(
    channel: Channel,
    exchange: Exchange,
    contract: Contract[RequestT, ResponseT],
    same: Callable[[ResponseT, ResponseT], bool],
) -> Difference[RequestT, ResponseT] | None:
    request = contract.decode_request(exchange.request)
    expected = None if exchange.response is None else contract.decode_response(exchange.response)
    got, error = None, None
    try:
        await channel.send(exchange.request)
        got = contract.decode_response(await channel.receive())
    except IpcError as exc:
        error = exc
    as_before = got is None if expected is None else got is not None and same(expected, got)
    if as_before:
        return None
    return Difference(exchange.connection, exchange.number, request, expected, got, error)


class RecordedHandler(Generic[RequestT, ResponseT]):
    """A handler that answers as a recorded server did; for tests of clients.

    Args:
        recording: what was recorded.
        contract: the message types.
        answer: given a request, and a recorded request with its response, returns the answer if they belong
            together, else None. By default the request must be equal, but for the ``task_id`` of a DaemonEye
            task: that is new for each task, and the answer is given the new one.

    An answer is given once, in the order of the recording; when all of a request's are used up, the last is
    given again. A request that was not recorded, or not answered, fails.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        contract: Contract[RequestT, ResponseT],
        answer: Callable[[RequestT, RequestT, ResponseT], ResponseT | None] | None = None,
    ) -> None:
        self._answer = answer or (_same_task if contract is DETECTION else _equal)
        self._recorded = [
            (contract.decode_request(exchange.request), contract.decode_response(exchange.response))
            for exchange in recording.exchanges()
            if exchange.response is not None
        ]
        self._used: set[int] = set()

    async def __call__(self, request: RequestT, _call: Call) -> ResponseT:
        """Return the recorded answer.

        Raises:
            LookupError: there is none.
        """
        found: ResponseT | None = None
        for number, (recorded, response) in enumerate(self._recorded):
            answer = self._answer(request, recorded, response)
            if answer is not None:
                found = answer
                if number not in self._used:
                    self._used.add(number)
                    break
        if found is None:
            raise LookupError("no such request was recorded and answered")
        return found


def _equal(request: Any, recorded: Any, response: Any) -> Any:
    return response if request == recorded else None


def _same_task(request: Any, recorded: Any, response: Any) -> Any:
    alike = type(recorded)()
    alike.CopyFrom(recorded)
    alike.task_id = request.task_id
    if alike != request:
        return None
    answer = type(response)()
    answer.CopyFrom(response)
    answer.task_id = request.task_id
    return answer
