"""A server whose process was stopped: what came, or was done, meanwhile counts. On a clock that jumps."""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.platforms import unix_only
from tests.server.handling import CONFIG
from tests.support import MemoryEndpoint, frame, read_results, serving, succeed, success, task
from trio_ipc import Call
from trio_ipc.daemoneye import DetectionResult, DetectionTask
from trio_ipc.transports.duplex import LocalStream


@unix_only  # a pipe takes no bytes without a wait
@pytest.mark.parametrize("cuts", [(3, 6), (9, 11), (9, 9)])
async def test_a_part_of_a_frame_that_came_while_it_was_stopped_has_time_for_the_rest(
    cuts: tuple[int, int], endpoint: MemoryEndpoint, mock_clock: MockClock
) -> None:
    request = frame(task("parts"))
    first, second = cuts
    limit = endpoint.config.read_timeout_ms / 1000
    async with serving(succeed, endpoint) as server, endpoint.connect() as client:
        await client.send_all(request[:first])
        await wait_all_tasks_blocked()
        if first < second:
            assert isinstance(client, LocalStream)
            assert client.write(request[first:second])
        mock_clock.jump(limit + 1)  # both are seen in the same pass
        await wait_all_tasks_blocked()
        if first < second:
            await client.send_all(request[second:])
            assert await read_results(client, 1) == [success("parts")]
        assert server.snapshot().timeouts["read"] == (first == second)


async def test_a_handler_whose_tasks_were_done_meanwhile_is_done_in_time(
    endpoint: MemoryEndpoint, mock_clock: MockClock
) -> None:
    async def handler(request: DetectionTask, _: Call) -> DetectionResult:
        async with trio.open_nursery() as nursery:
            for seconds in (0.1, 0.2, 0.3):
                nursery.start_soon(trio.sleep, seconds)
        await trio.lowlevel.checkpoint()
        return success(request.task_id)

    async with serving(handler, endpoint) as server, endpoint.connect() as client:
        await client.send_all(frame(task("tasks")))
        await wait_all_tasks_blocked()
        mock_clock.jump(endpoint.config.handler_timeout + 1)
        assert await read_results(client, 1) == [success("tasks")]
        assert server.snapshot().timeouts["handler"] == 0


async def test_it_has_its_time_anew_once(endpoint: MemoryEndpoint, mock_clock: MockClock) -> None:
    limit = endpoint.config.handler_timeout

    async def handler(request: DetectionTask, _: Call) -> DetectionResult:
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    async with serving(handler, endpoint) as server, endpoint.connect() as client:
        await client.send_all(frame(task("stuck")))
        await wait_all_tasks_blocked()
        mock_clock.jump(limit + 1)
        await wait_all_tasks_blocked()
        assert server.snapshot().timeouts["handler"] == 0
        mock_clock.jump(limit + 1)
        [result] = await read_results(client, 1)
        assert "the handler ran out of time" in result.error_message
        assert server.snapshot().timeouts["handler"] == 1


async def test_a_client_that_sent_ahead_more_than_there_is_room_for_waits_for_its_place(
    autojump_clock: MockClock,
) -> None:
    """While it waits, what it has sent is read ahead, as much as there is room for."""
    endpoint = MemoryEndpoint(CONFIG.replace(max_connections=1, max_frame_bytes=1024))
    requests = [task("x" * 900 + str(number)) for number in range(8)]
    async with serving(succeed, endpoint) as server, endpoint.connect() as first:
        await wait_all_tasks_blocked()
        async with endpoint.connect() as second:
            await second.send_all(b"".join(map(frame, requests)))
            await trio.sleep(0.5)  # it is looked at meanwhile
            assert server.snapshot().connections_waiting == 1
            await first.aclose()
            results = await read_results(second, len(requests))
    assert [result.task_id for result in results] == [request.task_id for request in requests]
    assert server.snapshot().connections_closed["internal_error"] == 0
