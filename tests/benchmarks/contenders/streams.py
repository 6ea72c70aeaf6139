"""asyncio's streams with this project's frames, on asyncio's event loop or uvloop's.

What one would write in an afternoon: frames and checksums, and none of the deadlines and limits.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastcrc.crc32 import iso_hdlc as crc32

from tests.benchmarks.loads import Job
from tests.benchmarks.messages import (
    HEADER,
    DetectionResult,
    DetectionTask,
    WrongAnswerError,
    answer,
    request,
)

from .base import AsyncClient
from .on_asyncio import AsyncioContender

_HEADER = struct.Struct("<II")


async def _read(reader: asyncio.StreamReader) -> bytes:
    size, crc = _HEADER.unpack(await reader.readexactly(HEADER))
    payload = await reader.readexactly(size)
    if crc32(payload) != crc:
        raise WrongAnswerError("wrong checksum")
    return payload


def _frame(payload: bytes) -> bytes:
    return _HEADER.pack(len(payload), crc32(payload)) + payload


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            task = DetectionTask.FromString(await _read(reader))
            writer.write(_frame(answer(task).SerializeToString()))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client has left
    finally:
        writer.close()


class Streams(AsyncioContender):
    def serve(self, path: str) -> None:
        self.run(lambda: self._serve(path))

    @staticmethod
    async def _serve(path: str) -> None:
        server = await asyncio.start_unix_server(_serve, path, backlog=128)
        async with server:
            await server.serve_forever()

    @asynccontextmanager
    async def connect(self, job: Job) -> AsyncIterator[AsyncClient]:
        task = request(job.message)
        reader, writer = await asyncio.open_unix_connection(job.path)

        async def call() -> DetectionResult:
            writer.write(_frame(task.SerializeToString()))
            await writer.drain()
            return DetectionResult.FromString(await _read(reader))

        async def burst(number: int) -> Sequence[DetectionResult]:
            for _ in range(number):
                writer.write(_frame(task.SerializeToString()))
            await writer.drain()
            return [DetectionResult.FromString(await _read(reader)) for _ in range(number)]

        try:
            yield AsyncClient(call, burst)
        finally:
            writer.close()
            await writer.wait_closed()


def contender(name: str) -> Streams:
    streams = Streams()
    if name == "uvloop":
        import uvloop

        streams.loop_factory = uvloop.new_event_loop
    return streams
