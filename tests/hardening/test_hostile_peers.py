"""Peers that mean harm, one kind at a time, through the real socket or pipe.

What they cost is one connection each: the server lets go of them within its deadlines, takes no more from
them than it says, and answers everybody else. `tests/server/test_hostile_peers.py` has them all at once, at
random.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio
from google.protobuf import struct_pb2
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.hardening.record import Attack
from tests.support import MIB, frame, read_to_end, results_in, serving, succeed, success, task
from trio_ipc import (
    Call,
    Client,
    Contract,
    Crc32Variant,
    FrameTooLargeError,
    InvalidLengthError,
    IpcConfig,
    PeerClosedError,
    PeerPolicy,
    ProtocolError,
    UndecodableMessageError,
    UnsolicitedResponseError,
    open_client,
    serve,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask, unsupported
from trio_ipc.transports import LocalStream, PeerState, connect, listen
from trio_ipc.wire import FrameEncoder

_encoder = FrameEncoder(4 * MIB, Crc32Variant.IEEE)


async def send_what_is_taken(stream: trio.abc.SendStream, data: bytes) -> None:
    """Send; who is refused before the end need not be told."""
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)


async def said_to(path: str, data: bytes) -> list[DetectionResult]:
    """Send some bytes and return what the server says to them until it closes."""
    async with await connect(path) as stream:
        await send_what_is_taken(stream, data)
        return results_in(await read_to_end(stream))


# --- Slow, many, and deaf -----------------------------------------------------------------------------------


async def test_who_sends_a_frame_a_byte_at_a_time_gets_no_longer_than_others(
    config: IpcConfig, autojump_clock: MockClock, attack: Attack
) -> None:
    config = config.replace(read_timeout_ms=5_000, max_connections=64)
    whole = frame(task("x" * 200))
    closed_after: list[float] = []

    async def drip(at_once: int) -> None:
        async with await connect(config.endpoint_path) as stream:
            await stream.send_all(whole[:at_once])
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_to_end, stream)
                for byte in whole[at_once:]:
                    await trio.sleep(1)
                    try:
                        await stream.send_all(bytes([byte]))
                    except trio.BrokenResourceError:
                        break
            closed_after.append(trio.current_time() - began)

    async with serving(succeed, config) as server, open_client(DETECTION, config) as honest:
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(drip, 1 if number % 2 else 9)  # of the header, or of the payload
            while len(closed_after) < 40:
                assert await honest.call(task()) == success()
                await trio.sleep(0.5)
        assert server.snapshot().timeouts["read"] == 40
    assert all(5 <= seconds <= 7 for seconds in closed_after)
    attack(
        "a frame sent a byte at a time, from its header or from its payload on",
        tried=40,
        outcome="closed after one `read_timeout_ms`; others answered meanwhile",
    )


async def test_connections_by_hundreds_are_held_to_the_limits_and_the_rest_is_told_at_once(
    config: IpcConfig, autojump_clock: MockClock, attack: Attack
) -> None:
    config = config.replace(max_connections=16, read_timeout_ms=60_000)
    async with serving(succeed, config) as server:
        holders = [await connect(config.endpoint_path) for _ in range(300)]
        await wait_all_tasks_blocked()
        counts = server.snapshot()
        assert (counts.connections_active, counts.connections_waiting) == (16, 16)
        assert counts.connections_refused["limit"] == 268
        # They have end of file now, without a wait; the clock has not moved.
        assert [holder.peer_state() for holder in holders].count(PeerState.GONE) == 268
        assert trio.current_time() == 0
        async with open_client(DETECTION, config) as honest:
            with pytest.raises(PeerClosedError):
                await honest.call(task())
        await trio.sleep(config.accept_timeout_ms / 1000 + 1)
        assert server.snapshot().timeouts["accept"] == 16
        with_a_place = [holder for holder in holders if holder.peer_state() is PeerState.OPEN]
        assert len(with_a_place) == 16
        async with open_client(DETECTION, config) as honest, trio.open_nursery() as nursery:

            async def leave() -> None:
                await wait_all_tasks_blocked()
                await with_a_place[0].aclose()

            nursery.start_soon(leave)
            assert await honest.call(task()) == success()
        for holder in holders:
            await holder.aclose()
    attack(
        "connections by hundreds, opened and held",
        tried=300,
        outcome="16 served and 16 waiting, the limits; 268 closed at once; "
        "an honest client served once a place was free",
    )


async def test_who_never_reads_is_read_from_no_further_and_let_go(
    config: IpcConfig, autojump_clock: MockClock, attack: Attack
) -> None:
    config = config.replace(max_frame_bytes=65_536, write_timeout_ms=10_000, max_connections=64)
    request = frame(task("large"))

    async def answer_largely(request: DetectionTask, call: Call) -> DetectionResult:
        if request.task_id == "large":
            return DetectionResult(task_id="large", error_message="x" * 60_000)
        return await succeed(request, call)

    taken = [0] * 20

    async def ask_and_never_read(number: int) -> None:
        async with await connect(config.endpoint_path) as stream:
            try:
                while True:
                    await stream.send_all(request * 100)
                    taken[number] += len(request) * 100
            except trio.BrokenResourceError:
                pass

    async with serving(answer_largely, config) as server, open_client(DETECTION, config) as honest:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask_and_never_read, number)
            # A client that connects to a busy pipe sleeps between its attempts.
            while server.snapshot().connections_active < 21:  # noqa: ASYNC110 - nothing to wait for
                await trio.sleep(0.01)
            for _ in range(5):
                await wait_all_tasks_blocked()
                assert await honest.call(task()) == success()
                assert server.snapshot().connections_active == 21
                await trio.sleep(1)
        counts = server.snapshot()
        assert counts.connections_closed["write_timeout"] == 20
        assert counts.timeouts["write"] == 20
        # What was answered fills the system's buffers; what was read ahead, one read and one frame.
        assert counts.requests < 20 * 500
        assert await honest.call(task()) == success()
    assert max(taken) < 2 * MIB
    attack(
        "requests without end, responses never read",
        tried=20,
        outcome="read from no further, closed after `write_timeout_ms`; others answered meanwhile",
    )


# --- Frames at and over the limits --------------------------------------------------------------------------


def frame_of(size: int) -> bytes:
    """A frame whose payload, a task, has exactly so many bytes."""
    payload = b""
    for room in range(size, size - 6, -1):
        payload = DetectionTask(task_id="x" * room).SerializeToString()
        if len(payload) == size:
            break
    assert len(payload) == size
    return _encoder.encode(payload)


async def test_frames_are_held_to_the_limit_to_the_byte(config: IpcConfig, attack: Attack) -> None:
    limit = config.max_frame_bytes

    async def just_yes(_request: DetectionTask, _call: Call) -> DetectionResult:
        return success("good")

    async with serving(just_yes, config) as server:
        for size in (limit - 1, limit):
            async with await connect(config.endpoint_path) as stream:
                await stream.send_all(frame_of(size))
                assert await stream.receive_some() == frame(success("good"))
        for data in (
            frame_of(limit + 1),
            *(struct.pack("<II", size, 0) for size in (limit + 1, 2**31 - 1, 2**31, 2**32 - 1)),
        ):
            (said,) = await said_to(config.endpoint_path, data)
            assert f"is too large, the limit max_frame_bytes is {limit}" in said.error_message
        (said,) = await said_to(config.endpoint_path, struct.pack("<II", 0, 0))
        assert "an invalid length of 0 bytes" in said.error_message
        counts = server.snapshot()
        assert (counts.requests, counts.connections_closed["protocol_error"]) == (2, 6)
    attack(
        "frames to a server at its limit, one byte below and above it, of 0, 2^31-1, 2^31 and 2^32-1 bytes",
        tried=8,
        outcome="answered up to the limit; beyond it the reason is told, from the header alone, and the "
        "connection closed",
    )


@asynccontextmanager
async def hostile_server(config: IpcConfig, answer: bytes) -> AsyncIterator[None]:
    """Answer the first bytes of every client by these, and leave it open."""
    listener = await listen(config.endpoint_path, PeerPolicy.own_user_and_root())

    async def answer_once(stream: LocalStream) -> None:
        async with stream:
            if await stream.receive_some():
                await send_what_is_taken(stream, answer)
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer_once, [listener])
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("size", "error"),
    [
        (0, InvalidLengthError),
        (MIB + 1, FrameTooLargeError),
        (2**31, FrameTooLargeError),
        (2**32 - 1, FrameTooLargeError),
    ],
)
async def test_a_client_holds_answers_to_the_limit_too(
    config: IpcConfig, size: int, error: type[ProtocolError], attack: Attack
) -> None:
    async with hostile_server(config, struct.pack("<II", size, 0)), open_client(DETECTION, config) as client:
        with pytest.raises(error, match=str(size)):
            await client.call(task())
        assert client.is_broken
    attack(
        "responses that announce 0 bytes, one more than the limit, 2^31 and 2^32-1",
        tried=1,
        outcome="one precise error, from the header alone; the client closed",
    )


# --- Frames that are good and payloads that are not ---------------------------------------------------------


#: A group in a field that nobody knows may hold another, and so on. Field 15: begin is 7b, end is 7c.
def nested_groups(depth: int) -> bytes:
    return b"\x7b" * depth + b"\x7c" * depth


#: Each is no UTF-8, for its own reason: a stray continuation, a lead without one, an overlong NUL, half of a
#: surrogate pair, beyond the last code point, a byte that never occurs.
BAD_TEXTS = [b"\x80", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff"]

#: Where a task has a string: itself, in a list, in a message, as the key of a map.
STRINGS: list[Callable[[bytes], bytes]] = [
    lambda text: bytes([0x0A, len(text)]) + text,
    lambda text: bytes([0x2A, len(text)]) + text,
    lambda text: bytes([0x1A, len(text) + 2, 0x0A, len(text)]) + text,
    lambda text: bytes([0x22, len(text) + 2, 0x1A, len(text)]) + text,
    lambda text: bytes([0x42, len(text) + 4, 0x1A, len(text) + 2, 0x0A, len(text)]) + text,
]


async def refused_as_undecodable(config: IpcConfig, payloads: list[bytes]) -> None:
    async with serving(succeed, config) as server, open_client(DETECTION, config) as honest:
        for payload in payloads:
            (said,) = await said_to(config.endpoint_path, _encoder.encode(payload))
            assert "does not decode as trio_ipc.daemoneye.v1.DetectionTask" in said.error_message
            assert await honest.call(task()) == success()
        counts = server.snapshot()
        assert counts.connections_closed["protocol_error"] == len(payloads)
        assert counts.requests == len(payloads)  # the honest ones


async def test_text_that_is_no_utf_8_is_told_and_the_connection_closed(
    config: IpcConfig, attack: Attack
) -> None:
    await refused_as_undecodable(config, [string(text) for string in STRINGS for text in BAD_TEXTS])
    attack(
        "text that is no UTF-8, in every kind of place",
        tried=30,
        outcome="the reason told, the connection closed; others answered",
    )


async def test_groups_nested_without_end_are_told_and_the_connection_closed(
    config: IpcConfig, attack: Attack
) -> None:
    assert DetectionTask.FromString(nested_groups(50)) != DetectionTask()  # good, if not so deep
    await refused_as_undecodable(config, [nested_groups(depth) for depth in (101, 10_000, MIB // 2)])
    attack(
        "groups nested 101, 10,000 and 524,288 deep",
        tried=3,
        outcome="the reason told, the connection closed; others answered",
    )


def nested_values(depth: int) -> bytes:
    """A list of one list of one list, as `google.protobuf.Value` encodes it, made from the inside."""
    encoded = b""
    for _ in range(depth):
        for tag in (b"\x0a", b"\x32"):  # ListValue.values, Value.list_value
            encoded = tag + _varint(len(encoded)) + encoded
    return encoded


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


async def test_messages_nested_too_deeply_are_an_error_on_either_side(
    config: IpcConfig, attack: Attack
) -> None:
    contract = Contract(name="nested", request_type=struct_pb2.Value, response_type=struct_pb2.Value)

    async def echo(request: struct_pb2.Value, _call: Call) -> struct_pb2.Value:
        return request

    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[object]) -> None:
            await serve(echo, contract, config, task_status=task_status)

        await nursery.start(run)
        async with await connect(config.endpoint_path) as stream:
            good = _encoder.encode(nested_values(40))
            await stream.send_all(good)
            assert await stream.receive_some() == good
        for depth in (60, 1_000):
            # This contract has no response that could say why.
            async with await connect(config.endpoint_path) as stream:
                await stream.send_all(_encoder.encode(nested_values(depth)))
                assert await read_to_end(stream) == b""
        nursery.cancel_scope.cancel()
    async with hostile_server(config, _encoder.encode(nested_values(1_000))):
        async with open_client(contract, config) as client:
            with pytest.raises(UndecodableMessageError, match=r"google\.protobuf\.Value"):
                await client.call(struct_pb2.Value(bool_value=True))
    attack(
        "messages nested deeper than protobuf's 100, to a server and to a client",
        tried=3,
        outcome="an `UndecodableMessageError`, the connection closed",
    )


async def test_a_number_that_no_enumeration_has_is_the_handlers_to_refuse(
    config: IpcConfig, attack: Attack
) -> None:
    """Enumerations of proto3 are open: a peer may be newer. So it is a number, and no error."""

    async def by_the_rules(request: DetectionTask, _call: Call) -> DetectionResult:
        return DetectionResult(task_id=request.task_id, error_message=unsupported(request, range(4)))

    numbers = {99: b"\x63", -1: b"\xff" * 9 + b"\x01", 2**31 - 1: b"\xff\xff\xff\xff\x07"}
    async with serving(by_the_rules, config):
        async with await connect(config.endpoint_path) as stream:
            for number, encoded in numbers.items():
                await stream.send_all(_encoder.encode(b"\x0a\x01t\x10" + encoded))
                wanted = DetectionResult(task_id="t", error_message=f"Unknown task type: {number}")
                assert await stream.receive_some() == frame(wanted)
    attack(
        "task types that do not exist: 99, -1, 2^31-1",
        tried=3,
        outcome="passed on as numbers, as proto3 has it; refused by the rules in `trio_ipc.daemoneye`",
    )


# --- Servers that flood their clients -----------------------------------------------------------------------


@attrs.define
class Flood:
    """A server that answers, and then sends without end what nobody asked for."""

    data: bytes
    sent: int = 0

    async def serve(self, stream: LocalStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(frame(success("first")))
            try:
                while True:
                    await stream.send_all(self.data)
                    self.sent += len(self.data)
            except trio.BrokenResourceError:
                pass


@pytest.mark.parametrize(
    "data", [frame(success("first")) * 100, b"\xff" * 2_000], ids=["old answers", "no frames"]
)
async def test_a_flood_that_nobody_asked_for_waits_outside_and_is_found_by_the_next_call(
    config: IpcConfig, data: bytes, attack: Attack
) -> None:
    flood = Flood(data)
    listener = await listen(config.endpoint_path, PeerPolicy.own_user_and_root())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, flood.serve, [listener])
        async with open_client(DETECTION, config) as client:
            assert await client.call(task("first")) == success("first")
            await until_stuck(flood)
            # All that came is in the system's buffers and in one read.
            assert flood.sent < MIB
            assert not client.is_reusable()
            with pytest.raises(UnsolicitedResponseError):
                await client.call(task("second"))
            assert client.is_broken
        nursery.cancel_scope.cancel()
    attack(
        "responses without end to a client that did not ask",
        tried=1,
        outcome="left in the system's buffers; the next call says what is wrong, and takes none of it",
    )


async def until_stuck(flood: Flood) -> None:
    """Wait until it can send no more."""
    before = -1
    while flood.sent > before:
        before = flood.sent
        await wait_all_tasks_blocked(0.01)


async def test_a_client_of_anyone_says_which_type_it_wanted(config: IpcConfig) -> None:
    """What a hostile answer becomes carries no more of it than its size."""
    async with (
        hostile_server(config, _encoder.encode(b"\xff" * 1_000)),
        open_client(DETECTION, config) as client,
    ):
        assert isinstance(client, Client)
        with pytest.raises(UndecodableMessageError, match="1000 bytes does not decode") as caught:
            await client.call(task())
        assert len(str(caught.value)) < 400
