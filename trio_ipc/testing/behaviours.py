"""What a simulated server may do about a request: slowly, failing, lying, dying.

Each function here makes a :data:`~trio_ipc.testing.Behaviour`, for any contract. This module must never
answer by itself: proper answers are the handler's.
"""

from __future__ import annotations

import random
from typing import Any

import trio

from trio_ipc.errors import shown
from trio_ipc.server import Handler
from trio_ipc.server.handling import check_handler
from trio_ipc.wire import HEADER_BYTES

from .checking import check_seconds, check_whole
from .reply import Behaviour, Reply, check_behaviour


def answer(handler: Handler[Any, Any] | None = None) -> Behaviour:
    """Answer properly, by another handler than the server's own if one is given."""
    if handler is not None:
        check_handler(handler)

    async def behave(request: Any, reply: Reply[Any, Any]) -> None:
        await reply.send(await (reply.proper() if handler is None else handler(request, reply.call)))

    return behave


def slow(seconds: float, then: Behaviour | None = None) -> Behaviour:
    """Wait, then behave as ``then`` says, properly if None."""
    check_seconds("seconds", seconds)
    if then is not None:
        check_behaviour(then)
    after = then or answer()

    async def behave(request: Any, reply: Reply[Any, Any]) -> None:
        await trio.sleep(seconds)
        await after(request, reply)

    return behave


def fail(message: str) -> Behaviour:
    """Answer that the request has failed; close the connection if the contract has no response for that."""
    if not isinstance(message, str):
        raise TypeError(f"message is {shown(message)}, must be a str")

    async def behave(_request: Any, reply: Reply[Any, Any]) -> None:
        failed = reply.failed(message)
        await (reply.close() if failed is None else reply.send(failed))

    return behave


def hang() -> Behaviour:
    """Never answer, and keep the connection until the client has left."""

    async def behave(_request: Any, reply: Reply[Any, Any]) -> None:
        await reply.wait_left()

    return behave


def unsolicited_response() -> Behaviour:
    """Answer twice: the second response is to nothing."""

    async def behave(_request: Any, reply: Reply[Any, Any]) -> None:
        frame = reply.frame(await reply.proper())
        await reply.send_bytes(frame + frame)

    return behave


def garbage(data: bytes | None = None) -> Behaviour:
    """Send bytes that are no frame, at least one; 64 that look random, and are always the same, if None."""
    if not isinstance(data, bytes | bytearray | memoryview | None):
        raise TypeError(f"data is {shown(data)}, must be bytes or None")  # bytes(5) would be five of them
    if data is not None and not len(data):
        raise ValueError("data is empty, must have a byte to be no frame: hang() is what sends nothing")
    noise = random.Random(0).randbytes(64) if data is None else bytes(data)  # noqa: S311 - the same each time

    async def behave(_request: Any, reply: Reply[Any, Any]) -> None:
        await reply.send_bytes(noise)

    return behave


def bad_checksum() -> Behaviour:
    """Answer in a frame whose checksum is wrong."""

    async def behave(_request: Any, reply: Reply[Any, Any]) -> None:
        frame = bytearray(reply.frame(await reply.proper()))
        frame[HEADER_BYTES - 1] ^= 0xFF
        await reply.send_bytes(bytes(frame))

    return behave


def too_large() -> Behaviour:
    """Announce a frame that is larger than allowed, by one byte."""

    async def behave(_request: Any, reply: Reply[Any, Any]) -> None:
        await reply.send_bytes(reply.too_large_header())

    return behave


def undecodable() -> Behaviour:
    """Answer in a good frame whose payload is no message."""

    async def behave(_request: Any, reply: Reply[Any, Any]) -> None:
        await reply.send_bytes(reply.framed(b"\xff" * 8))

    return behave


def close_instead() -> Behaviour:
    """Close the connection without a response."""

    async def behave(_request: Any, reply: Reply[Any, Any]) -> None:
        await reply.close()

    return behave


def close_mid_frame(after: int | None = None) -> Behaviour:
    """Close the connection after so many bytes of the response; after half of it if None.

    The block fails by :exc:`ValueError` where the response has no more bytes: the client would get all of it.
    """
    check_whole("after", after, 0, optional=True)

    async def behave(_request: Any, reply: Reply[Any, Any]) -> None:
        frame = reply.frame(await reply.proper())
        if after is not None and after >= len(frame):
            raise ValueError(f"after is {after}, must be less than the {len(frame)} bytes of this response")
        await reply.send_bytes(frame[: len(frame) // 2 if after is None else after])
        await reply.close()

    return behave


def drip(seconds: float, size: int = 1) -> Behaviour:
    """Answer properly in pieces of so many bytes, with a pause after each."""
    check_seconds("seconds", seconds)
    check_whole("size", size, 1)

    async def behave(_request: Any, reply: Reply[Any, Any]) -> None:
        frame = reply.frame(await reply.proper())
        for start in range(0, len(frame), size):
            await reply.send_bytes(frame[start : start + size])
            await trio.sleep(seconds)

    return behave
