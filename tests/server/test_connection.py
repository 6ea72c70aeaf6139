"""Waits for a request that end in the very moment in which it comes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import IN_MEMORY, ME, frame, results_in, succeed, task
from trio_ipc import FramedChannel, IpcConfig
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.logs import LimitedLog, Log
from trio_ipc.server.connection import Connection
from trio_ipc.server.shared import Shared
from trio_ipc.server.watchdog import Watchdog
from trio_ipc.telemetry import CloseReason, ServerCounters
from trio_ipc.transports import LocalStream, PeerState

CONFIG = IpcConfig(endpoint_path=IN_MEMORY, read_timeout_ms=10_000)


class Gate(LocalStream):
    """What it gives is on its way to the reader from then on, whatever is cancelled in the same moment."""

    def __init__(self) -> None:
        super().__init__(IN_MEMORY, ME)
        self.sent = b""
        self._given: bytes | None = None
        self._opened = trio.Event()

    def give(self, data: bytes) -> None:
        self._given = data
        self._opened.set()

    def read(self, _max_bytes: int) -> bytes | None:
        data, self._given = self._given, None
        return data

    async def wait_readable(self) -> None:
        await self._opened.wait()
        self._opened = trio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.sent += data
        return len(data)

    async def write_some(self, data: bytes | bytearray | memoryview) -> int:
        await trio.lowlevel.checkpoint()
        self.sent += data
        return len(data)

    async def wait_send_all_might_not_block(self) -> None: ...

    def peer_state(self) -> PeerState:
        return PeerState.OPEN

    def close(self) -> bool:
        return True


@asynccontextmanager
async def served(
    stream: LocalStream, config: IpcConfig = CONFIG, of_channel: IpcConfig = CONFIG
) -> AsyncIterator[Connection[DetectionTask, DetectionResult]]:
    """A connection that is served, to its end."""
    watchdog = Watchdog()
    async with trio.open_nursery() as upkeep:
        upkeep.start_soon(watchdog.run)
        async with trio.open_nursery() as nursery:
            shared = Shared(
                handler=succeed,
                contract=DETECTION,
                config=config,
                watchdog=watchdog,
                nursery=nursery,
                failures=LimitedLog(Log("trio_ipc.server"), 0, "", counted_as="", fields={}),
            )
            channel = FramedChannel(stream, of_channel, endpoint=IN_MEMORY, peer=ME)
            counters = ServerCounters(transport="interprocess")
            connection = Connection(channel, 1, shared, counters, {})
            nursery.start_soon(connection.run)
            await wait_all_tasks_blocked()
            yield connection
        upkeep.cancel_scope.cancel()


async def test_stopped_while_it_waits_it_ends(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with served(gate) as connection:
        connection.finish()
    assert connection.ending[0] is CloseReason.STOPPED
    assert trio.current_time() == 0


@pytest.mark.parametrize("cut", [None, 3, 11])
async def test_a_request_that_comes_as_it_is_stopped_is_answered_once(
    cut: int | None, autojump_clock: MockClock
) -> None:
    gate = Gate()
    request = frame(task("last"))
    async with served(gate) as connection:
        gate.give(request[:cut])
        connection.finish()
        if cut is not None:
            await wait_all_tasks_blocked()
            gate.give(request[cut:])
    assert [result.task_id for result in results_in(gate.sent)] == ["last"]
    assert connection.ending[0] is CloseReason.STOPPED


@pytest.mark.parametrize("nth", range(20))  # which of two tasks runs first is Trio's to throw a coin for
@pytest.mark.parametrize("cut", [None, 3, 11])
@pytest.mark.parametrize("looks", [0, 75])
async def test_a_request_that_comes_as_its_time_is_up_is_answered_once(
    looks: int, cut: int | None, nth: int, mock_clock: MockClock
) -> None:
    gate = Gate()
    request = frame(task(f"request {nth}"))
    async with served(gate, of_channel=CONFIG.replace(poll_attempts=looks)) as connection:
        gate.give(request[:cut])
        mock_clock.jump(10)
        await wait_all_tasks_blocked()
        if cut is not None:
            gate.give(request[cut:])
            await wait_all_tasks_blocked()
        assert [result.task_id for result in results_in(gate.sent)] == [f"request {nth}"]
        connection.finish()
    assert connection.ending[0] is CloseReason.STOPPED


@pytest.mark.parametrize("nth", range(10))
async def test_a_violation_that_comes_as_it_is_stopped_is_told(nth: int, autojump_clock: MockClock) -> None:
    class Waiting(Gate):
        """Takes nothing without a wait, as a pipe does."""

        def write(self, _data: bytes | bytearray | memoryview) -> int:
            return 0

    gate = Waiting()
    async with served(gate) as connection:
        gate.give(bytes(8))
        connection.finish()
    (result,) = results_in(gate.sent)
    assert "protocol violation" in result.error_message
    assert connection.ending[0] is CloseReason.PROTOCOL_ERROR


async def test_each_wait_for_a_request_has_all_of_its_time(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with served(gate) as connection:
        for number in range(3):
            await trio.sleep(4)
            gate.give(frame(task(f"{number}")))
    assert len(results_in(gate.sent)) == 3
    assert connection.ending == (
        CloseReason.READ_TIMEOUT,
        "timed out waiting for a frame to begin, the limit read_timeout_ms is 10000",
    )
    assert trio.current_time() == pytest.approx(3 * 4 + 10)


async def test_the_time_for_a_frame_to_begin_is_not_the_time_for_its_rest(autojump_clock: MockClock) -> None:
    gate = Gate()
    request = frame(task("slow"))
    async with served(gate) as connection:
        await trio.sleep(9)
        gate.give(request[:11])
        await trio.sleep(9)
        gate.give(request[11:])
        await trio.sleep(9)
        assert [result.task_id for result in results_in(gate.sent)] == ["slow"]
        gate.give(request[:11])
    assert connection.ending[0] is CloseReason.READ_TIMEOUT
    assert "for the rest of a frame" in connection.ending[1]
    assert trio.current_time() == pytest.approx(3 * 9 + 10)


@pytest.mark.parametrize(("of_channel", "of_server"), [(1_000, 60_000), (60_000, 1_000)])
async def test_the_time_is_the_channels_where_the_server_has_another(
    of_channel: int, of_server: int, autojump_clock: MockClock
) -> None:
    configs = CONFIG.replace(read_timeout_ms=of_server), CONFIG.replace(read_timeout_ms=of_channel)
    async with served(Gate(), *configs) as connection:
        pass
    assert connection.ending[1].endswith(f"read_timeout_ms is {of_channel}")
    assert trio.current_time() == pytest.approx(of_channel / 1000)


async def test_a_wait_that_does_not_end_at_once_is_waited_for_asleep(mock_clock: MockClock) -> None:
    """A stream that reads in a thread, say, and cannot leave it."""

    class Shielded(Gate):
        async def wait_readable(self) -> None:
            with trio.CancelScope(shield=True):
                await super().wait_readable()

    class Steps(trio.abc.Instrument):
        taken = 0

        def before_task_step(self, _task: trio.lowlevel.Task) -> None:
            self.taken += 1

    gate = Shielded()
    async with served(gate) as connection:
        mock_clock.jump(10)
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        trio.lowlevel.remove_instrument(steps)
        assert steps.taken < 110, "this task's own, and a few"
        gate.give(b"")
    assert connection.ending[0] in {CloseReason.READ_TIMEOUT, CloseReason.PEER_CLOSED}


async def test_it_may_be_told_to_finish_when_it_has_ended() -> None:
    gate = Gate()
    gate.give(b"")
    async with served(gate) as connection:
        pass
    ending = connection.ending
    connection.finish()
    assert connection.ending == ending
    assert ending[0] is CloseReason.PEER_CLOSED


@pytest.mark.parametrize("reads", [True, False])
async def test_that_a_peer_could_not_be_told_is_in_the_log_only_where_that_is_so(
    reads: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Deaf(Gate):
        def write(self, _data: bytes | bytearray | memoryview) -> int:
            raise trio.BrokenResourceError

    caplog.set_level(logging.DEBUG, "trio_ipc.server")
    gate = Gate() if reads else Deaf()
    gate.give(bytes(8))
    async with served(gate) as connection:
        pass
    assert connection.ending[0] is CloseReason.PROTOCOL_ERROR
    assert ("the peer could not be told" in caplog.text) is not reads
