"""What synchronous programs do that nobody thinks of, and what they are told."""

from __future__ import annotations

import concurrent.futures
import copy
import gc
import multiprocessing
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

from tests.adapters import DEADLINE, OF_DIRECT_CALLS, Gate, portal_threads, program, served
from tests.platforms import UNDER_WINE, unix_only
from tests.support import success, task
from trio_ipc import ChannelClosedError, IpcConfig, IpcError
from trio_ipc.blocking import Client, open_client
from trio_ipc.daemoneye import DETECTION, DetectionResult, DetectionTask


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert portal_threads() == []


# --- Making, copying, forgetting ----------------------------------------------------------------------------


def test_a_client_is_neither_made_by_hand_nor_copied(config: IpcConfig) -> None:
    made_of: Any = (DETECTION, config)
    with pytest.raises(TypeError, match=r"trio_ipc\.blocking\.Client is not made by itself"):
        Client(*made_of)
    with served(config), open_client(DETECTION, config) as client:
        for copying in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(
                TypeError, match="can be neither pickled nor copied: open one in each process"
            ):
                copying(client)
        assert client.call(task("1")) == success("1")


@pytest.mark.parametrize("max_in_flight", [1, 64])
def test_what_is_no_iterable_of_requests_is_told(config: IpcConfig, max_in_flight: int) -> None:
    def failing() -> Iterator[DetectionTask]:
        yield task()
        raise TypeError("of the caller's own")

    one: Any = task()
    with served(config), open_client(DETECTION, config, max_in_flight=max_in_flight) as client:
        with pytest.raises(TypeError, match="requests is a DetectionTask, must be an iterable of them"):
            client.call_many(one)
        with pytest.raises(TypeError, match="of the caller's own"):
            client.call_many(failing())
        assert client.call(task("1")) == success("1")


async def test_in_a_task_of_trio_it_says_what_is_for_trio(config: IpcConfig) -> None:
    with pytest.raises(IpcError, match="this thread runs Trio, .*; on Trio use trio_ipc itself"):
        open_client(DETECTION, config)


@pytest.mark.skipif(UNDER_WINE, reason="a pool of processes does not end under Wine")
def test_a_pool_of_processes_is_not_given_a_client(config: IpcConfig) -> None:
    spawn = multiprocessing.get_context("spawn")
    with served(config), open_client(DETECTION, config) as client:
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
            with pytest.raises(TypeError, match="open one in each process"):
                pool.submit(client.call, task()).result(DEADLINE)


def test_one_that_is_forgotten_is_closed_where_warnings_are_errors(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: unraisable.append(told.exc_type))
    with served(config) as server:
        client = open_client(DETECTION, config)
        [thread] = portal_threads()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del client
            gc.collect()
        thread.join(DEADLINE)
        assert unraisable == [ResourceWarning]
        server.stop()
        assert server.server.snapshot().connections_active == 0


# --- Where no thread can be had -----------------------------------------------------------------------------


def test_a_thread_that_cannot_be_started_is_told(config: IpcConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with served(config):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(
                IpcError, match="cannot be started: can't start new thread; have fewer threads"
            ):
                open_client(DETECTION, config)
        with open_client(DETECTION, config) as client:
            assert client.call(task("1")) == success("1")


#: Opens a client when it ends already.
AT_EXIT = """
import atexit, sys
from trio_ipc import IpcConfig, IpcError
from trio_ipc.blocking import open_client
from trio_ipc.daemoneye import DETECTION, DetectionTask

config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2])

@atexit.register
def goodbye():
    try:
        with open_client(DETECTION, config) as client:
            print(client.call(DetectionTask(task_id="goodbye")).task_id)
    except IpcError as exc:
        print(exc)
"""


def test_a_program_may_open_one_as_it_ends_where_python_starts_threads_then(
    config: IpcConfig, directory: str
) -> None:
    arguments = (config.endpoint_path, str(config.transport))
    with served(config), program(AT_EXIT, *arguments, directory=directory) as caller:
        status, out, errors = caller.end()
    assert (status, errors) == (0, "")
    # CPython 3.12.1 starts no thread then; 3.11.7 and 3.13.0 do.
    if sys.version_info < (3, 12) or out == "goodbye\n":
        assert out == "goodbye\n"
        return
    assert out == (
        f"{config.endpoint_path}: its thread cannot be started: can't create new thread at interpreter "
        "shutdown; have fewer threads, as one portal can serve several clients; some versions of Python "
        "start none for a program that ends\n"
    )


#: Opens a client where only one more descriptor can be had than there are.
FEW_DESCRIPTORS = """
import os, resource, sys
from trio_ipc import IpcConfig, OutOfResourcesError
from trio_ipc.blocking import open_client
from trio_ipc.daemoneye import DETECTION, DetectionTask

config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2])
with open_client(DETECTION, config) as client:
    client.call(DetectionTask(task_id="1"))
last = os.dup(0)
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, limits[1]))
try:
    open_client(DETECTION, config)
except OutOfResourcesError as exc:
    print("ulimit -n" in exc.hint)
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
with open_client(DETECTION, config) as client:
    print(client.call(DetectionTask(task_id="2")).task_id)
"""


@unix_only
def test_a_process_without_descriptors_is_told(config: IpcConfig, directory: str) -> None:
    arguments = (config.endpoint_path, str(config.transport))
    with served(config), program(FEW_DESCRIPTORS, *arguments, directory=directory) as caller:
        status, out, errors = caller.end()
    assert (status, errors) == (0, "")
    assert out == "True\n2\n"


# --- Signal handlers, and functions that call ---------------------------------------------------------------


def while_it_waits(gate: Gate, do: Callable[[], object]) -> threading.Thread:
    """Do something in a signal handler of this thread, while a call of it waits for its response.

    Returns what sends the signal, and ends by itself.
    """
    done = threading.Event()

    def handle(*_: object) -> None:
        if not done.is_set():
            done.set()
            do()

    def send() -> None:
        assert gate.reached.wait(DEADLINE)
        while not done.is_set():  # one that comes just before a lock is waited for does not end that wait
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)  # type: ignore[arg-type]
            done.wait(0.02)

    signal.signal(signal.SIGUSR1, handle)
    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.fixture
def _signals_are_put_back() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


@unix_only
@pytest.mark.usefixtures("_signals_are_put_back")
def test_a_signal_handler_may_call_where_several_calls_may_be_in_flight(config: IpcConfig) -> None:
    gate, said = Gate(), list[DetectionResult]()

    def call() -> None:
        server.portal.start_task_soon(gate.open)
        said.append(client.call(task("inner")))

    with served(config, gate) as server, open_client(DETECTION, config) as client:
        thread = while_it_waits(gate, call)
        assert client.call(task("wait")) == success("wait")
        thread.join(DEADLINE)
    assert said == [success("inner")]


@unix_only
@pytest.mark.usefixtures("_signals_are_put_back")
@pytest.mark.parametrize("max_in_flight", [1, 64])
def test_a_signal_handler_may_close_the_client_that_waits(config: IpcConfig, max_in_flight: int) -> None:
    gate = Gate()
    with served(config, gate), open_client(DETECTION, config, max_in_flight=max_in_flight) as client:
        thread = while_it_waits(gate, client.close)
        with pytest.raises(ChannelClosedError):
            client.call(task("wait"))
        thread.join(DEADLINE)
        assert client.is_broken


class TestInTheCallersThread:
    """Calls that are made in their caller's own thread, in which another one would come in between."""

    pytestmark = OF_DIRECT_CALLS

    @pytest.mark.usefixtures("_signals_are_put_back")
    @pytest.mark.parametrize("several", [False, True], ids=["a call in it", "several in it"])
    def test_a_signal_handlers_call_is_refused_and_the_one_that_waits_goes_on(
        self, config: IpcConfig, several: bool
    ) -> None:
        gate, said = Gate(), list[Any]()

        def call() -> None:
            try:
                said.append(client.call_many([task("2")]) if several else client.call(task("2")))
            except IpcError as exc:
                said.append(str(exc))
            server.portal.start_task_soon(gate.open)

        with served(config, gate) as server, open_client(DETECTION, config, max_in_flight=1) as client:
            thread = while_it_waits(gate, call)
            assert client.call(task("wait")) == success("wait")
            thread.join(DEADLINE)
            [error] = said
            assert "in the middle of a call of the same thread" in error
            assert client.call(task("after")) == success("after")

    def test_a_contracts_function_that_calls_is_told(self, config: IpcConfig) -> None:
        def mismatch(request: DetectionTask, _: DetectionResult) -> str | None:
            client.call(request)
            return None

        contract = attrs.evolve(DETECTION, mismatch=mismatch)
        with served(config), open_client(contract, config, max_in_flight=1) as client:
            with pytest.raises(IpcError, match="in the middle of a call of the same thread.*must not call"):
                client.call(task())
            assert client.is_broken
