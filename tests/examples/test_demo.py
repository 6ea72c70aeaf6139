"""The demonstration: it works, says what failed if it does not, and leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from tests.platforms import fails_under_wine
from trio_ipc.transports.host import STOP_SIGNALS

from .support import example, spawn

#: With far more time than it gives itself: each of its programs may take seconds to start.
DEMO = [*example("demo")[:-1], "tests.examples.patient_demo"]


def left_behind(directory: Path) -> list[str]:
    """Return the files in the demo's temporary directory, and the processes that know of it."""
    processes = []
    for process in psutil.process_iter():
        try:
            if str(directory) in " ".join(process.cmdline()):
                processes.append(str(process))
        except psutil.Error:
            continue
    return os.listdir(directory) + processes


@fails_under_wine("a process without a display has no console to stop programs by", versions=[8, 10])
async def test_the_demo_shows_everything_and_leaves_nothing_behind(short_dir: Path) -> None:
    async with spawn(*DEMO, environ={"TMPDIR": str(short_dir)}) as demo:
        assert await demo.end() == 0
        output = "\n".join(demo.stdout.seen)
        for shown in ("Executable", "sha256 of ", "+ appeared", "- vanished"):
            assert shown in output
        assert output.count("transport=interprocess") == 2
        assert demo.stderr.seen == []
    assert left_behind(short_dir) == []


@pytest.mark.parametrize("number", STOP_SIGNALS)
@pytest.mark.parametrize("moment", ["listening", "appeared"])
async def test_an_interrupted_demo_leaves_nothing_behind(short_dir: Path, number: int, moment: str) -> None:
    async with spawn(*DEMO, moment, environ={"TMPDIR": str(short_dir)}) as demo:
        await demo.stdout.until(lambda line: moment in line)
        await demo.signal(number)
        assert await demo.end() == 1
        (line,) = demo.stderr.seen
        assert line.startswith("demo: interrupted at: ")
    assert left_behind(short_dir) == []


async def test_a_step_that_fails_is_named(short_dir: Path) -> None:
    environ = {"TMPDIR": str(short_dir), "TRIO_IPC_TRANSPORT": "pigeon"}
    async with spawn(*example("demo"), environ=environ) as demo:
        assert await demo.end() == 1
        (line,) = demo.stderr.seen
        assert line == "demo: failed at: start a collector: examples.procmond ended with status 1"
        assert any("transport is 'pigeon'" in line for line in demo.stdout.seen)
    assert left_behind(short_dir) == []


async def test_a_reader_that_has_seen_enough_leaves_nothing_behind(short_dir: Path) -> None:
    async with spawn(*DEMO, environ={"TMPDIR": str(short_dir)}) as demo:
        await demo.stdout.next()
        await demo.stdout.close()
        assert await demo.stderr.rest() == []
        await demo.process.wait()
    assert left_behind(short_dir) == []
