"""What this runtime takes without any protocol: Trio's own ``SocketStream``, which answers as many bytes.

No frames, checksums, deadlines or messages. A connection begins with what it is for, so that the server
knows how many bytes to wait for and to answer without reading any of them.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from . import loops
from .asked import Question

#: Bytes of a request, bytes of a response, seconds until it is sent.
_PURPOSE = struct.Struct("<QQd")
_READ = 65_536


async def _answer(stream: trio.SocketStream) -> None:
    purpose = await _receive(stream, _PURPOSE.size)
    request, size, seconds = _PURPOSE.unpack(purpose)
    response = bytes(size)
    missing = request
    while data := await stream.receive_some(missing):
        missing -= len(data)
        if not missing:
            missing = request
            if seconds:
                await trio.sleep(seconds)
            await stream.send_all(response)


async def _receive(stream: trio.SocketStream, size: int) -> bytes | bytearray:
    data = await stream.receive_some(min(size, _READ))
    if len(data) == size:
        return data
    whole = bytearray(data)
    while data and len(whole) < size:
        data = await stream.receive_some(_READ)
        whole += data
    if len(whole) != size:
        raise ValueError(f"{len(whole)} bytes instead of {size}")
    return whole


class Bare:
    async def serving(
        self, path: str, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
    ) -> None:
        sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await sock.bind(path)
        sock.listen(128)
        await trio.serve_listeners(_answer, [trio.SocketListener(sock)], task_status=task_status)

    @asynccontextmanager
    async def connect(self, path: str, question: Question) -> AsyncIterator[loops.Call]:
        """Open a connection; give what makes one call and counts the bytes of its response."""
        request_size, size = question.bytes_on_the_wire()
        request = bytes(request_size)
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(_PURPOSE.pack(request_size, size, question.milliseconds / 1000))

            async def call() -> None:
                await stream.send_all(request)
                await _receive(stream, size)

            await call()
            yield call

    def callers(self, number: int) -> tuple[int, int]:
        """Return how many connections so many callers have, and how many callers each."""
        return number, 1
