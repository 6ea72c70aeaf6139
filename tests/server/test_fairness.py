"""A turn of a busy connection is bounded by time, whatever it is busy with."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.support import IN_MEMORY, Beside, MemoryEndpoint, frame, read_to_end, serving, success, task
from trio_ipc import Call, IpcConfig
from trio_ipc.daemoneye import DetectionResult, DetectionTask

CONFIG = IpcConfig(endpoint_path=IN_MEMORY)


@pytest.mark.parametrize("microseconds", [1, 10, 100])
async def test_who_sends_ahead_what_is_answered_quickly_holds_nobody_up_either(
    microseconds: int, mock_clock: MockClock
) -> None:
    """64 requests are taken at a time, and answered in less than a turn; then come the next 64."""
    beside = Beside()
    turns = []

    async def quickly(request: DetectionTask, _: Call) -> DetectionResult:
        mock_clock.jump(microseconds * 1e-6)
        turns.append(beside.turns)
        return success(request.task_id)

    endpoint = MemoryEndpoint(CONFIG)
    async with serving(quickly, endpoint), trio.open_nursery() as nursery:
        nursery.start_soon(beside.run)
        near = endpoint.connect()
        nursery.start_soon(read_to_end, near)
        await near.send_all(frame(task()) * 5_000)  # less than one read takes
        while len(turns) < 5_000:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    in_a_turn = 1_000 // microseconds + 64
    assert all(turns[at] < turns[at + 2 * in_a_turn] for at in range(0, 5_000 - 2 * in_a_turn, in_a_turn))
