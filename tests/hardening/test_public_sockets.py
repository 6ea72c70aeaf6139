"""The public functions for Unix sockets among clients, and starters, who mean them ill."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from subprocess import PIPE

import pytest
import trio

from tests.hardening.record import ROOT, Attack

if sys.platform == "win32":
    pytest.skip("speaks of what only Unix has", allow_module_level=True)
assert sys.platform != "win32"

from trio_ipc.transports import PeerPolicy, UnixStream, open_unix_stream  # noqa: E402

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root: a child becomes another user")

STRANGER = 12_345

#: Echoes at a path, by ``serve_unix``. What is to be done first, and once it listens, is put in.
SERVER = """
import os, resource, sys, trio
from trio_ipc import IpcError
from trio_ipc.transports import open_unix_listeners, serve_unix
IpcError

async def echo(stream):
    try:
        async for data in stream:
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass  # the client's own fault

async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_unix, echo, sys.argv[1])
        {then}
        print("ready", flush=True)

{first}
trio.run(main)
"""

BECOME_A_STRANGER = f"os.setgroups([]); os.setgid({STRANGER}); os.setuid({STRANGER})"

#: Another user who tries to take the server's place, so often, and says what they met.
USURPER = f"""
import os, sys, trio
from trio_ipc import EndpointError
from trio_ipc.transports import open_unix_listeners

async def main():
    for _ in range(5):
        try:
            await open_unix_listeners(sys.argv[1], replace=True)
            print("taken")
        except EndpointError as exc:
            print(type(exc).__name__)

{BECOME_A_STRANGER}
trio.run(main)
"""


@pytest.fixture
def path(directory: str) -> str:
    return f"{directory}/test.sock"


@asynccontextmanager
async def server(path: str, *, first: str = "", then: str = "") -> AsyncIterator[trio.Process]:
    """A server in a process of its own, once it is ready; killed at the end."""
    command = [sys.executable, "-c", SERVER.format(first=first, then=then), path]
    with trio.fail_after(60):
        process = await trio.lowlevel.open_process(command, stdout=PIPE, stderr=PIPE, cwd=ROOT)
        assert process.stdout is not None
        assert process.stderr is not None
        async with process.stdout, process.stderr:
            try:
                assert (await process.stdout.receive_some()).startswith(b"ready")
                yield process
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()


async def answers(stream: UnixStream) -> bool:
    await stream.send_all(b"hello")
    return await stream.receive_some() == b"hello"


async def test_clients_that_leave_at_once_do_not_end_a_server(path: str, attack: Attack) -> None:
    async with server(path) as process, await open_unix_stream(path) as early:
        for number in range(300):
            stream = await open_unix_stream(path)
            if number % 3:
                await stream.send_all(bytes(100_000))  # whose echo nobody reads
            await stream.aclose()
            if number % 30 == 0:
                assert await answers(early)
        async with await open_unix_stream(path) as late:
            assert await answers(early)
            assert await answers(late)
        assert process.returncode is None
    attack(
        "clients of `serve_unix` that leave at once, many with 100 kB whose response they do not read",
        tried=300,
        outcome="the server goes on, and others are answered meanwhile",
    )


async def test_a_server_without_a_free_descriptor_waits_and_recovers(path: str, attack: Attack) -> None:
    short = "resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))"
    async with server(path, then=short) as process:
        assert process.stderr is not None
        async with await open_unix_stream(path) as early:
            holders = [await open_unix_stream(path) for _ in range(40)]
            said = b""
            while said.count(b"retrying in 0.1 seconds") < 3:
                said += await process.stderr.receive_some()
                assert await answers(early)
            for holder in holders:
                await holder.aclose()
            async with await open_unix_stream(path) as late:
                assert await answers(late)
    attack(
        "file descriptors run out (`RLIMIT_NOFILE`) under 40 connections to `serve_unix`",
        tried=40,
        outcome="accept tried again each 0.1 s; who was connected was served; all well once some were free",
    )


@as_root
async def test_a_client_is_told_that_the_server_is_another_users(
    directory: str, path: str, attack: Attack
) -> None:
    os.chown(directory, STRANGER, STRANGER)
    async with server(path, first=BECOME_A_STRANGER):
        for _ in range(5):
            async with await open_unix_stream(path) as stream:
                assert stream.peer.uid == STRANGER
                assert not PeerPolicy.own_user_and_root().allows(stream.peer)
    attack(
        "a path taken by a server of another user, to `open_unix_stream`",
        tried=5,
        outcome="`stream.peer` tells whose it is, before anything is sent, and the default policy refuses it",
    )


@as_root
async def test_another_user_cannot_take_a_servers_place(directory: str, path: str, attack: Attack) -> None:
    async with server(path):
        os.chmod(directory, 0o755)
        os.chmod(path, 0o666)
        done = await trio.run_process([sys.executable, "-c", USURPER, path], capture_stdout=True, cwd=ROOT)
        assert done.stdout.decode().split() == ["EndpointError"] * 5
        assert os.listdir(directory) == ["test.sock"]
        async with await open_unix_stream(path) as stream:
            assert await answers(stream)
    attack(
        "another user tries to take a server's place (`replace=True`), both modes loosened",
        tried=5,
        outcome="`EndpointError`: the directory is not theirs to write; the server goes on",
    )
