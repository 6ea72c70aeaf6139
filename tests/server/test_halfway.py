"""Of many requests in hand the responses to the first are sent while the rest are handled.

Where the clock stands still, since else a turn may be over before that. Legacy takes one request at a time.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.support import MemoryEndpoint, frame, read_results, serving, task
from trio_ipc import Call, IpcConfig, Server, TransportType
from trio_ipc.channel import cores
from trio_ipc.daemoneye import DetectionResult, DetectionTask
from trio_ipc.transports import connect


class Counting:
    """Answers, and notes how many requests had been answered before each."""

    def __init__(self, size: int = 0) -> None:
        self.server: Server[DetectionTask, DetectionResult]
        self.answered: list[int] = []
        self._size = size

    async def __call__(self, asked: DetectionTask, _call: Call) -> DetectionResult:
        self.answered.append(self.server.snapshot().requests_answered)
        return DetectionResult(task_id=asked.task_id, success=True, error_message="x" * self._size)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 2.0)


def many(count: int) -> bytes:
    return b"".join(frame(task(str(number))) for number in range(count))


async def expect(answered: list[int], endpoint: MemoryEndpoint) -> None:
    """Send so many requests at once, and expect so many to be answered when each comes to its handler."""
    count = len(answered)
    handler = Counting()
    async with serving(handler, endpoint) as handler.server, endpoint.connect() as client:
        await client.send_all(many(count))
        results = await read_results(client, count)
        assert [result.task_id for result in results] == [str(number) for number in range(count)]
    one_by_one = endpoint.config.transport is TransportType.LEGACY
    assert handler.answered == ([*range(count)] if one_by_one else answered)


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("count", [33, 48, 64])
async def test_the_first_are_sent_when_32_are_left(
    count: int, endpoint: MemoryEndpoint, mock_clock: MockClock
) -> None:
    first = count - 32
    await expect([0] * first + [first] * 32, endpoint)


@pytest.mark.usefixtures("two_cores")
async def test_few_are_sent_together(endpoint: MemoryEndpoint, mock_clock: MockClock) -> None:
    await expect([0] * 32, endpoint)


@pytest.mark.usefixtures("two_cores")
async def test_where_more_is_in_hand_than_is_taken_at_a_time_they_are_sent_together(
    endpoint: MemoryEndpoint, mock_clock: MockClock
) -> None:
    # Its client has sent more ahead: it need not read before there is anything to do again.
    await expect([0] * 64 + [64] * 32 + [96] * 32, endpoint)


async def test_on_one_core_they_are_sent_together(
    endpoint: MemoryEndpoint, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 1.5)
    await expect([0] * 64, endpoint)


async def test_a_client_that_does_not_read_meanwhile_loses_nothing(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 2.0)
    handler = Counting(size=1_900)
    async with serving(handler, config) as handler.server, await connect(config.endpoint_path) as client:
        for _ in range(3):
            for _ in range(10):
                await client.send_all(many(64))
                await trio.testing.wait_all_tasks_blocked()
            results = await read_results(client, 640)
            assert [result.task_id for result in results] == [str(number) for number in range(64)] * 10
        handler.server.stop()
        await handler.server.wait_stopped()
    counted = handler.server.snapshot()
    assert counted.requests == counted.requests_answered == 3 * 640
    assert counted.requests_in_flight == 0


@pytest.mark.usefixtures("two_cores")
async def test_each_request_of_a_client_that_has_left_is_counted_once(
    endpoint: MemoryEndpoint, mock_clock: MockClock
) -> None:
    handler = Counting()
    async with serving(handler, endpoint) as handler.server:
        async with endpoint.connect() as client:
            await client.send_all(many(64))
        await trio.testing.wait_all_tasks_blocked()
        handler.server.stop()
        await handler.server.wait_stopped()
    counted = handler.server.snapshot()
    assert counted.requests == len(handler.answered) == sum(counted.requests_failed.values())
    assert counted.requests == (1 if endpoint.config.transport is TransportType.LEGACY else 64)
    assert (counted.requests_answered, counted.requests_in_flight) == (0, 0)
    assert counted.connections_closed["peer_closed"] == 1
