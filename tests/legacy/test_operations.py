"""Overlapped operations and their memory, whatever their threads do late. Only for Windows."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
import trio
import trio.testing

if sys.platform != "win32":
    pytest.skip("named pipes are Windows' own", allow_module_level=True)
assert sys.platform == "win32"

import ctypes  # noqa: E402

from tests.legacy.pipes import (  # noqa: E402
    OWN,
    Pair,
    blocked,
    cancelled_receive,
    connected_to,
    pair,
    until_noticed,
)
from trio_ipc import IpcConfig, PeerClosedError  # noqa: E402
from trio_ipc.legacy import listen  # noqa: E402
from trio_ipc.transports.windows import win32  # noqa: E402


async def test_a_cancelled_wait_leaves_its_read_to_the_next(config: IpcConfig) -> None:
    async with pair(config) as (client, server):
        for number in range(30):
            await cancelled_receive(server)
            assert server._reading.in_flight, "and it goes on"
            await client.send(b"%d" % number)
            assert await server.receive() == b"%d" % number


class Threads:
    """The threads that wait for events, made slow: they do not look, or do not tell, until they are let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started = 0
        self.look_late = True
        self.release = threading.Event()
        self._looked = threading.Semaphore(0)
        self._open: set[int] = set()
        self._wait, self._create, self._close = win32.wait_for_event, win32.create_event, win32.close_handle
        monkeypatch.setattr(win32, "wait_for_event", self._wait_slowly)
        monkeypatch.setattr(win32, "create_event", self._note_open)
        monkeypatch.setattr(win32, "close_handle", self._note_closed)

    def _wait_slowly(self, event: int) -> None:
        self.started += 1
        if self.look_late:
            self.release.wait()
        self._wait(event)
        self._looked.release()
        self.release.wait()

    def _note_open(self) -> int:
        event = self._create()
        self._open.add(event)
        return event

    def _note_closed(self, handle: int) -> None:
        self._open.discard(handle)
        self._close(handle)

    async def looked(self) -> None:
        """Wait until one has found its event set."""
        await trio.to_thread.run_sync(self._looked.acquire, abandon_on_cancel=True)

    async def let_end(self) -> None:
        """Let the one thread look at its event, which must be there and set, and then be closed."""
        assert len(self._open) == 1
        self.release.set()
        await self.looked()
        while self._open:  # noqa: ASYNC110 - the thread says so when it likes
            await trio.sleep(0.01)
        assert self.started == 1


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Threads]:
    made = Threads(monkeypatch)
    yield made
    made.release.set()


async def test_cancelled_waits_for_a_read_share_one_thread(config: IpcConfig, threads: Threads) -> None:
    async with pair(config) as (_, server):
        for _ in range(5):
            await cancelled_receive(server)
    await threads.let_end()


async def test_a_write_after_a_cancelled_wait_is_judged_by_its_own_result(config: IpcConfig) -> None:
    async with pair(config) as (client, server):
        for _ in range(300):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(server.receive)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            await server.send(b"answer")
            assert await client.receive() == b"answer"


async def test_a_thread_that_is_late_serves_the_read_that_is_in_progress_by_then(
    config: IpcConfig, threads: Threads
) -> None:
    async with pair(config) as (client, server):
        await cancelled_receive(server)
        await client.send(b"first")
        await until_noticed(server)
        assert await server.receive() == b"first"
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                assert await server.receive() == b"second"

            await blocked(receive, nursery)
            threads.release.set()
            await client.send(b"second")
        assert threads.started == 1


async def test_a_thread_that_tells_late_of_an_earlier_read_wakes_nobody_for_good(
    config: IpcConfig, threads: Threads
) -> None:
    threads.look_late = False
    async with pair(config) as (client, server):
        await cancelled_receive(server)
        await client.send(b"first")
        await threads.looked()
        assert await server.receive() == b"first"
        assert server._read_now(1) is None  # the next read has begun
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                await server._reading.wait()
                assert server._reading.has_completed()

            await blocked(wait, nursery)
            threads.release.set()
            while threads.started < 2:  # noqa: ASYNC110 - the thread comes when it likes
                await trio.sleep(0.01)
            await client.send(b"second")


async def test_a_thread_that_is_late_ends_though_the_next_read_could_not_begin(
    config: IpcConfig, threads: Threads
) -> None:
    async with pair(config) as (client, server):
        await cancelled_receive(server)
        await client.send(b"x")
        await client.aclose()
        await until_noticed(server)
        assert await server.receive() == b"x"
        with pytest.raises(PeerClosedError):
            await server.receive()
    await threads.let_end()


async def test_a_channel_that_is_closed_after_its_run_ends_its_thread(
    config: IpcConfig, threads: Threads
) -> None:
    async def run() -> Pair:
        async with await listen(config, OWN) as listener:
            client, server = await connected_to(listener, config)
        await cancelled_receive(server)
        return client, server

    client, server = await trio.to_thread.run_sync(trio.run, run)
    server.close()
    client.close()
    await threads.let_end()


async def test_an_event_that_cannot_be_waited_for_costs_one_operation(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise ctypes.WinError(win32.ERROR_NO_SYSTEM_RESOURCES)

    async with pair(config) as (client, server):
        with monkeypatch.context() as patch:
            patch.setattr(win32, "wait_for_event", fail)
            with pytest.raises(OSError, match=r".") as caught:
                await server.receive()
            assert caught.value.winerror == win32.ERROR_NO_SYSTEM_RESOURCES
        await client.send(b"x")
        assert await server.receive() == b"x"
