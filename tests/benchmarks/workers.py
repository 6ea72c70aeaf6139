"""Processes that do what they are told, a line of JSON each way. None outlives the block of its start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import trio

ROOT: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

#: Seconds over what was asked for, until a process counts as hung.
_PATIENCE: Final = 60.0


def environment() -> dict[str, str]:
    """Return what every process is started with.

    This project runs from its source tree, where it may have no bytecode, and others as pip has installed
    them, with theirs. Here all of them have it from the second start on.
    """
    bytecode = os.path.join(ROOT, "build", "bytecode")
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": bytecode}


class ContenderError(Exception):
    """A contender's process failed; the message has what it said."""


class Task(Protocol):
    """What a process is told to do: a named tuple."""

    @property
    def seconds(self) -> float:
        """How long it is asked to take."""

    def _asdict(self) -> dict[str, Any]: ...


class Worker:
    """A process of a contender at work.

    Args:
        name: the contender's.
        label: the same for people.
        process: it reads and writes lines.
        log: the file that has what it complains of.
        patience: seconds over what was asked for, until it counts as hung.
    """

    def __init__(self, name: str, label: str, process: trio.Process, log: str, patience: float) -> None:
        self.name = name
        self.pid = process.pid
        self._label = label
        self._process = process
        self._log = log
        self._patience = patience
        self._unread = b""

    async def tell(self, job: Task) -> dict[str, Any]:
        """Have it do a job; return what it answers."""
        assert self._process.stdin is not None
        try:
            with trio.fail_after(job.seconds * 4 + self._patience):
                await self._process.stdin.send_all(json.dumps(job._asdict()).encode() + b"\n")
                return await self.answer()
        except (trio.BrokenResourceError, trio.TooSlowError) as exc:
            raise self._failed(repr(exc)) from exc

    async def answer(self) -> dict[str, Any]:
        """Read one line."""
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            received = await self._process.stdout.receive_some()
            if not received:
                raise self._failed(f"it ended with status {await self._process.wait()}")
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failed(self, what: str) -> ContenderError:
        with open(self._log, encoding="utf-8", errors="replace") as file:
            said = file.read()[-2_000:]
        return ContenderError(f"{self._label}: {what}\n{said}".rstrip())


@asynccontextmanager
async def worker(
    module: str, role: str, name: str, *arguments: str, label: str, log: str, patience: float = _PATIENCE
) -> AsyncIterator[Worker]:
    """Run a process for the length of a block: ``python -m MODULE ROLE NAME ARGUMENTS``.

    Args:
        module: as :mod:`.jobs` describes them.
        role, name, arguments: what it is, and of which contender.
        label: the contender's name for people.
        log: where what it complains of goes.
        patience: seconds over what a job asks for, until it counts as hung.
    """
    with open(log, "ab") as errors:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", module, role, name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env=environment(),
            process_group=0,  # Ctrl-C is for the program; no session of its own: see surroundings.py
        )
    try:
        yield Worker(name, label, process, log, patience)
    finally:
        with trio.CancelScope(shield=True):
            process.kill()  # does nothing to one that has ended
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    await pipe.aclose()
