"""A client of DaemonEye's contract by hand, IEEE only, that keeps every rule; and ways to break each one.

It asks on and on, on one connection for as long as that is good. Each class below breaks what its name says,
and nothing else.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from typing import Final

import trio
from google.protobuf.message import DecodeError

from trio_ipc.config import Crc32Variant
from trio_ipc.daemoneye import DetectionResult, DetectionTask
from trio_ipc.testing import IpcEndpoint
from trio_ipc.transports import LocalStream
from trio_ipc.wire.checksum import checksum_for

#: The settings that it has, as the checker is told them.
LIMIT: Final = 4096
READ_TIMEOUT: Final = 20.0


class ViolationError(Exception):
    """The server broke the protocol, or has left."""


class GoodClient:
    """Keeps every rule."""

    def __init__(self) -> None:
        self.answers = 0
        self.numbers = itertools.count(1)
        self.buffer = b""

    # --- What the ways below change ---

    def task(self, number: int) -> bytes:
        return DetectionTask(task_id=f"task {number}").SerializeToString()

    def frame(self, payload: bytes) -> bytes:
        return struct.pack("<II", len(payload), zlib.crc32(payload)) + payload

    def check_length(self, length: int) -> None:
        if not 1 <= length <= LIMIT:
            raise ViolationError("length")

    def check_sum(self, payload: bytes, checksum: int) -> None:
        if zlib.crc32(payload) != checksum:
            raise ViolationError("checksum")

    def check_message(self, payload: bytes, number: int) -> None:
        try:
            result = DetectionResult.FromString(payload)
        except DecodeError:
            raise ViolationError("payload") from None
        self.check_id(result.task_id, f"task {number}")

    def check_id(self, given: str, wanted: str) -> None:
        if given != wanted:
            raise ViolationError("task_id")

    def check_rest(self) -> None:
        if self.buffer:
            raise ViolationError("unasked")

    async def cut(self) -> None:
        """The server has ended inside a frame."""
        await trio.lowlevel.checkpoint()

    @property
    def patience(self) -> float:
        return READ_TIMEOUT

    # --- Its life ---

    async def run(self, endpoint: IpcEndpoint) -> None:
        """Ask until cancelled."""
        while True:
            self.buffer = b""
            try:
                async with await endpoint.connect() as stream:
                    while True:
                        await self.ask(stream, next(self.numbers))
                        await trio.sleep(0.1)
            except (ViolationError, trio.BrokenResourceError, trio.TooSlowError):
                await trio.sleep(0.01)

    async def ask(self, stream: LocalStream, number: int) -> None:
        self.check_rest()
        await stream.send_all(self.frame(self.task(number)))
        with trio.fail_after(self.patience):
            payload = await self.receive(stream)
        self.check_message(payload, number)
        self.answers += 1

    async def receive(self, stream: LocalStream) -> bytes:
        await self.fill(stream, 8)
        length, checksum = struct.unpack_from("<II", self.buffer)
        self.check_length(length)
        await self.fill(stream, 8 + length)
        payload, self.buffer = self.buffer[8 : 8 + length], self.buffer[8 + length :]
        self.check_sum(payload, checksum)
        return payload

    async def fill(self, stream: LocalStream, size: int) -> None:
        while len(self.buffer) < size:
            data = await stream.receive_some()
            if not data:
                if self.buffer:
                    await self.cut()
                raise ViolationError("end")
            self.buffer += data


# --- One way to break each rule -----------------------------------------------------------------------------


class LengthTurnedRound(GoodClient):
    def frame(self, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload)) + struct.pack("<I", zlib.crc32(payload)) + payload


class CountsTheHeader(GoodClient):
    def frame(self, payload: bytes) -> bytes:
        return struct.pack("<II", 8 + len(payload), zlib.crc32(payload)) + payload


class ChecksumTurnedRound(GoodClient):
    def frame(self, payload: bytes) -> bytes:
        return struct.pack("<I", len(payload)) + struct.pack(">I", zlib.crc32(payload)) + payload


class ChangesItsVariant(GoodClient):
    def frame(self, payload: bytes) -> bytes:
        variant = [*Crc32Variant][self.answers % 2]
        return struct.pack("<II", len(payload), checksum_for(variant)(payload)) + payload

    def check_sum(self, payload: bytes, checksum: int) -> None:
        if checksum not in {checksum_for(variant)(payload) for variant in Crc32Variant}:
            raise ViolationError("checksum")


class AsksByNoMessage(GoodClient):
    def task(self, number: int) -> bytes:
        return b"\xff" * 12


class NeedsWholeFrames(GoodClient):
    async def fill(self, stream: LocalStream, size: int) -> None:
        if len(self.buffer) < size:
            self.buffer += await stream.receive_some()
            if len(self.buffer) < size:
                raise ViolationError("end")


class TakesLessThanTheLimit(GoodClient):
    def check_length(self, length: int) -> None:
        if not 1 <= length < LIMIT:
            raise ViolationError("length")


class WaitsForEver(GoodClient):
    @property
    def patience(self) -> float:
        return 1_000_000


class HasNoLimit(GoodClient):
    def check_length(self, length: int) -> None:
        if length < 1:
            raise ViolationError("length")


class TakesNothingForAResponse(GoodClient):
    def check_length(self, length: int) -> None:
        if length > LIMIT:
            raise ViolationError("length")

    def check_message(self, payload: bytes, number: int) -> None:
        if payload:
            super().check_message(payload, number)


class LooksAtNoChecksum(GoodClient):
    def check_sum(self, payload: bytes, checksum: int) -> None:
        pass


class TakesWhatIsNoMessage(GoodClient):
    def check_message(self, payload: bytes, number: int) -> None:
        if not payload.startswith(b"\xff"):
            super().check_message(payload, number)


class StaysAfterACutFrame(GoodClient):
    async def cut(self) -> None:
        await trio.sleep(READ_TIMEOUT)


class LooksAtNoId(GoodClient):
    def check_id(self, given: str, wanted: str) -> None:
        pass


class ThrowsAwayWhatNobodyAskedFor(GoodClient):
    def check_rest(self) -> None:
        self.buffer = b""


#: The rules that each of them breaks.
BROKEN: Final[dict[type[GoodClient], tuple[str, ...]]] = {
    LengthTurnedRound: ("C1",),
    CountsTheHeader: ("C1",),
    ChecksumTurnedRound: ("C2",),
    ChangesItsVariant: ("C3",),
    AsksByNoMessage: ("C4",),
    NeedsWholeFrames: ("C5",),
    TakesLessThanTheLimit: ("C6",),
    WaitsForEver: ("C7",),
    HasNoLimit: ("C8",),
    TakesNothingForAResponse: ("C9",),
    LooksAtNoChecksum: ("C10",),
    TakesWhatIsNoMessage: ("C11",),
    StaysAfterACutFrame: ("C12",),
    LooksAtNoId: ("C13",),
    ThrowsAwayWhatNobodyAskedFor: ("C14",),
}
