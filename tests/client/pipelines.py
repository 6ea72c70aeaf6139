"""What the tests of the pipeline share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support import IN_MEMORY, ME, MIB, frame, success, task
from trio_ipc import (
    FramedChannel,
    IpcConfig,
)
from trio_ipc.client.pipeline import Pipeline
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.testing import memory_streams
from trio_ipc.wire import FrameDecoder

CONFIG = IpcConfig(endpoint_path=IN_MEMORY)


@attrs.define
class Line:
    """A pipeline over memory, and the server's end of it as bytes."""

    pipeline: Pipeline[DetectionTask, DetectionResult]
    server: trio.abc.HalfCloseableStream
    nursery: trio.Nursery
    answers: dict[str, DetectionResult | BaseException] = attrs.field(factory=dict)
    done: list[tuple[str, BaseException | None]] = attrs.field(factory=list)
    scopes: dict[str, trio.CancelScope] = attrs.field(factory=dict)

    def call(self, *task_ids: str) -> None:
        """Start a call for each; all of them at once."""
        for task_id in task_ids:
            self.scopes[task_id] = trio.CancelScope()
            self.nursery.start_soon(self._call, task_id)

    async def _call(self, task_id: str) -> None:
        with self.scopes[task_id]:
            try:
                self.answers[task_id] = await self.pipeline.call(
                    task(task_id), done=lambda outcome: self.done.append((task_id, outcome))
                )
            except Exception as exc:  # noqa: BLE001 - what it was is what is tested
                self.answers[task_id] = exc

    async def received(self) -> list[str]:
        """The ids of what has come to the server by now."""
        decoder = FrameDecoder(MIB, CONFIG.crc32_variant)
        decoder.feed(await self.server.receive_some())
        ids = []
        while (payload := decoder.next_payload()) is not None:
            ids.append(DETECTION.decode_request(payload).task_id)
        return ids

    async def answer(self, *task_ids: str) -> None:
        await self.server.send_all(b"".join(frame(success(task_id)) for task_id in task_ids))
        await wait_all_tasks_blocked()

    def error(self, task_id: str) -> BaseException:
        found = self.answers[task_id]
        assert isinstance(found, BaseException)
        return found


@asynccontextmanager
async def line(
    ends: tuple[trio.abc.Stream, trio.abc.HalfCloseableStream] | None = None,
) -> AsyncIterator[Line]:
    async with line_to_its_end(ends or memory_streams()) as subject:
        yield subject
        await subject.pipeline.aclose()


@asynccontextmanager
async def line_to_its_end(
    ends: tuple[trio.abc.Stream, trio.abc.HalfCloseableStream],
) -> AsyncIterator[Line]:
    """One that nobody closes: at its end the block waits for what ends the pipeline."""
    near, far = ends
    channel = FramedChannel(near, CONFIG, endpoint="memory", peer=ME)
    async with trio.open_nursery() as nursery:
        pipeline = Pipeline(channel, DETECTION)
        nursery.start_soon(pipeline.run)
        yield Line(pipeline, far, nursery)
