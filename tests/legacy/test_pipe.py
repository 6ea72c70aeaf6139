"""What is the legacy transport's own on Windows; what both must do is tested for both elsewhere."""

from __future__ import annotations

import errno
import os
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

if sys.platform != "win32":
    pytest.skip("named pipes are Windows' own", allow_module_level=True)
assert sys.platform == "win32"

import ctypes  # noqa: E402

from tests.platforms import fails_under_wine, open_handles  # noqa: E402
from tests.transports.test_named_pipe import dacl_of, entries_of  # noqa: E402
from trio_ipc import (  # noqa: E402
    ChannelClosedError,
    ConfigError,
    ConnectError,
    EndpointError,
    EndpointInUseError,
    EndpointPermissionError,
    IpcConfig,
    PeerClosedError,
    PeerPolicy,
    ServerNotFoundError,
    TruncatedFrameError,
)
from trio_ipc.legacy import connect, listen  # noqa: E402
from trio_ipc.legacy import pipe as legacy_pipe  # noqa: E402
from trio_ipc.legacy.pipe import PipeChannel, PipeListener  # noqa: E402
from trio_ipc.transports import credentials, named_pipe, win32  # noqa: E402

OWN = PeerPolicy.own_user_and_root()
LARGE = bytes(4_000_000)
Pair = tuple[PipeChannel, PipeChannel]


@pytest.fixture
async def deadline() -> AsyncIterator[None]:
    # A test that waits for ever should fail as itself, and not as the whole run.
    with trio.fail_after(120):
        yield


@pytest.fixture
def config(deadline: None) -> IpcConfig:  # which every test asks for: pytest-trio forgets one that none does
    name = f"trio-ipc-test-{uuid.uuid4().hex}"
    return IpcConfig(endpoint_path=name, transport="legacy", max_frame_bytes=len(LARGE))


async def connected_to(listener: PipeListener, config: IpcConfig) -> Pair:
    client, server = await connect(config), await listener.accept()
    assert isinstance(client, PipeChannel)
    assert isinstance(server, PipeChannel)
    return client, server


@asynccontextmanager
async def pair(config: IpcConfig) -> AsyncIterator[Pair]:
    async with await listen(config, OWN) as listener:
        client, server = await connected_to(listener, config)
    async with client, server:
        yield client, server


async def blocked(task: Any, nursery: trio.Nursery) -> None:
    nursery.start_soon(task)
    await trio.testing.wait_all_tasks_blocked(0.02)


# --- Operations and their memory ---------------------------------------------------------------------------


async def test_a_cancelled_wait_leaves_its_read_to_the_next(config: IpcConfig) -> None:
    async with pair(config) as (client, server):
        for number in range(30):
            await cancelled_receive(server)
            assert server._reading.under_way, "and it goes on"
            await client.send(b"%d" % number)
            assert await server.receive() == b"%d" % number


class Threads:
    """The threads that wait for events, made slow: they do not look, or do not tell, until they are let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started = 0
        self.look_late = True
        self.let_go = threading.Event()
        self._looked = threading.Semaphore(0)
        self._open: set[int] = set()
        self._wait, self._create, self._close = win32.wait_for_event, win32.create_event, win32.close_handle
        monkeypatch.setattr(win32, "wait_for_event", self._wait_slowly)
        monkeypatch.setattr(win32, "create_event", self._note_open)
        monkeypatch.setattr(win32, "close_handle", self._note_closed)

    def _wait_slowly(self, event: int) -> None:
        self.started += 1
        if self.look_late:
            self.let_go.wait()
        self._wait(event)
        self._looked.release()
        self.let_go.wait()

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
        self.let_go.set()
        await self.looked()
        while self._open:  # noqa: ASYNC110 - the thread says so when it likes
            await trio.sleep(0.01)
        assert self.started == 1


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Threads]:
    made = Threads(monkeypatch)
    yield made
    made.let_go.set()


async def cancelled_receive(channel: PipeChannel) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await blocked(channel.receive, nursery)
            scope.cancel()


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
                    nursery.start_soon(server.wait_peer_gone)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            await server.send(b"answer")
            assert await client.receive() == b"answer"


async def test_a_thread_that_is_late_serves_the_read_that_is_under_way_by_then(
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
            threads.let_go.set()
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
        assert server._read_now(memoryview(bytearray(1))) is None  # the next read is under way
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                await server._reading.wait()
                assert server._reading.has_completed()

            await blocked(wait, nursery)
            threads.let_go.set()
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
    server.close_nowait()
    client.close_nowait()
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


async def until_noticed(channel: PipeChannel) -> None:
    while channel.is_quiet():  # noqa: ASYNC110 - the kernel completes the read when it likes
        await trio.sleep(0.01)


async def test_a_read_that_goes_on_does_not_make_a_connection_quiet_or_not(config: IpcConfig) -> None:
    async with pair(config) as (client, server):
        with trio.move_on_after(0.05):
            await server.receive()
        assert server.is_quiet()
        await client.send(b"x")
        await until_noticed(server)
        assert await server.receive() == b"x"
        assert server.is_quiet()
        await client.aclose()
        await until_noticed(server)


async def test_a_write_of_no_bytes_is_not_the_end(config: IpcConfig) -> None:
    async with pair(config) as (client, server):
        client._writing.begin(lambda state: win32.begin_write(client._handle, b"", state))
        client._writing.result()
        await client.send(b"x")
        assert await server.receive() == b"x"


async def test_closing_with_a_read_and_a_write_under_way_ends_both(config: IpcConfig) -> None:
    async with pair(config) as (client, server), trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(ChannelClosedError):
                await client.send(LARGE)

        async def receive() -> None:
            with pytest.raises(ChannelClosedError):
                await client.receive()

        await blocked(receive, nursery)
        await blocked(send, nursery)
        await client.aclose()
        with pytest.raises((PeerClosedError, TruncatedFrameError)):
            await server.receive()


async def test_the_peers_closing_wakes_a_task_that_sends(config: IpcConfig) -> None:
    async with pair(config) as (client, server), trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(PeerClosedError):
                await client.send(LARGE)

        await blocked(send, nursery)
        await server.aclose()


async def test_what_was_sent_right_before_closing_arrives(config: IpcConfig) -> None:
    async with pair(config) as (client, server):
        await client.send(bytes(60_000))
        await client.aclose()
        assert await server.receive() == bytes(60_000)
        with pytest.raises(PeerClosedError):
            await server.receive()


async def test_a_channel_that_is_forgotten_is_closed_with_a_warning(config: IpcConfig) -> None:
    async with await listen(config, OWN) as listener:
        ends = list(await connected_to(listener, config))
    server = ends.pop()
    assert ends[0]._read_now(memoryview(bytearray(1))) is None  # a read is under way from now on
    with pytest.warns(ResourceWarning, match="not closed"):
        ends.clear()
    with pytest.raises(PeerClosedError):
        await server.receive()
    await server.aclose()


async def test_hundreds_of_connections_leave_no_handle(config: IpcConfig) -> None:
    async with await listen(config, OWN) as listener:

        async def some(count: int) -> int:
            for _ in range(count):
                client, server = await connected_to(listener, config)
                await client.send(b"x")
                assert await server.receive() == b"x"
                await client.aclose()
                await server.aclose()
            return open_handles()

        before = await some(20)
        assert await some(200) <= before
        assert listener.connections.open == 0


# --- Accepting ----------------------------------------------------------------------------------------------


async def test_a_cancelled_accept_loses_no_client(config: IpcConfig) -> None:
    async with await listen(config, OWN) as listener:
        for _ in range(20):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    await blocked(listener.accept, nursery)
                    scope.cancel()
            client, server = await connected_to(listener, config)
            async with client, server:
                await client.send(b"x")
                assert await server.receive() == b"x"


async def test_an_accept_that_is_cancelled_as_a_client_comes_returns_it_or_leaves_it(
    config: IpcConfig,
) -> None:
    accepted: list[Any] = []
    async with await listen(config, OWN) as listener:

        async def accept(scope: trio.CancelScope) -> None:
            with scope:
                accepted.append(await listener.accept())

        for _ in range(20):
            scope = trio.CancelScope()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(accept, scope)
                await trio.testing.wait_all_tasks_blocked()
                client = await connect(config)
                scope.cancel()
            if not accepted:
                accepted.append(await listener.accept())
            async with client, accepted.pop() as server:
                await client.send(b"x")
                assert await server.receive() == b"x"


async def test_closing_wakes_a_task_that_accepts_and_frees_the_name(config: IpcConfig) -> None:
    for _ in range(10):
        listener = await listen(config, OWN)

        async def accept(listener: PipeListener = listener) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        async with trio.open_nursery() as nursery:
            await blocked(accept, nursery)
            with pytest.raises(trio.BusyResourceError):
                await listener.accept()
            with pytest.raises(trio.BusyResourceError):
                listener.hand_over()
            await listener.aclose()
        with pytest.raises(ServerNotFoundError, match="does not exist"):
            await connect(config)


async def test_a_client_that_left_before_it_was_accepted_is_still_read(config: IpcConfig) -> None:
    async with await listen(config, OWN) as listener:
        async with await connect(config) as client:
            await client.send(b"farewell")
        async with await listener.accept() as server:
            assert await server.receive() == b"farewell"
            with pytest.raises(PeerClosedError):
                await server.receive()


async def test_a_client_is_kept_while_no_further_instance_can_be_made(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ctypes.WinError(win32.ERROR_NO_SYSTEM_RESOURCES)

    async with await listen(config, OWN) as listener, await connect(config) as client:
        await client.send(b"x")
        with monkeypatch.context() as patch:
            patch.setattr(legacy_pipe, "_create_instance", fail)
            for _ in range(2):
                with pytest.raises(OSError, match=r".") as caught:
                    await listener.accept()
                assert caught.value.errno == errno.ENOBUFS
        async with await listener.accept() as server:
            assert await server.receive() == b"x"


async def test_an_event_that_cannot_be_made_costs_neither_client_nor_handle(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = win32.create_event

    async with await listen(config, OWN) as listener, await connect(config) as client:
        await client.send(b"x")
        with trio.move_on_after(0.05):  # notices the client, and is cancelled then or is not
            served = await listener.accept()
            await served.aclose()
        async with await connect(config) as second:
            await second.send(b"y")
            before = open_handles()
            for fails_at in range(3):
                calls = 0

                def fail_once(fails_at: int = fails_at) -> int:
                    nonlocal calls
                    calls += 1
                    if calls > fails_at:
                        raise OSError(errno.ENOMEM, "no memory")
                    return create()

                with monkeypatch.context() as patch:
                    patch.setattr(win32, "create_event", fail_once)
                    with pytest.raises(OSError, match="no memory"):
                        await listener.accept()
                assert open_handles() <= before
            async with await listener.accept() as server:
                assert await server.receive() == b"y"


# --- Who may, and who does ----------------------------------------------------------------------------------


async def test_the_access_list_is_the_default_transports(config: IpcConfig) -> None:
    user = "S-1-5-21-1004336348-1177238915-682003330-1001"
    for policy in (OWN, PeerPolicy.users([user]), PeerPolicy.anyone()):
        found = []
        async with await named_pipe.listen(config.endpoint_path, policy) as theirs:
            async with await named_pipe.open_named_pipe(config.endpoint_path) as client:
                async with await theirs.accept():
                    found.append(entries_of(dacl_of(client)))
        async with await listen(config, policy) as ours:
            async with await named_pipe.open_named_pipe(config.endpoint_path) as client:
                async with await ours.accept() as server:
                    found.append(entries_of(dacl_of(client)))
                    assert server.peer == client.peer
                    assert server.peer is not None
                    assert server.peer.pid == os.getpid()
        assert found[0] == found[1]


@pytest.mark.parametrize("user", [7, "somebody", "S-1-5-18\n"])
async def test_a_user_who_is_no_security_identifier_is_refused(config: IpcConfig, user: int | str) -> None:
    with pytest.raises(ConfigError, match="which is no security identifier"):
        await listen(config, PeerPolicy.users([user]))


def refuse_first_instances(monkeypatch: pytest.MonkeyPatch, times: float) -> None:
    create = win32.create_named_pipe
    refused = 0

    def refuse(path: str, open_mode: int, *args: Any, **kwargs: Any) -> int:
        nonlocal refused
        if open_mode & win32.FILE_FLAG_FIRST_PIPE_INSTANCE and refused < times:
            refused += 1
            raise ctypes.WinError(win32.ERROR_ACCESS_DENIED)
        return create(path, open_mode, *args, **kwargs)

    monkeypatch.setattr(win32, "create_named_pipe", refuse)


@fails_under_wine("FILE_FLAG_FIRST_PIPE_INSTANCE is ignored")
async def test_a_name_that_is_served_is_refused_and_says_by_whom(config: IpcConfig) -> None:
    async with await listen(config, OWN):
        with pytest.raises(EndpointInUseError, match=f"in use by process {os.getpid()}"):
            async with await listen(config, OWN):
                pass


async def test_a_refused_name_that_is_served_is_in_use(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await listen(config, OWN):
        refuse_first_instances(monkeypatch, times=1)
        with pytest.raises(EndpointInUseError, match=f"in use by process {os.getpid()}") as caught:
            await listen(config, OWN)
        assert caught.value.pid == os.getpid()


async def test_a_name_that_only_clients_held_on_to_is_had_once_theylet_go(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_first_instances(monkeypatch, times=3)
    async with await listen(config, OWN) as listener:
        for channel in await connected_to(listener, config):
            await channel.aclose()


async def test_a_refused_name_that_nobody_serves_is_given_up_in_the_end(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    refuse_first_instances(monkeypatch, times=float("inf"))
    with pytest.raises(EndpointError, match="nobody listens") as caught:
        await listen(config, OWN)
    assert not isinstance(caught.value, EndpointInUseError)


@pytest.mark.parametrize(
    ("winerror", "error"),
    [
        (win32.ERROR_FILE_NOT_FOUND, ServerNotFoundError),
        (win32.ERROR_ACCESS_DENIED, EndpointPermissionError),
        (win32.ERROR_NO_SYSTEM_RESOURCES, ConnectError),
    ],
)
async def test_what_the_system_says_to_a_client_becomes_the_precise_error(
    config: IpcConfig, winerror: int, error: type[ConnectError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise ctypes.WinError(winerror)

    monkeypatch.setattr(win32, "create_file", refuse)
    with pytest.raises(ConnectError) as caught:
        await connect(config)
    assert type(caught.value) is error
    assert isinstance(caught.value.__cause__, OSError)


async def test_clients_wait_for_a_server_that_is_busy_and_can_be_cancelled(config: IpcConfig) -> None:
    async with await listen(config, OWN) as listener, await connect(config):
        with trio.move_on_after(0.2) as scope:
            await connect(config)
        assert scope.cancelled_caught

        async def call() -> None:
            async with await connect(config):
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            for _ in range(2):
                async with await listener.accept():
                    pass


# --- Changing hands -----------------------------------------------------------------------------------------


async def test_an_instance_and_its_client_change_hands_again_and_again(config: IpcConfig) -> None:
    ours = await listen(config, OWN)
    client = await connect(config)
    await client.send(b"early")
    for _ in range(5):
        theirs = named_pipe.adopt(ours.hand_over())
        ours.let_go()
        again = legacy_pipe.adopt(theirs.hand_over(), config)
        theirs.let_go()
        with pytest.raises(trio.ClosedResourceError):
            await theirs.accept()
        await theirs.aclose()
        await ours.aclose()
        ours = again
    async with client, await ours.accept() as server:
        assert await server.receive() == b"early"
    async with await connect(config), await ours.accept():
        pass
    await ours.aclose()
    with pytest.raises(ServerNotFoundError):
        await connect(config)


async def test_a_port_that_refuses_the_handle_changes_nothing(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.EINVAL, "refused")

    async with await listen(config, OWN) as listener:
        with monkeypatch.context() as patch:
            patch.setattr(trio.lowlevel, "register_with_iocp", refuse)
            with pytest.raises(OSError, match="refused"):
                named_pipe.adopt(listener.hand_over())
        for channel in await connected_to(listener, config):
            assert credentials.PeerPolicy.own_user_and_root().allows(channel.peer)
            await channel.aclose()
