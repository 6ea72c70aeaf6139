"""``make loaded``: the tests again and again, while a process on each core does nothing but count.

    make loaded ARGS="--times 3 tests/server -k deadline"

A test that counts on its own speed fails here, now and then: it is a bug of the test, or of the code. Each
run has a line, and what it printed is in ``build/loaded``. Exit status 1 says that a run failed. What is no
option of this program is pytest's.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from tests.benchmarks.surroundings import Surroundings, cores, surrounded

ROOT: Final = Path(__file__).parents[1]

#: The last line of pytest's output, without its decoration and the time.
_SUM: Final = re.compile(r"^=*\s*(\d+ \w.*?|no tests ran) in ")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        # An option of pytest's, such as --log-level, is no short form of one of these.
        prog="python -m tests.loaded",
        description="Run the tests under load.",
        allow_abbrev=False,
    )
    parser.add_argument("--times", type=int, default=10, metavar="N", help="how often (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="workers (default: %(default)s)")
    parser.add_argument(
        "--logs", type=Path, default=ROOT / "build" / "loaded", metavar="DIR", help="where outputs go"
    )
    options, for_pytest = parser.parse_known_args(arguments)
    if options.times < 1 or options.jobs < 0:
        parser.error("--times must be at least 1, and --jobs at least 0")
    try:
        cores()
    except ValueError as exc:
        parser.error(str(exc))
    status = 128 + signal.SIGINT
    try:
        status = trio.run(_repeat, options, for_pytest)
    except* KeyboardInterrupt:
        print("interrupted")
    return status


async def _repeat(options: argparse.Namespace, for_pytest: list[str]) -> int:
    options.logs.mkdir(parents=True, exist_ok=True)
    failed = 0
    async with surrounded(Surroundings.BUSY):
        for number in range(1, options.times + 1):
            log, began = options.logs / f"run-{number}.log", time.monotonic()
            status = await _run(["-n", str(options.jobs), *for_pytest], log)
            took = time.monotonic() - began
            print(f"run {number} of {options.times}: {_sum(log)}, {took:.0f} s", flush=True)
            if status != 0:
                failed += 1
                print(f"    pytest ended with {status}: {log}", *_failures(log), sep="\n    ", flush=True)
    print(f"{failed or 'none'} of {options.times} failed")
    return 1 if failed else 0


async def _run(options: list[str], log: Path) -> int:
    with log.open("wb") as output:
        run = await trio.run_process(
            [sys.executable, "-m", "pytest", *options],
            cwd=ROOT,
            check=False,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return run.returncode


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()


def _sum(log: Path) -> str:
    found = [match[1] for line in _lines(log) if (match := _SUM.match(line))]
    return found[-1] if found else "pytest gave no sum"


def _failures(log: Path) -> list[str]:
    return [line for line in _lines(log) if line.startswith(("FAILED ", "ERROR "))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
