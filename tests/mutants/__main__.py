"""``make mutants``: change the code in one place after another, and see whether a test fails.

    make mutants ARGS="--module trio_ipc.wire --sample 40 --seed 7"

Each mutant is put into a copy of the tree, in which the tests of its room run up to the first that fails.
What no test notices has survived: it is a hole in the tests, unless it changes nothing that anybody could
see. What was found to be of that kind is in ``judged.toml``, with the reason. Exit status 1 says that some
have survived.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NoReturn

import attrs

from .mutate import Mutant, mutants_of, names_of
from .rooms import paths_for

ROOT: Final = Path(__file__).parents[2]
JUDGED: Final = Path(__file__).with_name("judged.toml")

#: What a copy needs. All else is made, or of no use to the tests of a room.
_COPIED: Final = ("trio_ipc", "tests", "examples", "pytest_trio_ipc.py", "pyproject.toml")

#: A mutant hangs that takes so many times as long as the tests do without it, and so many seconds more.
_TIMES: Final = 3.0
_SECONDS: Final = 15.0

_PYTEST: Final = ("-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", "--hypothesis-seed=0")


@attrs.frozen
class Place:
    """A mutant of a file, relative to the root of the tree."""

    file: Path
    name: str
    mutant: Mutant

    def __str__(self) -> str:
        return f"{self.file.as_posix()}:{self.mutant.line} {self.name}"


class Copy:
    """A copy of the tree, in which one file is wrong at a time.

    Args:
        root: the tree.
        directory: where the copy is made.
        tests: what runs in it, as arguments of pytest.
    """

    def __init__(self, root: Path, directory: Path, tests: Sequence[str]) -> None:
        self.directory = directory
        self._command = [sys.executable, *_PYTEST, *tests]
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for name in _COPIED:
            source = root / name
            if source.is_dir():
                shutil.copytree(source, directory / name, ignore=ignored)
            elif source.exists():
                shutil.copy(source, directory / name)

    def run(self, limit: float | None = None) -> tuple[int | None, str]:
        """Run the tests; return the exit status, None if they hang, and what they said."""
        # Before what is installed, also for the programs that the tests start.
        environment = {**os.environ, "PYTHONPATH": str(self.directory)}
        with subprocess.Popen(
            self._command,
            cwd=self.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                said, _ = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                return None, ""
            finally:
                _end_all_of(process)
        return process.returncode, said

    def try_out(self, place: Place, limit: float) -> str | None:
        """Put a mutant into its place, run the tests, and take it out; return what noticed it."""
        file = self.directory / place.file
        right = file.read_bytes()
        try:
            self._write(file, place.mutant.source.encode())
            status, said = self.run(limit)
        finally:
            self._write(file, right)
        if status is None:
            return f"hangs for {limit:.0f} s"
        if status == 0:
            return None
        failed = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return failed[0].partition(" - ")[0] if failed else f"exit status {status}"

    @staticmethod
    def _write(file: Path, content: bytes) -> None:
        # Python takes compiled code for the code's by time and size, and both may be the same.
        for compiled in file.parent.glob(f"__pycache__/{file.stem}.*"):
            compiled.unlink()
        file.write_bytes(content)


def _end_all_of(process: subprocess.Popen[str]) -> None:
    """End the tests, and whatever they have started and left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def files_of(root: Path, module: str) -> list[Path]:
    """Return the files of a module, or of all modules of a package, relative to the root."""
    path = root.joinpath(*module.split("."))
    found = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return [file.relative_to(root) for file in found if not file.stem.endswith("_pb2")]


def places_in(root: Path, module: str) -> Iterator[Place]:
    """Return all mutants of a module."""
    for file in files_of(root, module):
        mutants = mutants_of((root / file).read_text(encoding="utf-8"))
        for mutant, name in zip(mutants, names_of(mutants), strict=True):
            yield Place(file, name, mutant)


def judged() -> dict[tuple[str, str], str]:
    """Return the reasons why mutants are none, by file and name."""
    known = tomllib.loads(JUDGED.read_text(encoding="utf-8"))
    return {(one["file"], one["name"]): one["reason"] for one in known.get("mutant", ())}


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Try some or all mutants of a module, and tell which have survived."""
    parser = argparse.ArgumentParser(
        prog="make mutants",
        description="Change the code in one place after another; see whether a test fails.",
    )
    parser.add_argument("--module", required=True, help="dotted name of a module or package: trio_ipc.wire")
    parser.add_argument("--sample", type=int, metavar="N", help="only so many of them, at random")
    parser.add_argument("--seed", type=int, help="of that chance, to have the same ones again")
    parser.add_argument("--match", default="", help="only those whose name has this text")
    parser.add_argument("--tests", nargs="+", help="paths for pytest (default: the tests of the room)")
    parser.add_argument("--list", action="store_true", help="show them, and run nothing")
    options = parser.parse_args(arguments)
    if not all((root / file).is_file() for file in files_of(root, options.module)):
        parser.error(f"--module is {options.module}, and there is no such module")
    try:
        tests = options.tests or paths_for(options.module, root)
    except KeyError:
        parser.error(f"no tests are known for {options.module}: say which by --tests")
    if sys.platform == "win32":
        print("nothing was tried: it ends what hangs by Unix's groups of processes")
        return 0
    reasons = judged()
    places = [place for place in places_in(root, options.module) if options.match in str(place)]
    left_out = [place for place in places if (place.file.as_posix(), place.name) in reasons]
    places = [place for place in places if place not in left_out]
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    if options.sample is not None and options.sample < len(places):
        places = sorted(random.Random(seed).sample(places, options.sample), key=str)
        print(f"seed {seed}")
    if options.list:
        print(*places, sep="\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        survived = _try_all(places, Copy(root, Path(directory), tests))
    if survived is None:
        return 2
    for place in survived:
        print(f"survived: {place}")
    killed = len(places) - len(survived)
    share = f", {killed / len(places):.0%}" if places else ""
    print(f"{killed} of {len(places)} killed{share}; {len(left_out)} judged to change nothing")
    return 1 if survived else 0


def _try_all(places: Sequence[Place], copy: Copy) -> list[Place] | None:
    """Return who has survived; None where the tests fail by themselves."""
    copy.run()  # compiles, so that the next one takes as long as those to come
    began = time.monotonic()
    status, said = copy.run()
    if status != 0:
        print(said)
        print("the tests fail as they are, so that nothing can be said")
        return None
    limit = _TIMES * (time.monotonic() - began) + _SECONDS
    survived = []
    for number, place in enumerate(places, 1):
        noticed = copy.try_out(place, limit)
        if noticed is None:
            survived.append(place)
        print(f"{number}/{len(places)} {place}: {noticed or 'SURVIVED'}", flush=True)
    return survived


def _be_ended(*_: object) -> NoReturn:
    """Leave by the way out that ends the tests and removes the copy, when somebody asks this run to end."""
    sys.exit("make mutants: ended by a signal")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _be_ended)
    sys.exit(main())
