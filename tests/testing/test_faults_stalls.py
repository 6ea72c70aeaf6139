"""A stall ends a run only where nothing else, inside of it or outside, could end the stall."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable

import outcome
import pytest
import trio

from tests.platforms import unix_only
from trio_ipc.testing import Faults, Stall, at_byte, memory_streams


@pytest.mark.parametrize(
    "kind",
    ["a thread with a limiter of its own", "a thread of the test", pytest.param("a signal", marks=unix_only)],
)
def test_a_stall_says_nothing_while_something_outside_may_end_it(kind: str) -> None:
    async def from_a_thread(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.to_thread.run_sync(time.sleep, 0.05, limiter=trio.CapacityLimiter(1))

    async def from_a_thread_of_the_test(*, task_status: trio.TaskStatus[None]) -> None:
        event, token = trio.Event(), trio.lowlevel.current_trio_token()
        timer = threading.Timer(0.05, token.run_sync_soon, [event.set])
        timer.start()
        task_status.started()
        try:
            await event.wait()
        finally:
            timer.cancel()

    async def by_a_signal(*, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            timer = threading.Timer(0.05, signal.raise_signal, [signal.SIGTERM])
            timer.start()
            task_status.started()
            try:
                await anext(aiter(signals))
            finally:
                timer.cancel()

    ways = {
        "a thread with a limiter of its own": from_a_thread,
        "a thread of the test": from_a_thread_of_the_test,
        "a signal": by_a_signal,
    }

    async def main() -> bool:
        near, far = memory_streams()
        faulty = Faults(receiving=[at_byte(0, Stall())]).wrap(near)
        await far.send_all(b"x")

        async def end(*, task_status: trio.TaskStatus[None]) -> None:
            await ways[kind](task_status=task_status)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            await nursery.start(end)
            await faulty.receive_some()
        return nursery.cancel_scope.cancelled_caught

    assert trio.run(main)


def test_a_stall_says_nothing_where_the_host_of_trio_may_end_it() -> None:
    tick: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    done: list[outcome.Outcome[bool]] = []

    async def main() -> bool:
        near, far = memory_streams()
        faulty = Faults(receiving=[at_byte(0, Stall())]).wrap(near)
        await far.send_all(b"x")
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await faulty.receive_some()
        return scope.cancelled_caught

    scopes: list[trio.CancelScope] = []
    trio.lowlevel.start_guest_run(main, run_sync_soon_threadsafe=tick.put, done_callback=done.append)
    while not done:
        try:
            tick.get(timeout=0.2)()
        except queue.Empty:  # it has not ended by itself
            for scope in scopes:
                scope.cancel()
    assert done[0].unwrap()
