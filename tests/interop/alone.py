"""What each server and each client does with the bare bytes of another side. By the golden invalid frames."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import attrs
import trio

from trio_ipc import Crc32Variant
from trio_ipc.daemoneye import DetectionResult, DetectionTask
from trio_ipc.wire import FrameDecoder, FrameEncoder

from . import programs
from .answers import answer
from .peers import Peer
from .programs import MIB, ClientProgram, PeerError, Settings, failing
from .samples import VECTORS, golden, random_messages
from .scenarios import SEED

#: How many random messages are decoded and encoded again.
RECODED: Final = 400

_encoder: Final = FrameEncoder(2 * MIB, Crc32Variant.IEEE)

TASK: Final = DetectionTask(task_id="t")


def frame(message: DetectionTask | DetectionResult) -> bytes:
    return _encoder.encode(message.SerializeToString())


@attrs.frozen
class Alone:
    """What is tried with one program, and where it listens or connects."""

    peer: Peer
    endpoint: str


Function: TypeAlias = Callable[[Alone], Awaitable[None]]


@attrs.frozen
class Scenario:
    name: str
    shows: str
    function: Function
    applies: Callable[[Peer], bool]


OF_SERVERS: Final[list[Scenario]] = []
OF_CLIENTS: Final[list[Scenario]] = []


def scenario(
    kind: list[Scenario], name: str, shows: str, applies: Callable[[Peer], bool] = lambda _: True
) -> Callable[[Function], Function]:
    def add(function: Function) -> Function:
        kind.append(Scenario(name, shows, function, applies))
        return function

    return add


# --- A server, and bytes ------------------------------------------------------------------------------------


async def _connect(endpoint: str) -> trio.SocketStream:
    return await trio.open_unix_socket(endpoint)


async def _rest(stream: trio.SocketStream) -> bytes:
    """All that comes until the server closes."""
    received = b""
    try:
        async for piece in stream:
            received += piece
    except trio.BrokenResourceError:
        pass
    return received


async def _results(stream: trio.SocketStream, count: int) -> list[DetectionResult]:
    """So many whole results, which come as they like."""
    return [DetectionResult.FromString(payload) for payload in await _payloads(stream, count)]


async def _payloads(stream: trio.SocketStream, count: int) -> list[bytes]:
    decoder = FrameDecoder(2 * MIB, Crc32Variant.IEEE)
    payloads: list[bytes] = []
    while len(payloads) < count:
        data = await stream.receive_some()
        assert data, "the other side closed the connection"
        decoder.feed(data)
        while (payload := decoder.next_payload()) is not None:
            payloads.append(bytes(payload))
    return payloads


def _refused(received: bytes) -> None:
    """Judge what came in place of a response: nothing, or one failure that says why."""
    if received:
        decoder = FrameDecoder(MIB, Crc32Variant.IEEE)
        decoder.feed(received)
        payload = decoder.next_payload()
        assert payload is not None
        result = DetectionResult.FromString(payload)
        assert not result.success
        assert result.error_message
        decoder.end()


@scenario(OF_SERVERS, "golden invalid frames", "each ends its connection, and no other one")
async def invalid_frames(alone: Alone) -> None:
    for limit in {vector["max_frame_bytes"] for vector in VECTORS["invalid"]}:
        async with programs.server(alone.peer, alone.endpoint, Settings(max_frame_bytes=limit)):
            async with await _connect(alone.endpoint) as other:
                for vector in VECTORS["invalid"]:
                    if vector["max_frame_bytes"] == limit:
                        await _send_invalid(alone, vector)
                        await other.send_all(frame(TASK))
                        assert await _results(other, 1) == [answer(TASK)]


async def _send_invalid(alone: Alone, vector: dict[str, Any]) -> None:
    async with await _connect(alone.endpoint) as stream:
        await stream.send_all(bytes.fromhex(vector["bytes_hex"]))
        if vector["error"] == "peer closed inside a frame":
            await stream.send_eof()
        received = await _rest(stream)
        if vector["name"] != "castagnoli-sent-to-ieee":  # its refusal is in the variant of the client
            _refused(received)


@scenario(OF_SERVERS, "frames in pieces", "a byte at a time, and several at once")
async def pieces(alone: Alone) -> None:
    tasks = [*random_messages(DetectionTask, 5, SEED)]
    data = b"".join(map(frame, tasks))
    async with programs.server(alone.peer, alone.endpoint, Settings()):
        async with await _connect(alone.endpoint) as stream:
            # A response does not wait for the rest of the next task.
            await stream.send_all(frame(TASK) + frame(TASK)[:9])
            assert await _results(stream, 1) == [answer(TASK)]
            await stream.send_all(frame(TASK)[9:])
            assert await _results(stream, 1) == [answer(TASK)]
            for index in range(len(data)):
                await stream.send_all(data[index : index + 1])
            await stream.send_all(data)
            assert await _results(stream, 10) == [answer(task) for task in tasks] * 2


@scenario(
    OF_SERVERS, "clients that stall", "its deadline ends a connection that is idle, or stuck inside a frame"
)
async def stalled(alone: Alone) -> None:
    async with programs.server(alone.peer, alone.endpoint, Settings(timeout_ms=200)):
        for part in (b"", frame(TASK)[:5], frame(TASK)[:-1], frame(TASK) + frame(TASK)[:-1]):
            async with await _connect(alone.endpoint) as stream:
                await stream.send_all(part)
                expected = [answer(TASK)] if len(part) > len(frame(TASK)) else []
                assert await _results(stream, len(expected)) == expected
                _refused(await _rest(stream))


@scenario(OF_SERVERS, "clients that read nothing", "they leave, results and all; the server serves on")
async def unread(alone: Alone) -> None:
    task = DetectionTask(task_id="u", metadata="records 1000")
    async with programs.server(alone.peer, alone.endpoint, Settings()):
        for _ in range(3):
            async with await _connect(alone.endpoint) as stream:
                await stream.send_all(frame(task) * 10)
        async with await _connect(alone.endpoint) as stream:
            await stream.send_all(frame(task))
            assert await _results(stream, 1) == [answer(task)]


@scenario(
    OF_SERVERS,
    "its socket",
    "for its owner alone; a dead server's is removed, a live one's and a plain file are not",
)
async def its_socket(alone: Alone) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(alone.endpoint)
    async with programs.server(alone.peer, alone.endpoint, Settings()):
        assert stat.S_IMODE(os.stat(alone.endpoint).st_mode) == 0o600
        await _does_not_start(alone)
        async with await _connect(alone.endpoint) as stream:
            await stream.send_all(frame(TASK))
            assert await _results(stream, 1) == [answer(TASK)]
    os.unlink(alone.endpoint)
    with open(alone.endpoint, "w", encoding="utf-8"):
        pass
    await _does_not_start(alone)
    assert os.path.isfile(alone.endpoint)


async def _does_not_start(alone: Alone) -> None:
    try:
        async with programs.server(alone.peer, alone.endpoint, Settings()):
            raise AssertionError("it listens")
    except EOFError as exc:
        if "status 0" in str(exc):
            raise


# --- A client, and bytes ------------------------------------------------------------------------------------


@attrs.frozen
class Listener:
    """A server of bare bytes, with one connection at a time."""

    listener: trio.SocketListener
    client: ClientProgram
    endpoint: str

    async def accept(self, settings: Settings = Settings()) -> trio.SocketStream:  # noqa: B008 - frozen
        await self.client.open(self.endpoint, settings)
        return await self.listener.accept()


async def _listen(endpoint: str) -> trio.SocketListener:
    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.bind(endpoint)
    sock.listen()
    return trio.SocketListener(sock)


async def _answered(
    listener: Listener,
    data: bytes,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    *,
    closes: bool = True,
) -> list[DetectionResult] | PeerError:
    """Answer a call by some bytes, and then close or fall silent. Return what the client makes of it."""
    async with await listener.accept(settings) as stream:
        made: list[DetectionResult] | PeerError
        async with trio.open_nursery() as nursery:

            async def reply() -> None:
                assert await stream.receive_some() == frame(TASK)
                await stream.send_all(data)
                if closes:
                    await stream.aclose()

            nursery.start_soon(reply)
            try:
                made = await listener.client.call(TASK)
            except PeerError as exc:
                made = exc
    return made


def _failed(made: list[DetectionResult] | PeerError, kind: str) -> None:
    assert isinstance(made, PeerError), made
    assert made.kind == kind, made


@scenario(
    OF_CLIENTS,
    "responses that are none",
    "golden invalid frames, another task's result, a close: each fails the call, and says why",
)
async def wrong_answers(alone: Alone) -> None:
    kinds = {
        "invalid length": "length",
        "too large": "length",
        "too large, judged from the header alone": "length",
        "checksum mismatch": "checksum",
        "decode": "decode",
        "peer closed inside a frame": "closed",
    }
    async with programs.client(alone.peer) as client, await _listen(alone.endpoint) as server:
        listener = Listener(server, client, alone.endpoint)
        for vector in VECTORS["invalid"]:
            settings = Settings(max_frame_bytes=vector["max_frame_bytes"])
            data = bytes.fromhex(vector["bytes_hex"])
            _failed(await _answered(listener, data, settings), kinds[vector["error"]])
        another = frame(DetectionResult(task_id="another", success=True))
        _failed(await _answered(listener, another), "mismatch")
        _failed(await _answered(listener, b""), "closed")
        assert await _answered(listener, frame(answer(TASK))) == [answer(TASK)]


@scenario(OF_CLIENTS, "responses in pieces", "a byte at a time, and several at once")
async def answers_in_pieces(alone: Alone) -> None:
    tasks = [*random_messages(DetectionTask, 5, SEED)]
    data = b"".join(frame(answer(task)) for task in tasks)
    async with programs.client(alone.peer) as client, await _listen(alone.endpoint) as server:
        async with await Listener(server, client, alone.endpoint).accept() as stream:
            async with trio.open_nursery() as nursery:

                async def reply() -> None:
                    asked = await _payloads(stream, 2 * len(tasks))
                    assert [DetectionTask.FromString(payload) for payload in asked] == tasks * 2
                    for index in range(len(data)):
                        await stream.send_all(data[index : index + 1])
                    await stream.send_all(data)

                nursery.start_soon(reply)
                assert await client.call(*tasks, *tasks) == [answer(task) for task in tasks] * 2


@scenario(OF_CLIENTS, "servers that stall", "its deadline ends a call that is not answered, or only in part")
async def stalling_servers(alone: Alone) -> None:
    async with programs.client(alone.peer) as client, await _listen(alone.endpoint) as server:
        listener = Listener(server, client, alone.endpoint)
        for part in (b"", frame(answer(TASK))[:5], frame(answer(TASK))[:-1]):
            made = await _answered(listener, part, Settings(timeout_ms=200), closes=False)
            _failed(made, "timeout")


@scenario(
    OF_CLIENTS, "nobody there", "connecting fails where there is nothing, and where a dead server's socket is"
)
async def nobody_there(alone: Alone) -> None:
    async with programs.client(alone.peer) as client:
        for _ in range(2):
            with failing("connect"):
                await client.open(alone.endpoint, Settings())
            if not os.path.lexists(alone.endpoint):
                with socket.socket(socket.AF_UNIX) as dead:
                    dead.bind(alone.endpoint)


@scenario(
    OF_CLIENTS,
    "every field",
    f"{RECODED:,} random tasks and results, and the golden ones, decoded and encoded again, are the same",
    lambda peer: not peer.has_auto,  # it has protobuf's own code, as this test
)
async def every_field(alone: Alone) -> None:
    async with programs.client(alone.peer) as client:
        for task in (*random_messages(DetectionTask, RECODED // 2, SEED), *golden(DetectionTask)):
            assert DetectionTask.FromString(await client.recode(task)) == task
        for result in (*random_messages(DetectionResult, RECODED // 2, SEED), *golden(DetectionResult)):
            assert DetectionResult.FromString(await client.recode(result)) == result
        task = DetectionTask(task_id="t", metadata="m")
        unknown = b"\xa2\x06\x03abc\xa8\x06\x07"  # fields 100 and 101, which no schema of a peer has
        assert await client.recode_bytes("task", task.SerializeToString() + unknown) in {
            task.SerializeToString(),
            task.SerializeToString() + unknown,
        }
