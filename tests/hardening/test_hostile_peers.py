"""Peers that mean harm, one kind at a time, through the real socket or pipe.

What they cost is one connection each: the server lets go of them within its deadlines, takes no more from
them than it says, and answers everybody else. `tests/server/test_hostile_peers.py` has them all at once, at
random.
"""

from __future__ import annotations

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.hardening.record import Attack
from tests.support import MIB, frame, read_to_end, serving, succeed, success, task
from trio_ipc import Call, IpcConfig, PeerClosedError, PeerPolicy, UnsolicitedResponseError, open_client
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask
from trio_ipc.transports import LocalStream, PeerState, connect, listen

# --- Slow, many, and deaf -----------------------------------------------------------------------------------


async def test_who_sends_a_frame_a_byte_at_a_time_gets_no_longer_than_others(
    config: IpcConfig, autojump_clock: MockClock, attack: Attack
) -> None:
    config = config.replace(read_timeout_ms=5_000, max_connections=64)
    whole = frame(task("x" * 200))
    closed_after: list[float] = []

    async def drip(at_once: int) -> None:
        async with await connect(config.endpoint_path) as stream:
            await stream.send_all(whole[:at_once])
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_to_end, stream)
                for byte in whole[at_once:]:
                    await trio.sleep(1)
                    try:
                        await stream.send_all(bytes([byte]))
                    except trio.BrokenResourceError:
                        break
            closed_after.append(trio.current_time() - began)

    async with serving(succeed, config) as server, open_client(DETECTION, config) as honest:
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(drip, 1 if number % 2 else 9)  # of the header, or of the payload
            while len(closed_after) < 40:
                assert await honest.call(task()) == success()
                await trio.sleep(0.5)
        assert server.snapshot().timeouts["read"] == 40
    assert all(5 <= seconds <= 7 for seconds in closed_after)
    attack(
        "a frame sent a byte at a time, from its header or from its payload on",
        tried=40,
        outcome="closed after one `read_timeout_ms`; others answered meanwhile",
    )


async def test_connections_by_hundreds_are_held_to_the_limits_and_the_rest_is_told_at_once(
    config: IpcConfig, autojump_clock: MockClock, attack: Attack
) -> None:
    config = config.replace(max_connections=16, read_timeout_ms=60_000)
    async with serving(succeed, config) as server:
        holders = [await connect(config.endpoint_path) for _ in range(300)]
        await wait_all_tasks_blocked()
        counts = server.snapshot()
        assert (counts.connections_active, counts.connections_waiting) == (16, 16)
        assert counts.connections_refused["limit"] == 268
        # They have end of file now, without a wait; the clock has not moved.
        assert [holder.peer_state() for holder in holders].count(PeerState.GONE) == 268
        assert trio.current_time() == 0
        async with open_client(DETECTION, config) as honest:
            with pytest.raises(PeerClosedError):
                await honest.call(task())
        await trio.sleep(config.accept_timeout_ms / 1000 + 1)
        assert server.snapshot().timeouts["accept"] == 16
        with_a_place = [holder for holder in holders if holder.peer_state() is PeerState.OPEN]
        assert len(with_a_place) == 16
        async with open_client(DETECTION, config) as honest, trio.open_nursery() as nursery:

            async def leave() -> None:
                await wait_all_tasks_blocked()
                await with_a_place[0].aclose()

            nursery.start_soon(leave)
            assert await honest.call(task()) == success()
        for holder in holders:
            await holder.aclose()
    attack(
        "connections by hundreds, opened and held",
        tried=300,
        outcome="16 served and 16 waiting, the limits; 268 closed at once; "
        "an honest client served once a place was free",
    )


async def test_who_never_reads_is_read_from_no_further_and_let_go(
    config: IpcConfig, autojump_clock: MockClock, attack: Attack
) -> None:
    config = config.replace(max_frame_bytes=65_536, write_timeout_ms=10_000, max_connections=64)
    request = frame(task("large"))

    async def answer_largely(request: DetectionTask, call: Call) -> DetectionResult:
        if request.task_id == "large":
            return DetectionResult(task_id="large", error_message="x" * 60_000)
        return await succeed(request, call)

    taken = [0] * 20

    async def ask_and_never_read(number: int) -> None:
        async with await connect(config.endpoint_path) as stream:
            try:
                while True:
                    await stream.send_all(request * 100)
                    taken[number] += len(request) * 100
            except trio.BrokenResourceError:
                pass

    async with serving(answer_largely, config) as server, open_client(DETECTION, config) as honest:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask_and_never_read, number)
            # A client that connects to a busy pipe sleeps between its attempts.
            while server.snapshot().connections_active < 21:  # noqa: ASYNC110 - nothing to wait for
                await trio.sleep(0.01)
            for _ in range(5):
                await wait_all_tasks_blocked()
                assert await honest.call(task()) == success()
                assert server.snapshot().connections_active == 21
                await trio.sleep(1)
        counts = server.snapshot()
        assert counts.connections_closed["write_timeout"] == 20
        assert counts.timeouts["write"] == 20
        # What was answered fills the system's buffers; what was read ahead, one read and one frame.
        assert counts.requests < 20 * 500
        assert await honest.call(task()) == success()
    assert max(taken) < 2 * MIB
    attack(
        "requests without end, responses never read",
        tried=20,
        outcome="read from no further, closed after `write_timeout_ms`; others answered meanwhile",
    )


# --- Servers that flood their clients -----------------------------------------------------------------------


@attrs.define
class Flood:
    """A server that answers, and then sends without end what nobody asked for."""

    data: bytes
    sent: int = 0

    async def serve(self, stream: LocalStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(frame(success("first")))
            try:
                while True:
                    await stream.send_all(self.data)
                    self.sent += len(self.data)
            except trio.BrokenResourceError:
                pass


@pytest.mark.parametrize(
    "data", [frame(success("first")) * 100, b"\xff" * 2_000], ids=["old answers", "no frames"]
)
async def test_a_flood_that_nobody_asked_for_waits_outside_and_is_found_by_the_next_call(
    config: IpcConfig, data: bytes, attack: Attack
) -> None:
    flood = Flood(data)
    listener = await listen(config.endpoint_path, PeerPolicy.own_user_and_root())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, flood.serve, [listener])
        async with open_client(DETECTION, config) as client:
            assert await client.call(task("first")) == success("first")
            await until_stuck(flood)
            # All that came is in the system's buffers and in one read.
            assert flood.sent < MIB
            assert not client.is_reusable()
            with pytest.raises(UnsolicitedResponseError):
                await client.call(task("second"))
            assert client.is_broken
        nursery.cancel_scope.cancel()
    attack(
        "responses without end to a client that did not ask",
        tried=1,
        outcome="left in the system's buffers; the next call says what is wrong, and takes none of it",
    )


async def until_stuck(flood: Flood) -> None:
    """Wait until it can send no more."""
    before = -1
    while flood.sent > before:
        before = flood.sent
        await wait_all_tasks_blocked(0.01)
