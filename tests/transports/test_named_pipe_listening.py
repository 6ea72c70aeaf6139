"""Named pipes: the listener, and many clients at a time."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from typing import Any

import pytest
import trio
import trio.testing

if sys.platform != "win32":
    pytest.skip("named pipes are Windows' own", allow_module_level=True)
assert sys.platform == "win32"

import ctypes  # noqa: E402

from tests.transports.pipes import (  # noqa: E402
    accepted_or_kept,
    blocked,
    connected_to,
    no_handle_left,
)
from trio_ipc import (  # noqa: E402
    ServerNotFoundError,
)
from trio_ipc.transports import credentials  # noqa: E402
from trio_ipc.transports.windows import win32  # noqa: E402
from trio_ipc.transports.windows.pipe import (  # noqa: E402
    NamedPipeListener,
    NamedPipeStream,
    open_named_pipe,
    open_named_pipe_listener,
)

# --- The listener -------------------------------------------------------------------------------------------


async def test_closing_wakes_a_task_that_accepts_and_frees_the_name(name: str) -> None:
    for _ in range(20):
        listener = await open_named_pipe_listener(name)
        async with trio.open_nursery() as nursery:

            async def accept(listener: NamedPipeListener = listener) -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await listener.accept()

            await blocked(accept, nursery)
            await listener.aclose()
            with pytest.raises(ServerNotFoundError, match="does not exist"):
                await open_named_pipe(name)
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()
        await listener.aclose()


async def test_a_second_task_that_accepts_is_told_so(name: str) -> None:
    async with await open_named_pipe_listener(name) as listener, trio.open_nursery() as nursery:
        await blocked(listener.accept, nursery)
        with pytest.raises(trio.BusyResourceError):
            await listener.accept()
        nursery.cancel_scope.cancel()


async def test_a_cancelled_accept_loses_no_client(name: str) -> None:
    async with await open_named_pipe_listener(name) as listener:
        for _ in range(20):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    await blocked(listener.accept, nursery)
                    scope.cancel()
            client, server = await connected_to(listener)
            async with client, server:
                await client.send_all(b"x")
                assert await server.receive_some() == b"x"


async def test_an_accept_that_is_cancelled_as_a_client_comes_returns_it_or_leaves_it(name: str) -> None:
    async with await open_named_pipe_listener(name) as listener:
        for _ in range(20):
            client, server = await accepted_or_kept(listener.accept, lambda: open_named_pipe(name))
            async with client, server:
                await client.send_all(b"x")
                assert await server.receive_some() == b"x"


async def test_a_client_that_left_before_it_was_accepted_is_still_read(name: str) -> None:
    async with await open_named_pipe_listener(name) as listener:
        async with await open_named_pipe(name) as client:
            await client.send_all(b"farewell")
        async with await listener.accept() as server:
            assert await server.receive_some() == b"farewell"
            assert await server.receive_some() == b""


async def test_a_client_that_was_not_accepted_reads_the_end_when_the_listener_closes(name: str) -> None:
    listener = await open_named_pipe_listener(name)
    async with await open_named_pipe(name) as client:
        await listener.aclose()
        assert await client.receive_some() == b""


async def test_a_client_is_kept_while_no_further_instance_can_be_made(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ctypes.WinError(win32.ERROR_NO_SYSTEM_RESOURCES)

    async with await open_named_pipe_listener(name) as listener, await open_named_pipe(name) as client:
        await client.send_all(b"x")
        with monkeypatch.context() as patch:
            patch.setattr(win32, "create_named_pipe", fail)
            for _ in range(2):
                with pytest.raises(OSError, match=r".") as caught:
                    await listener.accept()
                assert caught.value.errno == errno.ENOBUFS
        async with await listener.accept() as server:
            assert await server.receive_some() == b"x"


# --- Many at a time -----------------------------------------------------------------------------------------


async def echo(server: NamedPipeStream) -> None:
    async with server:
        async for data in server:
            await server.send_all(data)


async def test_a_thousand_connections_in_a_row_leave_no_handle(name: str) -> None:
    async with no_handle_left(), await open_named_pipe_listener(name) as listener:
        for _ in range(1_000):
            client, server = await connected_to(listener)
            await client.aclose()
            await server.aclose()


async def test_a_hundred_at_once_are_all_served_and_leave_no_handle(name: str) -> None:
    answers: list[bytes | bytearray] = []
    all_here = trio.Event()
    here = 0

    async def call(number: int) -> None:
        nonlocal here
        async with await open_named_pipe(name) as client:
            here += 1
            if here == 100:
                all_here.set()
            await all_here.wait()
            await client.send_all(b"%d" % number)
            answers.append(await client.receive_some())

    async with no_handle_left(threads=100), trio.open_nursery() as serving:
        serving.start_soon(trio.serve_listeners, echo, [await open_named_pipe_listener(name)])
        async with trio.open_nursery() as calling:
            for number in range(100):
                calling.start_soon(call, number)
        serving.cancel_scope.cancel()
    assert sorted(int(answer) for answer in answers) == list(range(100))


async def test_clients_wait_for_a_server_that_is_busy(name: str) -> None:
    async with await open_named_pipe_listener(name) as listener, trio.open_nursery() as nursery:
        connected = 0

        async def call() -> None:
            nonlocal connected
            async with await open_named_pipe(name):
                connected += 1

        for _ in range(10):
            nursery.start_soon(call)
        while connected == 0:
            await trio.testing.wait_all_tasks_blocked()
        # The first took the only instance. The others may wait, and wait for nothing else.
        for _ in range(10):
            async with await listener.accept():
                pass


async def test_a_client_that_waits_for_a_busy_server_can_be_cancelled(name: str) -> None:
    async with await open_named_pipe_listener(name), await open_named_pipe(name):
        with trio.move_on_after(0.2) as scope:
            await open_named_pipe(name)
        assert scope.cancelled_caught
        assert trio.current_time() - scope.deadline < 1


async def test_a_client_that_waits_sleeps_between_its_tries(
    name: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    tries = 0
    create = win32.create_file

    def count(*arguments: Any) -> int:
        nonlocal tries
        tries += 1
        return create(*arguments)

    async with await open_named_pipe_listener(name), await open_named_pipe(name):
        monkeypatch.setattr(win32, "create_file", count)
        with trio.move_on_after(10):
            await open_named_pipe(name)
    assert 200 <= tries <= 220  # one in 50 ms, after some quicker ones


async def test_hundreds_of_clients_at_once_are_served_without_a_thread_for_any_of_them(name: str) -> None:
    threads = threading.active_count()
    most = 0
    served = 0

    async def call() -> None:
        nonlocal most, served
        async with await open_named_pipe(name) as client:
            most = max(most, threading.active_count())
            await client.send_all(b"x")
            assert await client.receive_some() == b"x"
            served += 1

    async with trio.open_nursery() as serving:
        serving.start_soon(trio.serve_listeners, echo, [await open_named_pipe_listener(name)])
        async with trio.open_nursery() as calling:
            for _ in range(300):
                calling.start_soon(call)
        serving.cancel_scope.cancel()
    assert served == 300
    assert most <= threads


async def test_a_client_that_waits_learns_that_the_server_has_gone(name: str) -> None:
    listener = await open_named_pipe_listener(name)
    async with await open_named_pipe(name) as first, trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(ServerNotFoundError):
                await open_named_pipe(name)

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()
        assert await first.receive_some() == b""


SERVER = """
import sys, trio
from trio_ipc.transports.windows.pipe import open_named_pipe_listener

async def main():
    async with await open_named_pipe_listener(sys.argv[1]) as listener:
        print("listening", flush=True)
        while True:
            stream = await listener.accept()
            await stream.send_all(await stream.receive_some() + b", and the rest never co")
            async with stream:
                await trio.sleep_forever()

trio.run(main)
"""


async def test_a_server_killed_in_mid_answer_leaves_no_handle(name: str) -> None:
    async with no_handle_left():
        server = await trio.lowlevel.open_process(
            [sys.executable, "-c", SERVER, name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert server.stdout is not None
        async with server.stdout:
            assert await server.stdout.receive_some()
            async with await open_named_pipe(name) as client:
                assert client.peer.pid == server.pid
                assert client.peer.sid == credentials.user_of(win32.current_process())
                await client.send_all(b"an answer")
                assert await client.receive_some() == b"an answer, and the rest never co"
                server.kill()
                assert await client.receive_some() == b""
                with pytest.raises(trio.BrokenResourceError):
                    await client.send_all(b"x")
            await server.wait()
        del server
        with pytest.raises(ServerNotFoundError):
            await open_named_pipe(name)
