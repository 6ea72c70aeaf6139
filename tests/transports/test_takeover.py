"""One server takes another's place at a Unix socket's path."""

from __future__ import annotations

import errno
import itertools
import json
import os
import socket
import subprocess
import sys

import pytest
import trio

from tests.hardening.record import Attack
from trio_ipc import EndpointError, EndpointInUseError
from trio_ipc.endpoint import MAX_PATH_BYTES

if sys.platform == "win32":
    pytest.skip("nothing can take a named pipe's server's place", allow_module_level=True)
assert sys.platform != "win32"

from trio_ipc.transports import UnixListener, open_unix_listeners, open_unix_stream  # noqa: E402


@pytest.fixture
def path(directory: str) -> str:
    return f"{directory}/test.sock"


#: Connects as fast as it can from two threads until it is told to end; says what it met, and how often.
CLIENTS = """
import collections, json, socket, sys, threading

path, over, met = sys.argv[1], threading.Event(), []

def connect_again_and_again():
    while not over.is_set():
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(path)
                answer = client.recv(10).decode() or "lost"
            except OSError as exc:
                answer = type(exc).__name__
        met.append(answer)

threads = [threading.Thread(target=connect_again_and_again) for _ in range(2)]
for thread in threads:
    thread.start()
sys.stdin.read()
over.set()
for thread in threads:
    thread.join()
print(json.dumps(collections.Counter(met)))
"""

#: How long nobody may come until an old server believes that all who had reached it were served. Seconds.
QUIET = 0.1

#: How many clients each server has before the next one takes its place.
SERVED = 5


async def serve_until_replaced(
    listener: UnixListener, answer: bytes, enough: trio.Event, replaced: trio.Event
) -> None:
    """What docs/pipes.md tells an old server to do: accept until it is replaced and nobody comes any more."""
    quiet = trio.CancelScope()

    async def once_replaced() -> None:
        await replaced.wait()
        quiet.deadline = trio.current_time() + QUIET

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(once_replaced)
        with quiet:
            for served in itertools.count(1):
                async with await listener.accept() as stream:
                    await stream.send_all(answer)
                if served == SERVED:
                    enough.set()
                if replaced.is_set():
                    quiet.deadline = trio.current_time() + QUIET


async def test_no_client_is_refused_or_lost_while_one_server_takes_anothers_place(
    path: str, attack: Attack
) -> None:
    takeovers = 20
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            replaced = None
            clients = None
            for number in range(takeovers):
                [listener] = await open_unix_listeners(path, replace=True)
                if replaced is not None:
                    replaced.set()
                enough, replaced = trio.Event(), trio.Event()
                nursery.start_soon(serve_until_replaced, listener, b"%d" % number, enough, replaced)
                if clients is None:
                    clients = await trio.lowlevel.open_process(
                        [sys.executable, "-c", CLIENTS, path],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                    )
                await enough.wait()
            assert clients is not None
            assert clients.stdin is not None
            assert clients.stdout is not None
            await clients.stdin.aclose()
            said = b""
            async for piece in clients.stdout:
                said += piece
            await clients.wait()
            assert replaced is not None
            replaced.set()
    met = json.loads(said)
    assert met.keys() == {str(number) for number in range(takeovers)}, met
    assert all(met[str(number)] >= SERVED for number in range(takeovers))
    assert not os.path.lexists(path)
    attack(
        "servers that take each other's place (`replace=True`), while two threads connect without a rest",
        tried=takeovers - 1,
        outcome="no client is refused, none lost, and each server has its own",
    )


async def test_the_path_leads_to_the_new_server_and_the_old_one_keeps_its_clients(path: str) -> None:
    [old] = await open_unix_listeners(path)
    async with old, await open_unix_stream(path) as early:
        # The old server must not even notice, since it may not be prepared for a client that says nothing.
        [new] = await open_unix_listeners(path, replace=True)
        async with new, await open_unix_stream(path) as late:
            async with await old.accept() as served:
                await early.send_all(b"early")
                assert await served.receive_some() == b"early"
            async with await new.accept() as served:
                await late.send_all(b"late")
                assert await served.receive_some() == b"late"
            with pytest.raises(BlockingIOError):
                old._sock.accept()


async def test_an_old_servers_close_leaves_the_new_ones_socket(directory: str, path: str) -> None:
    [old] = await open_unix_listeners(path)
    [new] = await open_unix_listeners(path, replace=True)
    assert old.look().file == "replaced"
    assert new.look().file == "there"
    await old.aclose()
    async with new, await open_unix_stream(path), await new.accept():
        assert os.listdir(directory) == ["test.sock"]
    assert os.listdir(directory) == []


async def test_an_old_servers_processs_end_leaves_the_new_ones_socket(path: str, attack: Attack) -> None:
    code = (
        "import sys, trio; from trio_ipc.transports import serve_unix\n"
        "async def main():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        await nursery.start(serve_unix, trio.aclose_forcefully, sys.argv[1])\n"
        "        print('listening', flush=True)\n"
        "        await trio.to_thread.run_sync(sys.stdin.read)\n"
        "        nursery.cancel_scope.cancel()\n"
        "trio.run(main)"
    )
    command = [sys.executable, "-c", code, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as old:
        assert old.stdin is not None
        assert old.stdout is not None
        assert old.stdout.readline() == b"listening\n"
        with pytest.raises(EndpointInUseError, match=f"in use by process {old.pid}"):
            await open_unix_listeners(path)
        [new] = await open_unix_listeners(path, replace=True)
        old.stdin.close()
        assert old.wait() == 0
    async with new, await open_unix_stream(path), await new.accept():
        assert new.look().file == "there"
    attack(
        "the process of a server that was replaced ends",
        tried=1,
        outcome="the new server's socket stays",
    )


async def test_of_those_who_replace_each_other_at_once_the_last_one_has_the_path(
    path: str, attack: Attack
) -> None:
    listeners: list[UnixListener] = []

    async def start() -> None:
        listeners.extend(await open_unix_listeners(path, replace=True))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(start)
    assert [listener.look().file for listener in listeners] == ["replaced"] * 4 + ["there"]
    for listener in listeners[:-1]:
        await listener.aclose()
    assert listeners[-1].look().file == "there"
    await listeners[-1].aclose()
    assert not os.path.lexists(path)
    attack(
        "servers that take each other's place at the same time",
        tried=5,
        outcome="the last one has the path; the others know that they were replaced, and remove nothing",
    )


async def test_a_takeover_that_fails_leaves_the_old_server_and_nothing_else(
    directory: str, path: str, monkeypatch: pytest.MonkeyPatch, attack: Attack
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    [old] = await open_unix_listeners(path)
    async with old:
        for module, name in ((os, "rename"), (socket.socket, "listen"), (os, "chmod")):
            with monkeypatch.context() as patch:
                patch.setattr(module, name, refuse)
                with pytest.raises(EndpointError, match="No space left on device"):
                    await open_unix_listeners(path, replace=True)
        assert os.listdir(directory) == ["test.sock"]
        assert old.look().file == "there"
        async with await open_unix_stream(path):
            pass
    attack(
        "a takeover that fails when the socket is renamed, listens or is opened up (`ENOSPC`)",
        tried=3,
        outcome="one `EndpointError`; the old server goes on, and no file is left",
    )


async def test_a_server_with_a_full_backlog_can_be_replaced(path: str, attack: Attack) -> None:
    with socket.socket(socket.AF_UNIX) as old, socket.socket(socket.AF_UNIX) as client:
        old.bind(path)
        old.listen(0)
        client.connect(path)
        [new] = await open_unix_listeners(path, replace=True)
        async with new, await open_unix_stream(path), await new.accept():
            pass
    attack(
        "a server that hangs, with a full backlog, is replaced",
        tried=1,
        outcome="new clients reach the new server",
    )


async def test_a_path_too_long_to_make_its_socket_beside_it_says_so(directory: str) -> None:
    deep = f"{directory}/{'x' * (MAX_PATH_BYTES - len(directory) - 4)}"
    [listener] = await open_unix_listeners(f"{deep}/s")
    async with listener:
        with pytest.raises(EndpointError, match="where the socket is made, is longer .*; use a shorter dir"):
            await open_unix_listeners(f"{deep}/s", replace=True)
        assert os.listdir(deep) == ["s"]
