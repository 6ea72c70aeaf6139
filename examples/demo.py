"""`make demo`: a collector and an agent, as real processes, on this machine's real processes.

In a private temporary directory and for a few seconds. It must leave nothing behind however it ends, and
never wait for anything but an event: a line that a program prints, a response, or an exit.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import trio

from trio_ipc import (
    IpcConfig,
    IpcError,
    ServerNotFoundError,
    open_client,
    run_program,
    standard_output,
    until_stopped,
)
from trio_ipc.daemoneye import DETECTION, DetectionTask, HashCheck, TaskType

from .common import complain
from .host import IN_ITS_OWN_GROUP, ask_to_end, private_endpoint

PROGRAM = "demo"

#: What the programs stand in: `examples` in the tree, `trio_ipc.examples` where the wheel was installed.
_PACKAGE: Final = __package__
#: The folder in which Python finds it.
_ROOT: Final = Path(__file__).resolve().parents[_PACKAGE.count(".") + 1]
_OWN_EXECUTABLE: Final = os.path.abspath(sys.executable)
_TIME_LIMIT: Final = 12.0
_AGENT_OPTIONS: Final = ("--interval", "0.3", "--limit", "15")
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")


class DemoFailed(Exception):  # noqa: N818 - it is what it says
    """A step did not turn out as it should."""


class Demo:
    """The steps, and which of them is being done."""

    def __init__(self) -> None:
        self.step = "setting up"
        self._endpoint = ""

    async def run(self) -> None:
        """Do all of it, in a directory that is deleted however it ends.

        Raises:
            DemoFailed, IpcError, OSError, trio.TooSlowError: `step` did not work.
        """
        with tempfile.TemporaryDirectory(prefix="trio-ipc-") as directory:
            self._endpoint = private_endpoint(directory)
            await self._take_steps()

    async def _take_steps(self) -> None:
        with trio.fail_after(_TIME_LIMIT):
            self._begin("start a collector")
            async with self._program(f"{_PACKAGE}.procmond") as procmond:
                await procmond.line_with("listening")
                async with self._program(f"{_PACKAGE}.agent", *_AGENT_OPTIONS) as agent:
                    self._begin("let an agent show the processes, the largest first")
                    await agent.line_with("processes")
                    self._begin("verify this Python's own executable through the collector")
                    await self._verify_hash(_OWN_EXECUTABLE)
                    self._begin("start and end a process, and see the agent notice")
                    await self._cause_changes(agent)
                    self._begin("stop the agent")
                    await agent.stop()
                self._begin("stop the collector")
                await procmond.stop()
                await self._expect_no_endpoint()

    async def _expect_no_endpoint(self) -> None:
        with contextlib.suppress(ServerNotFoundError):
            async with open_client(DETECTION, IpcConfig.load(endpoint_path=self._endpoint)):
                pass
            raise DemoFailed(f"the collector still answers at {self._endpoint}")

    def _begin(self, step: str) -> None:
        self.step = step
        show(f"\n--- {step}")

    @contextlib.asynccontextmanager
    async def _program(self, module: str, *options: str) -> AsyncIterator[Program]:
        command = [sys.executable, "-m", module, "--endpoint", self._endpoint, *options]
        async with running(command) as process:
            yield Program(module, process)

    async def _verify_hash(self, path: str) -> None:
        expected = await trio.to_thread.run_sync(_sha256, path)
        task = _hash_check(path, expected)
        async with open_client(DETECTION, IpcConfig.load(endpoint_path=self._endpoint)) as client:
            result = await client.call(task)
        found = result.hash_result
        if not result.success or not found.success:
            raise DemoFailed(result.error_message or found.error_message)
        show(f"{found.algorithm} of {found.file_path} is {found.hash_value}, as computed here")

    @staticmethod
    async def _cause_changes(agent: Program) -> None:
        async with running([sys.executable, "-c", "input()"]) as child:
            await agent.line_with("appeared", str(child.pid))
            assert child.stdin is not None  # noqa: S101 - running() made the pipe
            await child.stdin.aclose()
            await child.wait()
            await agent.line_with("vanished", str(child.pid))


def show(text: str) -> None:
    """Print a line of the demo's own."""
    with standard_output() as file:
        print(text, file=file, flush=True)


class Program:
    """One of the example programs at work. What it prints is shown as soon as somebody waits for it."""

    def __init__(self, name: str, process: trio.Process) -> None:
        self._name = name
        self._process = process
        self._unread = bytearray()

    async def line_with(self, *words: str) -> None:
        """Wait until it prints a line with all these words."""
        async for line in self._lines():
            if set(words) <= set(_COLOURS.sub("", line).split()):
                return
        raise DemoFailed(f"{self._name} ended with status {await self._process.wait()}")

    async def stop(self) -> None:
        """Ask it to end, as a service manager would, and see that it does so well."""
        ask_to_end(self._process)
        async for _ in self._lines():
            pass
        status = await self._process.wait()
        show(f"{self._name} ended with status {status}")
        if status != 0:
            raise DemoFailed(f"{self._name} should have ended with status 0")

    async def _lines(self) -> AsyncIterator[str]:
        assert self._process.stdout is not None  # noqa: S101 - running() made the pipe
        seen = 0
        while True:
            end = self._unread.find(b"\n", seen)
            if end >= 0:
                text = self._unread[:end].decode("utf-8", "replace")
                del self._unread[: end + 1]
                seen = 0
                show(f"  {text}")
                yield text
            elif received := await self._process.stdout.receive_some():
                seen = len(self._unread)
                self._unread += received
            else:
                return


@contextlib.asynccontextmanager
async def running(command: Sequence[str]) -> AsyncIterator[trio.Process]:
    """Run a program for the length of a block. It is dead and reaped when the block is left."""
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=_ROOT,
        env=_environment(),
        **IN_ITS_OWN_GROUP,
    )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            process.kill()  # does nothing to one that has ended
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    await pipe.aclose()


def _environment() -> dict[str, str]:
    """Let the programs write to their pipes as they would to our terminal, if we have one."""
    environment = {**os.environ, "PYTHONUTF8": "1"}
    if sys.stdout.isatty():
        environment |= {"FORCE_COLOR": "1", "COLUMNS": str(shutil.get_terminal_size().columns - 2)}
    return environment


def _hash_check(path: str, expected: str) -> DetectionTask:
    return DetectionTask(
        task_id=str(uuid.uuid4()),
        task_type=TaskType.CHECK_PROCESS_HASH,
        hash_check=HashCheck(executable_path=path, hash_algorithm="sha256", expected_hash=expected),
    )


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def run_until_signal(demo: Demo) -> bool:
    """Run the demo; return whether it came to its end before a signal did."""
    async with until_stopped() as scope:
        await demo.run()
    return not scope.cancelled_caught


def main() -> int:
    """Run the demo; return its exit status."""
    return run_program(_main, name=PROGRAM)


def _main() -> int:
    status, demo = 1, Demo()
    try:
        if trio.run(run_until_signal, demo):
            show("\nall steps worked, and nothing is left behind")
            status = 0
        else:
            complain(PROGRAM, f"interrupted at: {demo.step}")
    except trio.TooSlowError:
        complain(PROGRAM, f"failed at: {demo.step}: it took more than {_TIME_LIMIT:.0f} s")
    except (DemoFailed, IpcError, OSError) as exc:
        complain(PROGRAM, f"failed at: {demo.step}: {exc}")
    return status


if __name__ == "__main__":
    sys.exit(main())
