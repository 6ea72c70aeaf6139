"""What the tests of hostile frames share: payloads that do not decode, and what a server says to them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from tests.support import MIB, read_to_end, results_in, serving, succeed, success, task
from trio_ipc import Crc32Variant, IpcConfig, open_client
from trio_ipc.daemoneye import DETECTION, DetectionResult
from trio_ipc.transports import connect
from trio_ipc.wire import FrameEncoder

ENCODER = FrameEncoder(4 * MIB, Crc32Variant.IEEE)


async def send_what_is_taken(stream: trio.abc.SendStream, data: bytes) -> None:
    """Send; who is refused before the end need not be told."""
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)


async def said_to(path: str, data: bytes) -> list[DetectionResult]:
    """Send some bytes and return what the server says to them until it closes."""
    async with await connect(path) as stream:
        await send_what_is_taken(stream, data)
        return results_in(await read_to_end(stream))


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
            (said,) = await said_to(config.endpoint_path, ENCODER.encode(payload))
            assert "does not decode as trio_ipc.daemoneye.v1.DetectionTask" in said.error_message
            assert await honest.call(task()) == success()
        counts = server.snapshot()
        assert counts.connections_closed["protocol_error"] == len(payloads)
        assert counts.requests == len(payloads)  # the honest ones
