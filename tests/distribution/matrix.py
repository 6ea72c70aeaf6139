"""``python -m tests.distribution.matrix``: a part of the suite with each protobuf, in each Python here.

The versions are those in requirements/protobuf/: the oldest that is allowed, and the newest of each major.
`make test-protobuf` runs them in one Python, `make compatibility` in all, and writes down what came of it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from .making import ROOT, TESTS_LIMIT, TOOL_LIMIT
from .pythons import interpreter
from .record import PYTHONS, RECORDED, recorded, write
from .subset import SUBSET

PINS: Final = ROOT / "requirements" / "protobuf"
_LOCK: Final = ROOT / "requirements" / "dev.txt"
_VENVS: Final = ROOT / "build" / "matrix"


def protobufs() -> list[str]:
    """Return the versions that are tried, the oldest first."""
    return sorted((pin.stem for pin in PINS.glob("*.txt")), key=lambda name: [*map(int, name.split("."))])


@attrs.frozen
class Cell:
    """What came of the tests with one Python and one protobuf.

    Attributes:
        python: the interpreter's own version.
        protobuf: that of the library.
        passed, failed: how many tests did.
    """

    python: str
    protobuf: str
    passed: int
    failed: int


def environment(program: str, version: str) -> Path:
    """Return the Python of an environment with the lock and the tree in it, made if it is not there."""
    folder = _VENVS / version
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    made = folder / ".made"
    if not made.exists() or made.stat().st_mtime < _LOCK.stat().st_mtime:
        subprocess.run([program, "-m", "venv", "--clear", str(folder)], timeout=TOOL_LIMIT, check=True)
        pip(python, "--require-hashes", "-r", str(_LOCK))
        pip(python, "--no-deps", "--no-build-isolation", "-e", str(ROOT))
        made.touch()
    return python


def pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, timeout=TOOL_LIMIT, check=True)


def counted(summary: str) -> tuple[int, int]:
    """Return how many tests passed and failed, as the last line of pytest says."""
    last = summary.strip().splitlines()[-1] if summary.strip() else ""
    passed, wrong = re.search(r"(\d+) passed", last), re.findall(r"(\d+) (?:failed|errors?)", last)
    return int(passed[1]) if passed else 0, sum(map(int, wrong))


def run(python: Path, version: str, protobuf: str) -> Cell:
    """Run the part of the suite with this protobuf, and show what does not pass."""
    pip(
        python, "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(PINS / f"{protobuf}.txt")
    )
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", *SUBSET]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TRIO_IPC_")}
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=TESTS_LIMIT, check=False
    )
    passed, failed = counted(done.stdout)
    if done.returncode != 0:
        print(done.stdout, done.stderr, sep="\n", flush=True)
        failed = failed or 1
    return Cell(version, protobuf, passed, failed)


def merged(before: Sequence[dict[str, Any]], cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return what was found before with these cells in it, less those no longer tried."""
    order = protobufs()
    found = {(run["python"], run["protobuf"]): run for run in [*before, *map(attrs.asdict, cells)]}
    kept = [run for run in found.values() if run["protobuf"] in order]
    return sorted(kept, key=lambda run: (order.index(run["protobuf"]), run["python"]))


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.distribution.matrix")
    parser.add_argument("--python", action="append", help="such as 3.12; all that are here without")
    parser.add_argument("--protobuf", action="append", help="one of requirements/protobuf/; all without")
    parser.add_argument("--record", action="store_true", help=f"write {RECORDED.name}, for the page")
    asked = parser.parse_args(arguments)
    cells = []
    for version in asked.python or PYTHONS:
        found = interpreter(version)
        if found is None:
            print(f"Python {version}: not on this machine", flush=True)
            continue
        program, full = found
        python = environment(program, version)
        for protobuf in asked.protobuf or protobufs():
            cell = run(python, full, protobuf)
            said = f"{cell.passed} passed, {cell.failed} failed"
            print(f"Python {full}, protobuf {protobuf}: {said}", flush=True)
            cells.append(cell)
            if asked.record:
                write("runs", merged(recorded().get("runs", []), cells))
    return 1 if not cells or any(cell.failed for cell in cells) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
