"""The operating system's bad days: no descriptors, no room, no permission, signals, a clock that jumps."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import socket
import sys
import time
from unittest.mock import Mock

import pytest
import trio
from trio.testing import MockClock

from tests.hardening.record import ROOT, Attack
from tests.hardening.system_support import command, may_mount, running
from tests.platforms import open_handles, refuse_to_accept, unix_only
from tests.support import serving, succeed, success, task
from trio_ipc import EndpointError, EndpointPermissionError, IpcConfig, open_client, serve
from trio_ipc.daemoneye import DETECTION
from trio_ipc.transports import connect

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
