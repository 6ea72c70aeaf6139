"""Frames that mean harm, through the real socket or pipe: at and over the limits, or with bad payloads.

What is wrong is told where a response can say it, and that connection is closed; others are answered.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from google.protobuf import struct_pb2

from tests.hardening.hostile_support import (
    BAD_TEXTS,
    ENCODER,
    STRINGS,
    nested_groups,
    refused_as_undecodable,
    said_to,
    send_what_is_taken,
)
from tests.hardening.record import Attack
from tests.support import MIB, frame, read_to_end, serving, success, task
from trio_ipc import (
    Call,
    Client,
    Contract,
    FrameTooLargeError,
    InvalidLengthError,
    IpcConfig,
    PeerPolicy,
    ProtocolError,
    UndecodableMessageError,
    open_client,
    serve,
)
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask, unsupported
from trio_ipc.transports import LocalStream, connect, listen

# --- Frames at and over the limits --------------------------------------------------------------------------


def frame_of(size: int) -> bytes:
    """A frame whose payload, a task, has exactly so many bytes."""
    payload = b""
    for room in range(size, size - 6, -1):
        payload = DetectionTask(task_id="x" * room).SerializeToString()
        if len(payload) == size:
            break
    assert len(payload) == size
    return ENCODER.encode(payload)


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
            good = ENCODER.encode(nested_values(40))
            await stream.send_all(good)
            assert await stream.receive_some() == good
        for depth in (60, 1_000):
            # This contract has no response that could say why.
            async with await connect(config.endpoint_path) as stream:
                await stream.send_all(ENCODER.encode(nested_values(depth)))
                assert await read_to_end(stream) == b""
        nursery.cancel_scope.cancel()
    async with hostile_server(config, ENCODER.encode(nested_values(1_000))):
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
                await stream.send_all(ENCODER.encode(b"\x0a\x01t\x10" + encoded))
                wanted = DetectionResult(task_id="t", error_message=f"Unknown task type: {number}")
                assert await stream.receive_some() == frame(wanted)
    attack(
        "task types that do not exist: 99, -1, 2^31-1",
        tried=3,
        outcome="passed on as numbers, as proto3 has it; refused by the rules in `trio_ipc.daemoneye`",
    )


async def test_a_client_of_anyone_says_which_type_it_wanted(config: IpcConfig) -> None:
    """What a hostile answer becomes carries no more of it than its size."""
    async with (
        hostile_server(config, ENCODER.encode(b"\xff" * 1_000)),
        open_client(DETECTION, config) as client,
    ):
        assert isinstance(client, Client)
        with pytest.raises(UndecodableMessageError, match="1000 bytes does not decode") as caught:
            await client.call(task())
        assert len(str(caught.value)) < 400
