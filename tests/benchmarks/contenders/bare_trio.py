"""The floor of this runtime: Trio's own ``SocketStream``, which echoes as many bytes as the others.

No frames, checksums, deadlines or messages. There is a socket for each message, so that the server knows
how many bytes to wait for and to answer without reading any of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from tests.benchmarks.loads import Job
from tests.benchmarks.messages import MESSAGES, DetectionResult, WrongAnswerError, sizes

from .base import AsyncClient
from .on_trio import TrioContender

_READ = 65_536


def path_of(path: str, message: str) -> str:
    return f"{path}.{message}"


async def _echo(request: int, response: bytes, stream: trio.SocketStream) -> None:
    missing = 0
    while data := await stream.receive_some(_READ):
        whole, missing = divmod(missing + len(data), request)
        if whole:
            await stream.send_all(response * whole)


async def _receive(stream: trio.SocketStream, size: int) -> bytes | bytearray:
    data = await stream.receive_some(_READ)
    if len(data) == size:
        return data
    whole = bytearray(data)
    while data and len(whole) < size:
        data = await stream.receive_some(_READ)
        whole += data
    if len(whole) != size:
        raise WrongAnswerError(f"{len(whole)} bytes instead of {size}")
    return whole


class BareTrio(TrioContender):
    async def serving(
        self, path: str, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with trio.open_nursery() as nursery:
            for message in MESSAGES:
                sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
                request, response = sizes(message)
                await sock.bind(path_of(path, message))
                sock.listen(128)
                echo = partial(_echo, request, bytes(response))
                nursery.start_soon(trio.serve_listeners, echo, [trio.SocketListener(sock)])
            task_status.started()

    @asynccontextmanager
    async def connect(self, job: Job) -> AsyncIterator[AsyncClient]:
        size, answer_size = sizes(job.message)
        request = bytes(size)
        async with await trio.open_unix_socket(path_of(job.path, job.message)) as stream:

            async def call() -> None:
                await stream.send_all(request)
                await _receive(stream, answer_size)

            async def burst(number: int) -> Sequence[DetectionResult]:
                await stream.send_all(request * number)
                await _receive(stream, answer_size * number)
                return ()

            yield AsyncClient(call, burst)


def contender(_: str) -> BareTrio:
    return BareTrio()
