"""What tests of the adapters share: a server on Trio for other tests, and programs outside the tree."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import trio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from tests.platforms import UNDER_WINE, unix_only
from tests.support import DetectionServer, Handler, succeed
from trio_ipc import Call, IpcConfig, TransportType, serve
from trio_ipc.channel import STOPPED
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask

#: Far more than anything here takes, even on a busy machine. Nothing waits that long unless it is broken.
DEADLINE = 60.0

PORTAL_THREAD = "trio_ipc portal"

#: Marks tests of calls that are made in their callers' own thread.
OF_DIRECT_CALLS = [
    unix_only,  # a pipe is waited for by Trio alone
    pytest.mark.parametrize("transport", [TransportType.INTERPROCESS], indirect=True),
]


def portal_threads() -> list[threading.Thread]:
    """The threads that adapters have for themselves, and that have not ended."""
    return [thread for thread in threading.enumerate() if thread.name == PORTAL_THREAD]


def check_counts(client: Any, **failed: int) -> None:
    """Check that an idle client has counted each call once, and which of them failed."""
    said = client.snapshot()
    assert said.calls == said.calls_answered + sum(said.calls_failed.values()) + said.calls_in_flight
    assert said.calls_in_flight == 0
    assert said.call_seconds.count == said.calls_answered
    assert {kind: count for kind, count in said.calls_failed.items() if count} == failed


def interrupted(*_: Any) -> Any:
    """What an interrupt makes of a function."""
    raise KeyboardInterrupt


def interrupt_counting(patch: pytest.MonkeyPatch, client: Any) -> None:
    """Have an interrupt come when the next response is counted."""
    patch.setattr(client._direct._telemetry, "call_seconds", SimpleNamespace(observe=interrupted))


class Gate:
    """A handler that answers at once, but for tasks called "wait": these wait until it is opened.

    Attributes:
        reached: set once one of them has come.
        cancelled: set once one of them was cancelled.
    """

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.cancelled = threading.Event()
        self._opened = trio.Event()

    async def __call__(self, task: DetectionTask, call: Call) -> DetectionResult:
        if task.task_id.startswith("wait"):
            self.reached.set()
            try:
                await self._opened.wait()
            except trio.Cancelled:
                self.cancelled.set()
                raise
        return await succeed(task, call)

    async def open(self) -> None:
        """Answer all of them. To be run where the server is."""
        self._opened.set()


@attrs.frozen
class Served:
    """A server in a thread of its own."""

    server: DetectionServer
    portal: BlockingPortal

    def stop(self) -> None:
        """Stop it, and wait for that."""
        self.server.stop()
        self.portal.call(self.server.wait_stopped)


@contextmanager
def served(config: IpcConfig, handler: Handler = succeed) -> Iterator[Served]:
    """A server in a thread, for a block; it is cancelled in the end if it still runs."""

    async def run(task_status: Any) -> None:
        await serve(handler, DETECTION, config, task_status=task_status)

    with start_blocking_portal("trio") as portal:
        future, server = portal.start_task(run)
        yield Served(server, portal)
        future.cancel()


class Held:
    """The Trio thread of a portal, kept from doing anything for a block."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._held, self._go_on = threading.Event(), threading.Event()

    def __enter__(self) -> None:
        self._holding = self._portal.start_task_soon(self._hold)
        assert self._held.wait(DEADLINE)

    def __exit__(self, *_: object) -> None:
        self._go_on.set()
        self._holding.result(DEADLINE)

    def _hold(self) -> None:
        self._held.set()
        assert self._go_on.wait(DEADLINE)


def stop_at_the_end_of_a_wait_for_a_turn(direct: Any, noticed: Callable[[], object]) -> None:
    """Have the next wait for a turn end at once and be noticed late, as by a process that was stopped."""
    clock: Callable[[], float] = direct._telemetry.now
    asked = 0
    direct._channel.read_timeout = 0.01

    def now() -> float:
        nonlocal asked
        asked += 1
        if asked <= 2:  # the call begins, and so does the wait
            return clock()
        direct._channel.read_timeout = DEADLINE
        noticed()
        return clock() + STOPPED

    direct._telemetry.now = now


def until_sent_no_time_passes(direct: Any) -> None:
    """Have the time of the next call stand still until its request is sent, however slow the machine is."""
    telemetry, line = direct._telemetry, direct._line
    clock, begin_now = telemetry.now, line.begin_now
    began = clock()

    def begin(request: DetectionTask) -> Any:
        telemetry.now, line.begin_now = clock, begin_now
        return begin_now(request)

    telemetry.now, line.begin_now = (lambda: began), begin


class Program:
    """A program outside of the tree, whose lines are read as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; return its exit status, and what it still has said on both outputs."""
        out, errors = self._process.communicate(timeout=DEADLINE)
        return self._process.returncode, out, errors


@contextmanager
def program(text: str, *arguments: str, directory: str, options: tuple[str, ...] = ()) -> Iterator[Program]:
    """A program for the length of a block, in a directory that has nothing of the tree."""
    # Under Wine the package is not installed, and found by that alone.
    environ = {name: value for name, value in os.environ.items() if UNDER_WINE or name != "PYTHONPATH"}
    process = subprocess.Popen(
        [sys.executable, *options, "-c", text, *arguments],
        cwd=directory,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watch = threading.Timer(DEADLINE, process.kill)  # a line that never comes would be waited for without end
    watch.start()
    try:
        yield Program(process)
    finally:
        watch.cancel()
        process.kill()
        process.communicate()
