"""Sockets stay with the process that opened them, whatever its host program forks."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path

import pytest
import trio

from tests.hardening.record import Attack
from tests.support import task
from trio_ipc import (
    EndpointInUseError,
    IpcConfig,
    PeerPolicy,
    ReadTimeoutError,
    TransportType,
    open_client,
)
from trio_ipc.daemoneye import DETECTION
from trio_ipc.opening import open_channel, open_channel_listener
from trio_ipc.transports import connect, listen

if sys.platform == "win32":
    pytest.skip("Windows has no fork", allow_module_level=True)
assert sys.platform != "win32"

from trio_ipc.transports import forks  # noqa: E402

OWN = PeerPolicy.own_user_and_root()


@contextmanager
def forked() -> Iterator[int]:
    """A child that does nothing, for as long as the block takes."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"x")
        signal.pause()
        os._exit(0)
    try:
        os.read(reading, 1)  # all that Python does in a forked child is done
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


def sockets_of(pid: int) -> list[str]:
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return sorted(target for target in found if target.startswith("socket:"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
async def test_a_forked_child_has_neither_listener_nor_connections(
    directory: str, transport: TransportType
) -> None:
    before = sockets_of(os.getpid())  # Trio's own, by which it wakes itself
    config = IpcConfig(endpoint_path=f"{directory}/s", transport=transport)
    async with await open_channel_listener(config, OWN) as listener, await open_channel(config) as client:
        async with await listener.accept() as served:
            assert len(sockets_of(os.getpid())) == len(before) + 3
            with forked() as child:
                assert sockets_of(child) == before
            await client.send(b"still here")
            assert await served.receive() == b"still here"


async def test_a_connection_that_a_child_was_forked_under_ends_when_this_process_closes_it(
    directory: str,
) -> None:
    path = f"{directory}/s"
    async with await listen(path, OWN) as listener, await connect(path) as client:
        served = await listener.accept()
        with forked(), trio.fail_after(10):
            await served.aclose()
            assert await client.receive_some() == b""


def test_a_pool_of_processes_has_none_of_the_sockets(directory: str, transport: TransportType) -> None:
    """By multiprocessing's fork, the default on Linux before Python 3.14."""

    async def main() -> None:
        config = IpcConfig(endpoint_path=f"{directory}/s", transport=transport)
        async with await open_channel_listener(config, OWN):
            with get_context("fork").Pool(1) as pool:
                assert pool.apply(os.path.exists, (config.endpoint_path,))
        assert not os.path.lexists(config.endpoint_path)

    trio.run(main)


def test_a_socket_that_is_gone_is_remembered_nowhere() -> None:
    gc.collect()  # or what other tests have left goes from there meanwhile
    before = len(forks._kept_here)
    left, right = socket.socketpair()
    forks.keep_from_children(left)
    assert len(forks._kept_here) == before + 1
    left.close()
    right.close()
    del left
    assert len(forks._kept_here) == before


class Watched(socket.socket):
    """Writes its mark as it is closed in a child, by which its place in the order is seen."""

    told: int
    mark = b""

    def close(self) -> None:
        if self.mark:
            os.write(self.told, self.mark)
        super().close()


def test_a_child_closes_what_listens_before_any_connection(tmp_path: Path) -> None:
    # A client that sees its connection end starts the next server, while the child still closes the rest.
    reading, writing = os.pipe()
    sockets = []
    try:
        for number in range(20):
            sock = Watched(socket.AF_UNIX)
            sockets.append(sock)
            sock.told, sock.mark = writing, b"."
            forks.keep_from_children(sock)
            if number == 10:
                sock.bind(str(tmp_path / "s"))
                sock.listen()
                sock.mark = b"L"
            if number == 15:
                socket.socket.close(sock)  # a closed one is passed over
        with forked():
            pass
    finally:
        for sock in sockets:
            sock.mark = b""
            sock.close()
        os.close(writing)
    with open(reading, "rb") as order:
        assert order.read() == b"L" + b"." * 19


# --- What a fork that Python does not see leaves behind ----------------------------------------------------

#: As native code forks, by the C library alone: the child keeps the socket, and the server is killed.
ORPHANING = """
import ctypes, os, signal, sys, trio
from trio_ipc import IpcConfig, PeerPolicy
from trio_ipc.opening import open_channel_listener

async def main():
    config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2])
    listener = await open_channel_listener(config, PeerPolicy.own_user_and_root())
    child = ctypes.CDLL(None).fork()
    if child == 0:
        ctypes.CDLL(None).pause()
    with open(sys.argv[3], "w") as file:  # the child has our standard output open, too
        print(os.getpid(), child, file=file)
    os.kill(os.getpid(), signal.SIGKILL)

trio.run(main)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="which process listened is what Linux tells")
async def test_an_endpoint_that_a_dead_servers_child_holds_is_told_as_that(
    directory: str, transport: TransportType, attack: Attack
) -> None:
    path = f"{directory}/s"
    command = [sys.executable, "-c", ORPHANING, path, str(transport), f"{directory}/pids"]
    await trio.run_process(command, check=False)
    with open(f"{directory}/pids") as file:
        server, child = map(int, file.read().split())
    try:
        with pytest.raises(EndpointInUseError, match=f"not by its server: process {server}, which") as caught:
            await open_channel_listener(IpcConfig(endpoint_path=path, transport=transport), OWN)
        assert f"ss -xlp src {path}" in str(caught.value)
        assert caught.value.pid is None
        # A client connects, and nobody answers.
        config = IpcConfig(endpoint_path=path, transport=transport, read_timeout_ms=200)
        async with open_client(DETECTION, config) as client:
            with pytest.raises(ReadTimeoutError, match=f"process {server} has ended, and another one still"):
                await client.call(task())
        # That is how to find it.
        found = await trio.run_process(["ss", "-xlp", "src", path], capture_stdout=True, check=False)
        assert not found.stdout or f"pid={child}," in found.stdout.decode()
    finally:
        os.kill(child, signal.SIGKILL)
    attack(
        "a server is killed while a process that native code has forked holds its socket",
        tried=2,
        outcome="`EndpointInUseError` and, to a client, `ReadTimeoutError`; both say that the server has "
        "ended, and how to find who holds its socket",
    )
