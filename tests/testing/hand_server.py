"""A server of DaemonEye's contract by hand, IEEE only, that keeps every rule; and ways to break each one.

Written for the checker alone: it shares no line with the library's framing, and each class below breaks what
its name says, and nothing else.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

import trio
import trio.testing
from google.protobuf.message import DecodeError

from trio_ipc.config import Crc32Variant
from trio_ipc.daemoneye import DetectionResult, DetectionTask
from trio_ipc.testing import IpcEndpoint
from trio_ipc.testing.waiting import wait_until_gone
from trio_ipc.transports import LocalStream, PeerState
from trio_ipc.wire.checksum import checksum_for

#: The settings that it has, as the checker is told them.
LIMIT: Final = 4096
PLACES: Final = 3
READ_TIMEOUT: Final = 20.0


class ViolationError(Exception):
    """The client broke the protocol."""


class GoodServer:
    """Keeps every rule."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.connections: set[trio.CancelScope] = set()

    # --- What the ways below change ---

    def check_length(self, length: int) -> None:
        if not 1 <= length <= LIMIT:
            raise ViolationError("length")

    def check_sum(self, payload: bytes, checksum: int, number: int) -> None:
        del number
        if zlib.crc32(payload) != checksum:
            raise ViolationError("checksum")

    def decode(self, payload: bytes) -> DetectionTask | None:
        try:
            return DetectionTask.FromString(payload)
        except DecodeError:
            raise ViolationError("payload") from None

    def order(self, tasks: list[DetectionTask]) -> list[DetectionTask]:
        return tasks

    def result(self, task: DetectionTask) -> bytes:
        return DetectionResult(task_id=task.task_id, success=True).SerializeToString()

    def frame(self, payload: bytes) -> bytes:
        return struct.pack("<II", len(payload), zlib.crc32(payload)) + payload

    async def answer(self, stream: LocalStream, task: DetectionTask) -> None:
        await stream.send_all(self.frame(self.result(task)))

    async def before_answers(self, connection: Connection) -> None:
        del connection

    async def after_answer(self, connection: Connection) -> None:
        del connection

    async def end(self, stream: LocalStream) -> None:
        """The client has closed its sending side between two frames."""

    async def cut(self, stream: LocalStream) -> None:
        """The client has closed its sending side inside a frame."""

    async def violated(self, stream: LocalStream, exc: ViolationError) -> None:
        said = DetectionResult(error_message=f"protocol violation: {exc}").SerializeToString()
        await stream.send_all(self.frame(said))

    async def refuse(self, stream: LocalStream) -> None:
        """There is no place."""

    @property
    def places(self) -> float:
        return PLACES

    def seconds_to_begin(self) -> float:
        return READ_TIMEOUT

    def seconds_to_end(self) -> float:
        return READ_TIMEOUT

    # --- Its life ---

    async def run(self, endpoint: IpcEndpoint, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until cancelled, or crashed."""
        listener = await endpoint.listen_streams()
        with self.scope:
            async with listener, trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    nursery.start_soon(self.serve, await listener.accept())

    async def serve(self, stream: LocalStream) -> None:
        scope = trio.CancelScope()
        async with stream:
            if len(self.connections) >= self.places:
                await self.refuse(stream)
                return
            self.connections.add(scope)
            try:
                with scope:
                    await Connection(self, stream).serve()
            except trio.BrokenResourceError:
                pass
            finally:
                self.connections.discard(scope)


class Connection:
    """One connection of a server by hand."""

    def __init__(self, server: GoodServer, stream: LocalStream) -> None:
        self.server = server
        self.stream = stream
        self.buffer = b""
        self.frames = 0
        self.answered = 0

    async def serve(self) -> None:
        server, stream = self.server, self.stream
        while True:
            tasks: list[DetectionTask] = []
            violation: ViolationError | None = None
            try:
                while (task := self.take()) is not None or self.skipped:
                    if task is not None:
                        tasks.append(task)
            except ViolationError as exc:
                violation = exc
            if tasks:
                await server.before_answers(self)
            if violation is not None and self.drops_before():
                tasks = []
            for task in server.order(tasks):
                await server.answer(stream, task)
                self.answered += 1
                await server.after_answer(self)
            if violation is not None:
                await server.violated(stream, violation)
                return
            if not await self.fill():
                return

    def drops_before(self) -> bool:
        return isinstance(self.server, DropsWhatCameBefore)

    async def fill(self) -> bool:
        """Read more; False where the connection is over."""
        server = self.server
        seconds = server.seconds_to_end() if self.buffer else server.seconds_to_begin()
        with trio.move_on_after(seconds):
            data = await self.stream.receive_some()
            self.buffer += data
            if not data:
                await (server.cut(self.stream) if self.buffer else server.end(self.stream))
            elif isinstance(server, NeedsWholeFrames) and not self.is_whole():
                raise trio.BrokenResourceError
            return bool(data)
        return False

    def is_whole(self) -> bool:
        return len(self.buffer) >= 8 and len(self.buffer) >= 8 + struct.unpack_from("<I", self.buffer)[0]

    skipped = False

    def take(self) -> DetectionTask | None:
        self.skipped = False
        if len(self.buffer) < 8:
            return None
        length, checksum = struct.unpack_from("<II", self.buffer)
        self.server.check_length(length)
        if len(self.buffer) < 8 + length:
            return None
        payload, self.buffer = self.buffer[8 : 8 + length], self.buffer[8 + length :]
        self.frames += 1
        self.server.check_sum(payload, checksum, self.frames)
        task = self.server.decode(payload)
        self.skipped = task is None
        return task


# --- One way to break each rule -----------------------------------------------------------------------------


class LengthTurnedRound(GoodServer):
    def frame(self, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload)) + struct.pack("<I", zlib.crc32(payload)) + payload


class EmptyAnswers(GoodServer):
    def result(self, task: DetectionTask) -> bytes:
        return b""


class ChecksumTurnedRound(GoodServer):
    def frame(self, payload: bytes) -> bytes:
        return struct.pack("<I", len(payload)) + struct.pack(">I", zlib.crc32(payload)) + payload


class AnswersInTheOtherVariant(GoodServer):
    def frame(self, payload: bytes) -> bytes:
        return struct.pack("<II", len(payload), checksum_for(Crc32Variant.CASTAGNOLI)(payload)) + payload


class LooksAtNoChecksum(GoodServer):
    """Takes the other variant, too, and answers it in its own: two rules."""

    def check_sum(self, payload: bytes, checksum: int, number: int) -> None:
        pass


class AnswersByNoMessage(GoodServer):
    def result(self, task: DetectionTask) -> bytes:
        return b"\xff" * 12


class AnswersAnother(GoodServer):
    def result(self, task: DetectionTask) -> bytes:
        return DetectionResult(task_id="another", success=True).SerializeToString()


class AnswersTwice(GoodServer):
    async def answer(self, stream: LocalStream, task: DetectionTask) -> None:
        await stream.send_all(2 * self.frame(self.result(task)))


class AnswersOutOfOrder(GoodServer):
    def order(self, tasks: list[DetectionTask]) -> list[DetectionTask]:
        return tasks[::-1]


class ClosesAfterEachResponse(GoodServer):
    async def after_answer(self, connection: Connection) -> None:
        raise trio.BrokenResourceError


class NeedsWholeFrames(GoodServer):
    """Takes what one read gives for whole frames."""


class TakesLessThanTheLimit(GoodServer):
    def check_length(self, length: int) -> None:
        if not 1 <= length < LIMIT:
            raise ViolationError("length")


class DropsWhatIsAskedAtTheEnd(GoodServer):
    async def before_answers(self, connection: Connection) -> None:
        await trio.testing.wait_all_tasks_blocked()
        if connection.stream.peer_state() is PeerState.HALF_CLOSED:
            raise trio.BrokenResourceError


class SpeaksAfterTheEnd(GoodServer):
    async def end(self, stream: LocalStream) -> None:
        await stream.send_all(self.frame(DetectionResult(error_message="good bye").SerializeToString()))


class ClosesTooLate(GoodServer):
    async def end(self, stream: LocalStream) -> None:
        with trio.move_on_after(READ_TIMEOUT):
            await wait_until_gone(stream)


class KeepsIdleConnections(GoodServer):
    def seconds_to_begin(self) -> float:
        return 1_000_000


class WaitsForTheRestForEver(GoodServer):
    def seconds_to_end(self) -> float:
        return 1_000_000


class HasNoLimit(GoodServer):
    def check_length(self, length: int) -> None:
        if length < 1:
            raise ViolationError("length")


class TakesNothingForATask(GoodServer):
    def check_length(self, length: int) -> None:
        if length > LIMIT:
            raise ViolationError("length")


class LooksAtTheFirstChecksumOnly(GoodServer):
    def check_sum(self, payload: bytes, checksum: int, number: int) -> None:
        if number == 1:
            super().check_sum(payload, checksum, number)


class SkipsWhatIsNoMessage(GoodServer):
    def decode(self, payload: bytes) -> DetectionTask | None:
        try:
            return super().decode(payload)
        except ViolationError:
            return None


class StaysAfterACutFrame(GoodServer):
    async def cut(self, stream: LocalStream) -> None:
        await trio.sleep(READ_TIMEOUT)


class DropsWhatCameBefore(GoodServer):
    """Of frames in one read, a broken one spoils those before it."""


class SaysItInABadFrame(GoodServer):
    async def violated(self, stream: LocalStream, exc: ViolationError) -> None:
        await stream.send_all(b"protocol violation")


class SaysItTwice(GoodServer):
    async def violated(self, stream: LocalStream, exc: ViolationError) -> None:
        await super().violated(stream, exc)
        await super().violated(stream, exc)


class TakesItOutOnOthers(GoodServer):
    async def violated(self, stream: LocalStream, exc: ViolationError) -> None:
        for scope in self.connections:
            scope.cancel()


class BreaksDown(GoodServer):
    async def violated(self, stream: LocalStream, exc: ViolationError) -> None:
        if str(exc) == "length":
            self.scope.cancel()


class HasPlacesForEverybody(GoodServer):
    @property
    def places(self) -> float:
        return float("inf")


class SaysThatItIsFull(GoodServer):
    async def refuse(self, stream: LocalStream) -> None:
        await stream.send_all(self.frame(DetectionResult(error_message="full").SerializeToString()))


#: The rules that each of them breaks.
BROKEN: Final[dict[type[GoodServer], tuple[str, ...]]] = {
    LengthTurnedRound: ("S1",),
    EmptyAnswers: ("S1",),
    ChecksumTurnedRound: ("S2",),
    AnswersInTheOtherVariant: ("S3",),
    LooksAtNoChecksum: ("S3", "S18"),
    AnswersByNoMessage: ("S4",),
    AnswersAnother: ("S5",),
    AnswersTwice: ("S6",),
    AnswersOutOfOrder: ("S7",),
    ClosesAfterEachResponse: ("S8",),
    NeedsWholeFrames: ("S9",),
    TakesLessThanTheLimit: ("S10",),
    DropsWhatIsAskedAtTheEnd: ("S11",),
    SpeaksAfterTheEnd: ("S12",),
    ClosesTooLate: ("S12",),
    KeepsIdleConnections: ("S14",),
    WaitsForTheRestForEver: ("S15",),
    HasNoLimit: ("S16",),
    TakesNothingForATask: ("S17",),
    LooksAtTheFirstChecksumOnly: ("S18",),
    SkipsWhatIsNoMessage: ("S19",),
    StaysAfterACutFrame: ("S20",),
    DropsWhatCameBefore: ("S21",),
    SaysItInABadFrame: ("S22",),
    SaysItTwice: ("S22",),
    TakesItOutOnOthers: ("S23",),
    BreaksDown: ("S16",),
    HasPlacesForEverybody: ("S24",),
    SaysThatItIsFull: ("S24",),
}
