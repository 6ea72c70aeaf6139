"""Ctrl-C, once and twice, in calls that are made in the main thread itself, when the Trio thread is busy."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from tests.adapters import (
    DEADLINE,
    OF_DIRECT_CALLS,
    Gate,
    Held,
    check_counts,
    interrupt_counting,
    interrupted,
    served,
)
from tests.interrupts import interrupts_are_trios
from tests.support import success, task
from trio_ipc import ChannelClosedError, IpcConfig
from trio_ipc.blocking import open_client
from trio_ipc.client import direct
from trio_ipc.daemoneye import DETECTION

pytestmark = OF_DIRECT_CALLS


@pytest.fixture(autouse=True)
def _the_signal_is_pythons() -> Iterator[None]:
    with interrupts_are_trios():
        yield


class Interrupts:
    """Ctrl-C, as often as asked for and no more.

    A signal that comes just before Python waits for a lock does not end that wait: it is sent
    until it was seen.
    """

    def __init__(self) -> None:
        self._wanted = self._seen = 0
        signal.signal(signal.SIGINT, self._handle)

    def _handle(self, *_: object) -> None:
        if self._seen < self._wanted:
            self._seen += 1
            raise KeyboardInterrupt

    def send(self, over: threading.Event) -> None:
        self._wanted += 1
        while self._seen < self._wanted:
            interrupt()
            over.wait(0.02)


def interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]  # it runs


class Noted:
    """Does what a method of an object does, and then sets an event."""

    def __init__(self, thing: Any, name: str, event: threading.Event | None = None) -> None:
        self._method: Callable[..., Any] = getattr(thing, name)
        self.event = event or threading.Event()
        setattr(thing, name, self)

    def __call__(self, *args: Any) -> Any:
        try:
            return self._method(*args)
        finally:
            self.event.set()


def interrupt_twice(
    interrupts: Interrupts, portal: BlockingPortal, gate: Gate, waits_anew: Noted, over: threading.Event
) -> None:
    """Press Ctrl-C in a call that waits for its response, and again while it waits for the Trio thread."""
    assert gate.reached.wait(DEADLINE)
    with Held(portal):
        waits_anew.event.clear()
        interrupts.send(over)
        assert waits_anew.event.wait(DEADLINE)
        interrupts.send(over)
        assert over.wait(DEADLINE), "the second one does not wait"


def test_a_second_interrupt_of_a_call_does_not_wait(config: IpcConfig) -> None:
    gate, over = Gate(), threading.Event()
    with served(config, gate), start_blocking_portal("trio") as portal, ThreadPoolExecutor(1) as thread:
        with open_client(DETECTION, config, max_in_flight=1, portal=portal) as client:
            waits_anew = Noted(client._kept, "submit")
            interrupting = thread.submit(interrupt_twice, Interrupts(), portal, gate, waits_anew, over)
            with pytest.raises(KeyboardInterrupt):
                client.call(task("wait"))
            over.set()
            interrupting.result(DEADLINE)
            with pytest.raises(ChannelClosedError, match="open a new client"):
                client.call(task())
            assert client.is_broken


def test_nothing_is_sent_while_the_trio_thread_still_carries_what_was_interrupted_twice(
    config: IpcConfig,
) -> None:
    gate, over = Gate(), threading.Event()
    with served(config, gate), start_blocking_portal("trio") as portal, ThreadPoolExecutor(2) as threads:
        with open_client(DETECTION, config, max_in_flight=1, portal=portal) as client:
            assert client._direct is not None
            waits_anew = Noted(client._kept, "cancel")
            interrupting = threads.submit(interrupt_twice, Interrupts(), portal, gate, waits_anew, over)
            with pytest.raises(KeyboardInterrupt):
                client.call_many([task("wait"), task("2")])
            sent = client.snapshot().frames_sent
            goes_on = Noted(client._kept, "submit")  # after it has sent something, or instead of that
            Noted(client._direct._line, "begin_now", goes_on.event)
            call = threads.submit(client.call, task("after"))
            assert goes_on.event.wait(DEADLINE)
            assert client.snapshot().frames_sent == sent
            over.set()
            interrupting.result(DEADLINE)
            with pytest.raises(ChannelClosedError, match="open a new client"):
                call.result(DEADLINE)


def test_an_interrupt_is_not_lost_when_another_thread_has_closed_the_client(config: IpcConfig) -> None:
    with served(config), ThreadPoolExecutor(1) as thread:
        with open_client(DETECTION, config, max_in_flight=1) as client:
            assert client._direct is not None

            def receive(until: float) -> bytes | None:
                thread.submit(client.close).result(DEADLINE)
                raise KeyboardInterrupt

            client._direct._receive = receive  # type: ignore[method-assign]
            with pytest.raises(KeyboardInterrupt):
                client.call(task())


@pytest.mark.parametrize("again", [False, True])
def test_an_interrupt_while_a_call_is_counted_leaves_none_in_flight(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    with served(config), open_client(DETECTION, config, max_in_flight=1) as client:
        with monkeypatch.context() as patch:
            interrupt_counting(patch, client)
            if again:
                patch.setattr(direct, "kind_of", interrupted)
            with pytest.raises(KeyboardInterrupt):
                client.call(task("1"))
        assert client.call(task("2")) == success("2"), "its response had come"
        check_counts(client, other=1)
