"""What the tests of the operating system share: programs of their own, and whether one may mount."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from subprocess import PIPE

import trio

from tests.hardening.record import ROOT
from trio_ipc import IpcConfig

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


def may_mount() -> bool:
    """Whether this process may have a mount namespace of its own, and mount there."""
    if sys.platform != "linux" or os.geteuid():
        return False
    mounting = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(mounting, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
