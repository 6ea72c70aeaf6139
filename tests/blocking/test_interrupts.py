"""Ctrl-C in a synchronous program: it ends the call, at whichever line it comes, and nothing hangs."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import trio_ipc.blocking
import trio_ipc.client
import trio_ipc.portal
from tests.adapters import DEADLINE, Gate, portal_threads, program, served
from tests.interrupts import InterruptAt, InterruptAtLook, interrupts_are_trios, needs_looks
from tests.platforms import unix_only
from tests.support import success, task
from trio_ipc import ChannelClosedError, IpcConfig, TransportType
from trio_ipc.blocking import open_client
from trio_ipc.daemoneye import DETECTION

#: More lines than a call runs in either package, so that the last ones are not reached.
MOST_LINES = 200

#: Likewise of points at which Python looks for a signal.
MOST_LOOKS = 1000

#: The transport is not asked in this thread: one of them tells of both.
OF_EITHER_TRANSPORT = pytest.mark.parametrize("transport", [TransportType.INTERPROCESS], indirect=True)


@pytest.fixture(autouse=True)
def _the_signal_is_pythons() -> Iterator[None]:
    with interrupts_are_trios():
        yield


@pytest.fixture
def _nothing_hangs() -> Iterator[None]:
    """A second interrupt for what would wait without end; the test then fails by it."""
    if sys.platform == "win32":
        yield
        return
    watch = threading.Timer(DEADLINE, os.kill, (os.getpid(), signal.SIGINT))
    watch.start()
    yield
    watch.cancel()


@unix_only  # there a signal that is raised comes between two lines, too, but not in a lock's wait
@OF_EITHER_TRANSPORT
@pytest.mark.usefixtures("_nothing_hangs")
@pytest.mark.parametrize(
    ("package", "max_in_flight"),
    [
        (trio_ipc.blocking, 1),
        (trio_ipc.client, 1),
        (trio_ipc.blocking, 64),
        (trio_ipc.portal, 64),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_after_an_interrupt_at_any_line_of_a_call_the_client_is_good_or_says_that_it_is_closed(
    config: IpcConfig, package: types.ModuleType, max_in_flight: int
) -> None:
    with served(config):
        client = open_client(DETECTION, config, max_in_flight=max_in_flight)
        interrupted = 0
        for line in range(1, MOST_LINES):
            interrupt = InterruptAt(package, line)
            try:
                with interrupt:
                    client.call(task())
            except KeyboardInterrupt:
                interrupted += 1
            if interrupt.left > 0:
                break
            try:
                assert client.call(task("after")) == success("after")
            except ChannelClosedError:
                assert max_in_flight == 1
                client.close()
                client = open_client(DETECTION, config, max_in_flight=max_in_flight)
        else:
            pytest.fail(f"a call has more than {MOST_LINES} lines")
        client.close()
        assert interrupted >= 3


@unix_only
@OF_EITHER_TRANSPORT
@pytest.mark.usefixtures("_nothing_hangs")
def test_after_an_interrupt_anywhere_in_a_call_another_thread_has_its_turn(config: IpcConfig) -> None:
    needs_looks()
    config = config.replace(read_timeout_ms=5_000)
    with served(config), ThreadPoolExecutor(1) as thread:
        client = open_client(DETECTION, config, max_in_flight=1)
        interrupted = 0
        for look in range(1, MOST_LOOKS):
            interrupt = InterruptAtLook(trio_ipc.client, look)
            try:
                with interrupt:
                    client.call(task())
            except KeyboardInterrupt:
                interrupted += 1
            if interrupt.left > 0:
                break
            try:
                assert thread.submit(client.call, task("after")).result(DEADLINE) == success("after")
            except ChannelClosedError:
                client.close()
                client = open_client(DETECTION, config, max_in_flight=1)
        else:
            pytest.fail(f"a call has more than {MOST_LOOKS} points at which Python looks")
        client.close()
        assert interrupted >= 30


@unix_only
@OF_EITHER_TRANSPORT
@pytest.mark.usefixtures("_nothing_hangs")
@pytest.mark.parametrize("package", [trio_ipc.blocking, trio_ipc.portal], ids=lambda given: given.__name__)
def test_after_an_interrupt_at_any_line_of_opening_and_closing_no_thread_is_left(
    config: IpcConfig, package: types.ModuleType
) -> None:
    with served(config):
        for line in range(1, MOST_LINES):
            interrupt = InterruptAt(package, line)
            client: Any = None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # of what nobody could close any more
                try:
                    with interrupt:
                        client = open_client(DETECTION, config)
                        client.close()
                except KeyboardInterrupt:
                    pass
                client = None
                gc.collect()
            if interrupt.left > 0:
                break
            for thread in portal_threads():
                thread.join(DEADLINE)
            assert portal_threads() == [], line
        else:
            pytest.fail(f"opening and closing has more than {MOST_LINES} lines")


#: Makes a call that is not answered until it is interrupted, and then another one.
CALLER = """
import sys
from trio_ipc import ChannelClosedError, IpcConfig
from trio_ipc.blocking import open_client
from trio_ipc.daemoneye import DETECTION, DetectionTask

config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2])
with open_client(DETECTION, config, max_in_flight=int(sys.argv[3])) as client:
    try:
        client.call(DetectionTask(task_id="wait"))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    try:
        print(client.call(DetectionTask(task_id="after")).task_id, flush=True)
    except ChannelClosedError as exc:
        print(exc.hint, flush=True)
"""


@unix_only  # Windows has no signal that reaches one process from another alone
@pytest.mark.parametrize(("max_in_flight", "then"), [("1", "open a new client"), ("64", "after")])
def test_ctrl_c_ends_the_call_of_a_program(
    config: IpcConfig, directory: str, max_in_flight: str, then: str
) -> None:
    gate = Gate()
    arguments = (config.endpoint_path, str(config.transport), max_in_flight)
    with served(config, gate) as server, program(CALLER, *arguments, directory=directory) as caller:
        assert gate.reached.wait(DEADLINE)
        caller.interrupt()
        assert caller.line() == "interrupted"
        server.portal.call(gate.open)
        assert caller.line() == then
        assert caller.end() == (0, "", "")


@unix_only
def test_ctrl_c_ends_a_program_that_does_not_catch_it(config: IpcConfig, directory: str) -> None:
    gate = Gate()
    text = CALLER.replace("except KeyboardInterrupt", "except ZeroDivisionError")
    with (
        served(config, gate) as server,
        program(text, config.endpoint_path, str(config.transport), "64", directory=directory) as caller,
    ):
        assert gate.reached.wait(DEADLINE)
        caller.interrupt()
        status, out, errors = caller.end()
        assert (status, out) == (-signal.SIGINT, "")
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert errors.count("Traceback") == 1, "and nothing of what waited in the other thread"
        server.stop()
        assert server.server.snapshot().connections_active == 0
