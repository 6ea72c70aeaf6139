"""However a program that measures ends, nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import psutil
import pytest
import trio

from tests.benchmarks import suite
from tests.benchmarks.scaling import run as scaling
from tests.benchmarks.scaling.curves import CONTENDERS
from tests.benchmarks.workers import ROOT
from tests.platforms import needs_proc


@attrs.frozen
class Program:
    """A program, what it says once it measures, and how many processes it has then."""

    arguments: tuple[str, ...]
    says: bytes
    workers: int


PROGRAMS = {
    "suite": Program(
        ("tests.benchmarks", "--work=a", "--contender=connection", "--rounds=99"),
        b"round 1 of 99: a connection",
        2,
    ),
    "scaling": Program(
        ("tests.benchmarks.scaling", "--quick", "--curves=pauses", "--rounds=99"),
        b"round 1 of 99: pauses 0",
        2 * len(CONTENDERS),
    ),
}


@asynccontextmanager
async def measuring(program: Program, directory: str) -> AsyncIterator[trio.Process]:
    """The program, once it measures. Its files go to a directory."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", *program.arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": directory},
    )
    assert process.stdout is not None
    said = b""
    try:
        while program.says not in said:
            piece = await process.stdout.receive_some()
            assert piece, said
            said += piece
        yield process
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            await process.stdout.aclose()


def wait_ended(processes: list[psutil.Process]) -> None:
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes):
        time.sleep(0.01)


@needs_proc
@pytest.mark.parametrize("ending", ["SIGINT", "SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("name", PROGRAMS)
async def test_however_it_ends_no_process_outlives_it(directory: str, name: str, ending: str) -> None:
    with trio.fail_after(60):
        async with measuring(PROGRAMS[name], directory) as process:
            workers = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.Signals[ending])
            status = await process.wait()
            await trio.to_thread.run_sync(wait_ended, workers, abandon_on_cancel=True)
        assert len(workers) == PROGRAMS[name].workers
        if ending != "SIGKILL":
            assert status == 1
            assert os.listdir(directory) == []


RUNS: dict[str, Callable[[Callable[[str], None]], Any]] = {
    "suite": lambda on_step: suite.Run(suite.Plan(work=["a"], contenders=["connection"]), on_step),
    "scaling": lambda on_step: scaling.Run(scaling.Plan({"pauses": (0,)}), on_step),
}


@needs_proc
@pytest.mark.parametrize("name", RUNS)
async def test_a_cancelled_run_leaves_no_process_and_no_file(
    directory: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", directory)
    before = set(psutil.Process().children())
    with trio.CancelScope() as scope:
        await RUNS[name](lambda _: scope.cancel()).go()
    assert scope.cancelled_caught
    assert set(psutil.Process().children()) <= before
    assert os.listdir(directory) == []
