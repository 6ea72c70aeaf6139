"""The operating system's bad days: no descriptors, no room, no permission, signals, forks and exits."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from subprocess import PIPE
from unittest.mock import Mock

import pytest
import trio
from trio.testing import MockClock

from tests.hardening.record import ROOT, Attack
from tests.platforms import needs_proc, open_handles, refuse_to_accept, unix_only
from tests.support import serving, succeed, success, task
from trio_ipc import EndpointError, EndpointPermissionError, IpcConfig, open_client, serve
from trio_ipc.daemoneye import DETECTION
from trio_ipc.transports import connect

START = """
import logging, os, resource, sys, threading
import trio
from tests.support import succeed, success, task
from trio_ipc import IpcConfig, open_client, serve
from trio_ipc.daemoneye import DETECTION

config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2], max_connections=100)
"""


def command(program: str, config: IpcConfig) -> list[str]:
    return [sys.executable, "-c", START + program, config.endpoint_path, str(config.transport)]


@asynccontextmanager
async def running(program: str, config: IpcConfig) -> AsyncIterator[trio.Process]:
    """Run a program of its own until the block ends; what it logs is in its standard error."""
    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process, command(program, config), stdout=PIPE, stderr=PIPE, cwd=ROOT, check=False
        )
        process: trio.Process = await nursery.start(start)
        assert process.stdout is not None
        assert (await process.stdout.receive_some()).startswith(b"ready")
        yield process
        nursery.cancel_scope.cancel()


# --- Short of something -------------------------------------------------------------------------------------

SHORT_OF_DESCRIPTORS = """
logging.basicConfig(level="ERROR", format="%(created)f %(message)s")

async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, succeed, DETECTION, config)
        resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
        print("ready", flush=True)

trio.run(main)
"""


@unix_only
async def test_a_server_out_of_descriptors_waits_serves_and_recovers(
    config: IpcConfig, attack: Attack
) -> None:
    async with running(SHORT_OF_DESCRIPTORS, config) as server, open_client(DETECTION, config) as early:
        assert await early.call(task()) == success()
        assert server.stderr is not None
        holders = [await connect(config.endpoint_path) for _ in range(40)]
        said = b""
        while said.count(b"\n") < 6:
            said += await server.stderr.receive_some()
            assert await early.call(task()) == success()
        times = []
        for line in said.splitlines()[:6]:
            when, _, what = line.decode().partition(" ")
            assert what == "cannot accept: Too many open files; trying again in 0.1 s"
            times.append(float(when))
        # By its own clock: it rests between two attempts, and does not spin.
        assert times[-1] - times[0] >= 5 * 0.09
        for holder in holders:
            await holder.aclose()
        async with open_client(DETECTION, config) as late:
            assert await late.call(task()) == success()
    attack(
        "file descriptors run out (`RLIMIT_NOFILE`) under 40 connections",
        tried=40,
        outcome="accept tried again each 0.1 s; who was connected was served; all well once some were free",
    )


@unix_only
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT])
@pytest.mark.parametrize("call", ["open", "bind", "listen"])
async def test_what_the_system_forbids_at_the_start_is_one_precise_error(
    config: IpcConfig, code: int, call: str, monkeypatch: pytest.MonkeyPatch, attack: Attack
) -> None:
    fails = Mock(side_effect=OSError(code, os.strerror(code)))
    before = open_handles()
    with monkeypatch.context() as patched:
        patched.setattr(os if call == "open" else socket.socket, call, fails)
        with pytest.raises(EndpointError, match=f"cannot listen as uid .*: {os.strerror(code)}") as caught:
            await serve(succeed, DETECTION, config)
    assert caught.value.endpoint == config.endpoint_path
    assert os.listdir(os.path.dirname(config.endpoint_path)) == []
    assert open_handles() == before
    attack(
        "`ENOSPC`, `EROFS`, `EACCES`, `EPERM`, `EDQUOT` when a server opens its directory, binds or listens",
        tried=1,
        outcome="one `EndpointError` that says which; no file and no descriptor left",
    )


def may_mount() -> bool:
    """Whether this process may have a mount namespace of its own, and mount there."""
    if sys.platform != "linux" or os.geteuid():
        return False
    mounting = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(mounting, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


FULL_AND_READ_ONLY = """
from trio_ipc import EndpointError

directory = os.path.dirname(config.endpoint_path)

def mount(options, *arguments):
    if os.system(f"mount -o {options} {' '.join(arguments)} {directory}"):
        sys.exit("cannot mount")

async def is_refused():
    try:
        await serve(succeed, DETECTION, config)
    except EndpointError as exc:
        print(exc)

async def works():
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, succeed, DETECTION, config)
        async with open_client(DETECTION, config) as client:
            assert await client.call(task()) == success()
        nursery.cancel_scope.cancel()

for number in 1, 2:  # the directory itself takes one; the lock of the starters would take the next
    mount(f"nr_inodes={number},mode=700", "-t tmpfs none")
    trio.run(is_refused)
    print(os.listdir(directory))
    mount("remount,nr_inodes=9")
    trio.run(works)
mount("remount,ro")
trio.run(is_refused)
mount("remount,rw")
trio.run(works)
print(os.listdir(directory))
"""


@pytest.mark.skipif(not may_mount(), reason="needs root on Linux, a mount namespace, and mount(8)")
async def test_a_directory_that_is_full_or_read_only_is_told_and_no_obstacle_later(
    config: IpcConfig, attack: Attack
) -> None:
    run = await trio.run_process(
        ["unshare", "--mount", *command(FULL_AND_READ_ONLY, config)],
        cwd=ROOT,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode()
    full, empty, full_again, empty_again, read_only, in_the_end = run.stdout.decode().splitlines()
    for said in (full, full_again):
        assert f"{config.endpoint_path}: cannot listen as uid 0: No space left on device" in said
    assert f"{config.endpoint_path}: cannot listen as uid 0: Read-only file system" in read_only
    assert empty == empty_again == in_the_end == "[]"
    attack(
        "a directory without room for another file, and a read-only one (real mounts)",
        tried=3,
        outcome="one `EndpointError` that says which, and no file left; all well once it was mended",
    )


@unix_only
@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
async def test_a_connect_that_is_denied_is_permission_denied(
    config: IpcConfig, code: int, monkeypatch: pytest.MonkeyPatch, attack: Attack
) -> None:
    async with serving(succeed, config):
        with monkeypatch.context() as patched:
            patched.setattr(socket.socket, "connect", Mock(side_effect=OSError(code, os.strerror(code))))
            with pytest.raises(EndpointPermissionError, match="permission denied to uid"):
                async with open_client(DETECTION, config):
                    pass
    attack(
        "a security module that denies to connect (`EACCES`, `EPERM`)",
        tried=1,
        outcome="`EndpointPermissionError`",
    )


@pytest.fixture(params=[errno.EACCES, errno.EPERM])
def denial(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What accept() says the first five times."""
    refuse_to_accept(monkeypatch, request.param, times=5)
    return os.strerror(request.param)


@unix_only
async def test_an_accept_that_is_denied_is_tried_again_after_a_rest(
    config: IpcConfig,
    denial: str,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    attack: Attack,
) -> None:
    """The client stays where it is, so that to try again at once would be to spin."""
    async with serving(succeed, config), open_client(DETECTION, config) as client:
        assert await client.call(task()) == success()
        assert 0.5 <= trio.current_time() < 1
    assert caplog.text.count(f"cannot accept: {denial}; trying again in 0.1 s") == 5
    attack(
        "a security module that denies to accept (`EACCES`, `EPERM`)",
        tried=5,
        outcome="tried again each 0.1 s, logged; served once it is allowed",
    )


# --- Signals and clocks -------------------------------------------------------------------------------------


@unix_only
async def test_a_storm_of_signals_interrupts_nothing(config: IpcConfig, attack: Attack) -> None:
    if sys.platform == "win32":
        return
    rung = 0

    def ring(*_: object) -> None:
        nonlocal rung
        rung += 1

    former = signal.signal(signal.SIGALRM, ring)
    try:
        async with serving(succeed, config), open_client(DETECTION, config) as client:
            signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
            calls = 0
            while calls < 300 or rung < 50:
                assert await client.call(task(str(calls))) == success(str(calls))
                calls += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    attack("calls under a storm of signals (`EINTR`)", tried=300, outcome="all answered")


async def test_a_wall_clock_that_jumps_changes_nothing(
    config: IpcConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, attack: Attack
) -> None:
    caplog.set_level("INFO")
    config = config.replace(read_timeout_ms=60_000, poll_attempts=0)
    years = itertools.count(1)

    def jumping() -> float:
        year = next(years)
        return year * 3e7 if year % 2 else -year * 3e7

    async with serving(succeed, config) as server, open_client(DETECTION, config) as client:
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", jumping)
            for number in range(200):
                assert abs(time.time() - time.time()) > 3e7
                assert await client.call(task(str(number))) == success(str(number))
        counts = server.snapshot()
        assert not any(counts.timeouts.values())
        assert 0 <= counts.uptime_seconds < 3e6
    attack("a wall clock that jumps by years, back and forth", tried=200, outcome="no effect")


# --- Forks and exits ----------------------------------------------------------------------------------------

FORKING = """
async def handle(request, call):
    if request.task_id == "fork":
        if os.fork() == 0:
            os._exit(0)
        os.wait()
    return await succeed(request, call)

async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, handle, DETECTION, config)
        print("ready", flush=True)

trio.run(main)
"""


@unix_only
async def test_a_child_that_the_host_program_forks_takes_nothing_with_it(
    config: IpcConfig, attack: Attack
) -> None:
    async with running(FORKING, config), open_client(DETECTION, config) as client:
        for _ in range(20):
            assert await client.call(task("fork")) == success("fork")
            async with open_client(DETECTION, config) as other:
                assert await other.call(task()) == success()
    attack(
        "the server's program forks, and the child leaves by `os._exit`",
        tried=20,
        outcome="connections and endpoint as before",
    )


CLOSING_IN_THE_CHILD = """
from trio_ipc.opening import open_channel_listener
from trio_ipc import PeerPolicy

async def main():
    listener = await open_channel_listener(config, PeerPolicy.own_user_and_root())
    if os.fork() == 0:
        closing = threading.Thread(target=trio.run, args=(listener.aclose,))
        closing.start()
        closing.join()
        os._exit(0)
    os.wait()
    assert os.path.exists(config.endpoint_path)
    await listener.aclose()
    assert not os.path.exists(config.endpoint_path)

trio.run(main)
print("it stayed")
"""


@unix_only
def test_a_forked_child_that_closes_the_listener_leaves_the_file(config: IpcConfig, attack: Attack) -> None:
    done = subprocess.run(
        command(CLOSING_IN_THE_CHILD, config), capture_output=True, cwd=ROOT, timeout=60, check=True
    )
    assert done.stdout == b"it stayed\n"
    attack(
        "the server's program forks, and the child closes the listener",
        tried=1,
        outcome="the socket file stays; only the process that made it removes it",
    )


@needs_proc
async def test_a_program_that_is_started_from_a_server_has_none_of_its_sockets(
    config: IpcConfig, attack: Attack
) -> None:
    async with serving(succeed, config), open_client(DETECTION, config) as client:
        assert await client.call(task()) == success()
        listing = subprocess.run(
            ["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, check=True
        )
    assert b"socket:" not in listing.stdout
    attack(
        "a program started with `close_fds=False` from a process with a server and a client",
        tried=1,
        outcome="it inherits none of their sockets",
    )


EXITING = """
def serve_and_talk():
    async def main():
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, succeed, DETECTION, config)
            async with open_client(DETECTION, config) as client:
                await client.call(task())
                talking.set()
                await trio.sleep_forever()
    trio.run(main)

talking = threading.Event()
threading.Thread(target=serve_and_talk, daemon=True).start()
talking.wait()
"""


@unix_only
def test_an_interpreter_that_ends_with_connections_open_ends_quietly(
    config: IpcConfig, attack: Attack
) -> None:
    for _ in range(5):
        done = subprocess.run(
            command(EXITING, config), capture_output=True, cwd=ROOT, timeout=60, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    attack(
        "an interpreter that ends while a server and a client run in another thread",
        tried=5,
        outcome="it ends, without a word; the next start takes over the socket it left",
    )
