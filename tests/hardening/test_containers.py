"""Other roots and mounts: what is said is what is known, where a path means another file than it did."""

from __future__ import annotations

import os
import sys

import pytest
import trio

from tests.hardening.record import ROOT, Attack
from tests.hardening.system_support import may_mount
from tests.platforms import unix_only
from trio_ipc import IpcConfig

pytestmark = unix_only

needs_mounts = pytest.mark.skipif(
    not may_mount(), reason="needs root on Linux, a mount namespace, and mount(8)"
)
needs_root = pytest.mark.skipif(sys.platform != "win32" and os.geteuid() != 0, reason="takes root: chroot(2)")

START = """
import logging, os, socket, sys
import trio
from trio.testing import MockClock
from tests.support import serving, succeed, success, task
from trio_ipc import IpcConfig, IpcError, open_client, serve
from trio_ipc.daemoneye import DETECTION
import trio_ipc.channel.interprocess, trio_ipc.legacy, trio_ipc.transports.unix_listener

logging.basicConfig(level="WARNING", stream=sys.stdout, format="%(message)s")
config = IpcConfig(endpoint_path=sys.argv[1], transport=sys.argv[2])

async def call(config):
    try:
        async with open_client(DETECTION, config) as client:
            assert await client.call(task()) == success()
            print("answered")
    except IpcError as exc:
        print(type(exc).__name__, exc)
"""


async def said_by(program: str, config: IpcConfig, *before: str) -> list[str]:
    """Run a program, and return the lines that it printed or logged."""
    command = [*before, sys.executable, "-c", START + program, config.endpoint_path, str(config.transport)]
    done = await trio.run_process(command, cwd=ROOT, capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout.decode().splitlines()


FILE_MOUNTED = """
mounted = config.endpoint_path + " mounted"  # with a space, which a list of mounts writes otherwise

async def main():
    there = config.replace(endpoint_path=mounted)
    async with serving(succeed, config):
        open(mounted, "w").close()
        if os.system(f"mount --bind '{config.endpoint_path}' '{mounted}'"):
            sys.exit("cannot mount")
        await call(there)
    async with serving(succeed, config):  # it has started again
        await call(config)
        await call(there)
    try:
        await serve(succeed, DETECTION, there)
    except IpcError as exc:
        print(type(exc).__name__, exc)

trio.run(main)
"""


@needs_mounts
async def test_where_only_the_socket_file_is_mounted_it_is_said_to_mount_the_directory(
    config: IpcConfig, attack: Attack
) -> None:
    first, again, refused, start = await said_by(FILE_MOUNTED, config, "unshare", "--mount")
    assert (first, again) == ("answered", "answered")
    path = f"{config.endpoint_path} mounted"
    assert refused.startswith(f"ServerRefusedError {path}: connection refused: nobody listens at this socket")
    assert "which is mounted by itself; mount its directory instead" in refused
    assert start.startswith(f"EndpointError {path}: the socket file is mounted by itself, and so can be")
    assert "mount its directory instead" in start
    attack(
        "a server started again, to a client that has only the old socket file mounted, and a start at it",
        tried=2,
        outcome="the error says that the file is a mount, and to mount the directory",
    )


CHROOT = """
async def main():
    async with serving(succeed, config) as server:
        await trio.sleep(6)
        os.chroot(os.path.dirname(config.endpoint_path))
        await trio.sleep(60)
        print("intact" if server.snapshot().endpoint_intact else "not intact")

trio.run(main, clock=MockClock(autojump_threshold=0.01))
"""


@needs_root
async def test_after_chroot_the_server_says_that_it_sees_its_socket_no_longer(
    config: IpcConfig, attack: Attack
) -> None:
    watched, intact, left = await said_by(CHROOT, config)
    path = config.endpoint_path
    assert watched == f"{path} is watched no longer: this process has another root directory by now (chroot)"
    assert intact == "intact"
    assert left == f"{path} could not be removed: this process has another root directory by now"
    assert os.path.exists(path)
    attack(
        "a server's program changes its root directory (`chroot`) while it serves",
        tried=1,
        outcome="it goes on, and says once that it cannot see its socket any longer, not that it is removed",
    )


CLIENT_IN_CHROOT = """
async def main():
    async with serving(succeed, config):
        os.chroot(os.path.dirname(config.endpoint_path))
        await call(config)
        await call(config.replace(endpoint_path="/" + os.path.basename(config.endpoint_path)))

trio.run(main)
"""


@needs_root
async def test_a_client_after_chroot_is_told_where_it_looks(config: IpcConfig) -> None:
    lines = await said_by(CLIENT_IN_CHROOT, config)
    assert lines[0].startswith("ServerNotFoundError")
    assert "no server: the socket does not exist; start the server, or check the endpoint's path" in lines[0]
    assert lines[0].endswith("a container sees only what is mounted into it")
    assert lines[1] == "answered"
