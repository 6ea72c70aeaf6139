"""Every step of the table of states can happen; that no other does conftest.py sees to in each test."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.support import IN_MEMORY, MemoryEndpoint, frame, read_results, read_to_end, serving, task
from trio_ipc import Call, IpcConfig
from trio_ipc.daemoneye import DetectionResult, DetectionTask
from trio_ipc.server.states import FOLLOWS, State

from .conftest import STEPS


async def test_every_step_of_the_table_can_happen(mock_clock: MockClock) -> None:
    async def handle(request: DetectionTask, _: Call) -> DetectionResult:
        mock_clock.jump(0.002)  # a turn is over
        if request.task_id == "slow":
            await trio.sleep_forever()
        return DetectionResult(task_id=request.task_id, success=True)

    mock_clock.autojump_threshold = 0
    STEPS.clear()
    endpoint = MemoryEndpoint(IpcConfig(endpoint_path=IN_MEMORY, max_connections=9))
    async with serving(handle, endpoint):
        stream = endpoint.connect()
        await stream.send_all(frame(task("a")) + frame(task("b")))
        assert len(await read_results(stream, 2)) == 2
        await stream.aclose()  # while it reads
        stream = endpoint.connect()
        await stream.send_all(frame(task("slow")))
        await trio.sleep(0.005)
        await stream.aclose()  # while a handler runs
        stream = endpoint.connect()
        await stream.send_all(bytes(8))
        await read_to_end(stream)  # after its failed response
        await trio.sleep(1)
    assert {(at, to) for at, following in FOLLOWS.items() for to in following} == STEPS


def test_the_table_has_every_state_and_one_end() -> None:
    assert set(FOLLOWS) == set(State)
    assert [state for state in State if not FOLLOWS[state]] == [State.ENDED]
