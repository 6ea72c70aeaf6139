"""The example programs as two Windows processes: real records over a real pipe, and a stop by the console."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

if sys.platform != "win32":
    pytest.skip("tests/examples runs the programs on this system", allow_module_level=True)
assert sys.platform == "win32"

from tests.platforms import UNDER_WINE, fails_under_wine  # noqa: E402

DEADLINE = 60

#: Runs a program and raises in it, for each line on standard input, the signal of that number: what the C
#: runtime does when the console calls, in a thread of its own.
SIGNALLED = """
import importlib, signal, sys, threading

def listen():
    for line in sys.stdin:
        signal.raise_signal(int(line))

threading.Thread(target=listen, daemon=True).start()
module, *arguments = sys.argv[1:]
sys.exit(importlib.import_module(module + ".__main__").main(arguments))
"""


@pytest.fixture
def endpoint() -> str:
    return rf"\\.\pipe\trio-ipc-test\{uuid.uuid4().hex}"


@asynccontextmanager
async def program(*command: str, flags: int = 0) -> AsyncIterator[tuple[trio.Process, Lines]]:
    with trio.fail_after(DEADLINE):
        process = await trio.lowlevel.open_process(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            creationflags=flags,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        async with process.stdin, process.stdout:
            try:
                yield process, Lines(process.stdout)
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()


class Lines:
    def __init__(self, source: trio.abc.ReceiveStream) -> None:
        self._source = source
        self._unread = b""

    async def next(self) -> str:
        while b"\n" not in self._unread:
            data = await self._source.receive_some()
            assert data, f"it ended after {self._unread!r}"
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode().rstrip("\r")


async def outcome(*command: str) -> tuple[int, str]:
    with trio.fail_after(DEADLINE):
        done = await trio.run_process(
            [sys.executable, *command],
            stdin=b"",
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return done.returncode, done.stdout.decode()


async def test_an_agent_gets_real_records_from_a_collector(endpoint: str) -> None:
    async with program("-m", "examples.procmond", "--endpoint", endpoint) as (collector, output):
        assert await output.next() == f"listening on {endpoint}"
        status, said = await outcome("-m", "examples.agent", "--once", "--json", "--endpoint", endpoint)
        assert status == 0, said
        records = {record["pid"]: record for record in json.loads(said)["processes"]}
        assert {os.getpid(), collector.pid} <= records.keys()
        assert records[collector.pid]["ppid"] == os.getpid()
        assert endpoint in records[collector.pid]["command_line"]
        assert records[collector.pid]["memory_usage"] > 1_000_000


async def test_a_bare_name_means_the_same_pipe(endpoint: str) -> None:
    name = uuid.uuid4().hex
    async with program("-m", "examples.procmond", "--endpoint", name) as (_, output):
        assert await output.next() == rf"listening on \\.\pipe\{name}"
        status, said = await outcome("-m", "examples.agent", "--once", "--json", "--endpoint", name)
        assert status == 0, said


async def test_no_collector_is_one_line(endpoint: str) -> None:
    status, said = await outcome("-m", "examples.agent", "--once", "--endpoint", endpoint)
    assert status == 1
    (line,) = said.splitlines()
    assert line.startswith(f"agent: {endpoint}: ")
    assert "no server: the pipe does not exist" in line


async def test_a_wrong_name_is_one_line() -> None:
    status, said = await outcome("-m", "examples.procmond", "--endpoint", r"\\elsewhere\pipe\procmond")
    assert status == 1
    (line,) = said.splitlines()
    assert "a pipe of this machine" in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGBREAK])
async def test_what_the_console_sends_ends_the_collector_well(endpoint: str, number: signal.Signals) -> None:
    command = ("-c", SIGNALLED, "examples.procmond", "--endpoint", endpoint)
    async with program(*command) as (collector, output):
        assert await output.next() == f"listening on {endpoint}"
        assert collector.stdin is not None
        await collector.stdin.send_all(b"%d\n" % number)
        assert (await output.next()).startswith("procmond: served: transport=interprocess")
        assert await collector.wait() == 0


@fails_under_wine("a process without a display has no console that could send anything", versions=[8, 10])
async def test_ctrl_break_reaches_the_collector(endpoint: str) -> None:
    command = ("-m", "examples.procmond", "--endpoint", endpoint)
    async with program(*command, flags=subprocess.CREATE_NEW_PROCESS_GROUP) as (collector, output):
        assert await output.next() == f"listening on {endpoint}"
        collector.send_signal(signal.CTRL_BREAK_EVENT)
        with trio.fail_after(2 if UNDER_WINE else DEADLINE):  # there nothing comes
            assert (await output.next()).startswith("procmond: served: transport=interprocess")
            assert await collector.wait() == 0
