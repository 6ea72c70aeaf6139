"""Asking a server to stop, from wherever one happens to be."""

from __future__ import annotations

import signal
import sys
import threading
import types
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.server.handling import CONFIG
from tests.support import MemoryEndpoint, serving, succeed, success, task


async def test_another_thread_may_ask() -> None:
    endpoint = MemoryEndpoint(CONFIG)
    async with serving(succeed, endpoint) as server:
        assert await endpoint.client().call(task()) == success()
        await trio.to_thread.run_sync(server.stop)
        with trio.fail_after(5):
            await server.wait_stopped()
        await trio.to_thread.run_sync(server.stop)
        server.stop()


def test_another_thread_may_ask_when_the_run_is_over() -> None:
    async def main() -> object:
        async with serving(succeed, MemoryEndpoint(CONFIG)) as server:
            pass
        return server.stop

    stop = trio.run(main)
    assert callable(stop)
    thread = threading.Thread(target=stop)
    thread.start()
    thread.join()
    stop()


@pytest.mark.skipif(sys.platform == "win32", reason="a process gets no such signal from itself there")
async def test_a_signals_handler_may_ask() -> None:
    async with serving(succeed, MemoryEndpoint(CONFIG)) as server:
        before = signal.signal(signal.SIGUSR2, lambda _number, _frame: server.stop())
        try:
            signal.raise_signal(signal.SIGUSR2)
            with trio.fail_after(5):
                await server.wait_stopped()
        finally:
            signal.signal(signal.SIGUSR2, before)


@pytest.mark.skipif(sys.platform == "win32", reason="a process gets no such signal from itself there")
@pytest.mark.parametrize("line", range(1, 10))
async def test_a_signals_handler_may_ask_in_the_middle_of_a_step_of_trios(line: int) -> None:
    """Python calls it between any two lines of what a task is at: here, of waking the one that accepts."""
    endpoint = MemoryEndpoint(CONFIG)
    lines = 0

    def trace(frame: types.FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_name != "reschedule":
            return None
        lines += event == "line"
        if event == "line" and lines == line:
            signal.raise_signal(signal.SIGUSR2)
        return trace

    async with serving(succeed, endpoint) as server:
        before, traced = signal.signal(signal.SIGUSR2, lambda _number, _frame: server.stop()), sys.gettrace()
        await wait_all_tasks_blocked()
        try:
            sys.settrace(trace)
            near = endpoint.connect()
        finally:
            sys.settrace(traced)
            signal.signal(signal.SIGUSR2, before)
        assert lines, "it has woken that task"
        if lines < line:
            server.stop()
        with trio.fail_after(5):
            await server.wait_stopped()
        await near.aclose()
