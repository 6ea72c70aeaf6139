"""What the fuzzer calls with the bytes that it has thought of, and what must hold whatever they are.

Each target takes one input and raises AssertionError if a promise is broken. The first bytes of an input say
how it is meant, so that it needs nothing else to be repeated. This module must import no fuzzer: what one has
found is a test from then on, everywhere.
"""

from __future__ import annotations

import json
import logging
import os
import random
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

import attrs
import trio
from trio.testing import MockClock

from tests.support import IN_MEMORY, MemoryEndpoint, read_results, results_in, serving, task
from trio_ipc import (
    Call,
    ChecksumMismatchError,
    Crc32Variant,
    FrameTooLargeError,
    InvalidLengthError,
    IpcConfig,
    ProtocolError,
    TransportType,
    TruncatedFrameError,
    UndecodableMessageError,
)
from trio_ipc.config import AUTO
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.legacy.frames import FrameReader
from trio_ipc.wire import FrameDecoder, FrameEncoder
from trio_ipc.wire.checksum import checksum_for

VECTORS: Final = Path(__file__).parents[1] / "vectors" / "frames.json"
CRASHES: Final = Path(__file__).parent / "crashes"

#: The largest payload. The vectors' frames fit, and a fuzzer's inputs can be larger.
LIMIT: Final = 2_048

#: Bytes of a task's id that are answered, so that every response fits.
_ANSWERED: Final = 64

#: Payloads, and the error that ended them, if one did.
Outcome: TypeAlias = tuple[list[bytes], type[ProtocolError] | None]


@attrs.frozen
class Input:
    """What an input means.

    Attributes:
        variant: the checksum.
        legacy: whether the server's side is the legacy transport's.
        in_parts: whether the bytes come in slices, drawn by a seed, and not at once.
        seed: of the slices.
        wire: the bytes. Where a flag says so, each header has got its payload's checksum: a fuzzer would
            hardly ever find one.
    """

    variant: Crc32Variant
    legacy: bool
    in_parts: bool
    seed: int
    wire: bytes

    @classmethod
    def of(cls, data: bytes) -> Input:
        flags, seed = (data[:2] + b"\0\0")[:2]
        variant = Crc32Variant.CASTAGNOLI if flags & 1 else Crc32Variant.IEEE
        wire = with_checksums(data[2:], variant) if flags & 2 else data[2:]
        return cls(variant, bool(flags & 4), bool(flags & 8), seed, wire)

    def slices(self) -> Iterator[bytes]:
        chance, rest = random.Random(self.seed), self.wire
        while rest:
            size = chance.choice([1, 2, 7, 8, 9, 64, 500]) if self.in_parts else len(rest)
            yield rest[:size]
            rest = rest[size:]


def with_checksums(data: bytes, variant: Crc32Variant) -> bytes:
    """Put the right checksum into the header of each frame that is there whole."""
    repaired, at = bytearray(data), 0
    while len(data) - at >= 8:
        (length,) = struct.unpack_from("<I", data, at)
        payload = data[at + 8 : at + 8 + length]
        if length == 0 or len(payload) < length:
            break
        struct.pack_into("<I", repaired, at + 4, checksum_for(variant)(payload))
        at += 8 + length
    return bytes(repaired)


def expected(data: bytes, variant: Crc32Variant) -> Outcome:
    """Read docs/wire-protocol.md as plainly as can be: all bytes are there, and nothing is incremental."""
    payloads: list[bytes] = []
    while data:
        if len(data) < 8:
            return payloads, TruncatedFrameError
        length, checksum = struct.unpack_from("<II", data)
        if length == 0:
            return payloads, InvalidLengthError
        if length > LIMIT:
            return payloads, FrameTooLargeError
        payload, data = data[8 : 8 + length], data[8 + length :]
        if len(payload) < length:
            return payloads, TruncatedFrameError
        if checksum_for(variant)(payload) != checksum:
            return payloads, ChecksumMismatchError
        payloads.append(payload)
    return payloads, None


def _by_default(meant: Input) -> Outcome:
    decoder, payloads = FrameDecoder(LIMIT, meant.variant), list[bytes]()
    try:
        for piece in meant.slices():
            decoder.feed(piece)
            while (payload := decoder.next_payload()) is not None:
                payloads.append(payload)
            assert decoder.buffered <= 8 + LIMIT
        decoder.end()
    except ProtocolError as exc:
        return payloads, type(exc)
    return payloads, None


def _by_legacy(meant: Input) -> Outcome:
    reader, payloads = FrameReader(LIMIT, meant.variant), list[bytes]()
    try:
        for piece in meant.slices():
            while piece:
                asked_for, piece = piece[: reader.missing], piece[reader.missing :]  # noqa: PLW2901
                reader.add(asked_for)
                payload = reader.take()
                if payload is not None:
                    payloads.append(payload)
        reader.end()
    except ProtocolError as exc:
        return payloads, type(exc)
    return payloads, None


def decoder(data: bytes) -> None:
    """Both transports' framing give what the format says, however the bytes are sliced."""
    meant = Input.of(data)
    right = expected(meant.wire, meant.variant)
    assert _by_default(meant) == right
    assert _by_legacy(meant) == right


class _Errors(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())


def server(data: bytes) -> None:
    """A server answers what is well-formed, in order, then says what is not, and goes on serving others."""
    meant = Input.of(data)
    errors = _Errors()
    logger = logging.getLogger("trio_ipc")
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(errors)
    descriptors = _descriptors()
    try:
        trio.run(_talk_to_server, meant, clock=MockClock(autojump_threshold=0))
    finally:
        logger.removeHandler(errors)
        logger.propagate = propagates
    assert not errors.seen, errors.seen
    assert _descriptors() == descriptors


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


async def _answer(request: DetectionTask, _: Call) -> DetectionResult:
    return DetectionResult(task_id=request.task_id[:_ANSWERED], success=True)


async def _talk_to_server(meant: Input) -> None:
    transport = TransportType.LEGACY if meant.legacy else TransportType.INTERPROCESS
    config = IpcConfig(
        endpoint_path=IN_MEMORY, max_frame_bytes=LIMIT, crc32_variant=meant.variant, transport=transport
    )
    endpoint = MemoryEndpoint(config)
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with serving(_answer, endpoint) as running:
        served = trio.lowlevel.current_statistics().tasks_living
        received = await _all_that_is_said(endpoint.connect(), meant)
        answers, is_violated = _right_answers(meant)
        said = results_in(received, AUTO)  # a refusal is in the variant of who is refused
        assert said[: len(answers)] == answers
        reasons = [one.error_message.partition(":")[0] for one in said[len(answers) :]]
        assert reasons == ["protocol violation"] * is_violated
        await trio.testing.wait_all_tasks_blocked()
        counters = running.snapshot()
        assert (counters.connections_active, counters.requests_in_flight) == (0, 0)
        assert trio.lowlevel.current_statistics().tasks_living == served
        async with endpoint.connect() as honest:
            payload = task("honest").SerializeToString()
            await honest.send_all(FrameEncoder(LIMIT, meant.variant).encode(payload))
            [result] = await read_results(honest, 1, meant.variant)
            assert result.task_id == "honest"
    endpoint.ends.close()
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def _all_that_is_said(stream: trio.abc.HalfCloseableStream, meant: Input) -> bytes:
    received = bytearray()

    async def receive() -> None:
        try:
            async for piece in stream:
                received.extend(piece)
        except trio.BrokenResourceError:
            pass  # it closes with bytes unread once it has said what is wrong

    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        try:
            for piece in meant.slices():
                await stream.send_all(piece)
            await stream.send_eof()
        except trio.BrokenResourceError:
            pass
    return bytes(received)


def _right_answers(meant: Input) -> tuple[list[DetectionResult], bool]:
    """What the server must answer up to the first violation, and whether there is one."""
    payloads, error = expected(meant.wire, meant.variant)
    answers: list[DetectionResult] = []
    for payload in payloads:
        try:
            request = DETECTION.decode_request(payload)
        except UndecodableMessageError:
            return answers, True
        answers.append(DetectionResult(task_id=request.task_id[:_ANSWERED], success=True))
    return answers, error is not None


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {"decoder": decoder, "server": server}


def repeat(found: Path) -> None:
    """Run each input that a fuzzer has left, in a directory for each target.

    Raises:
        Exception: what a target raises, with a note that names the file.
    """
    for file in sorted(found.glob("*/*-*")):
        try:
            TARGETS[file.parent.name](file.read_bytes())
        except Exception as exc:
            exc.add_note(f"by {file.parent.name}/{file.name}")
            raise


def seeds() -> list[bytes]:
    """Inputs to begin with: the golden frames and the golden mistakes, sliced and not."""
    vectors = json.loads(VECTORS.read_text(encoding="utf-8"))
    found: list[bytes] = []
    for vector in vectors["valid"]:
        castagnoli, frame = vector["crc32_variant"] == "castagnoli", bytes.fromhex(vector["frame_hex"])
        found += (bytes([flags | castagnoli, 1]) + frame for flags in (0, 2, 4, 8, 14))
        found.append(bytes([castagnoli, 1]) + 3 * frame)
    for vector in vectors["invalid"]:
        found += (bytes([flags, 1]) + bytes.fromhex(vector["bytes_hex"]) for flags in (0, 4, 8, 12))
    return found
