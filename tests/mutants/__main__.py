"""``make mutants``: change the code in one place after another, and see whether a test fails.

    make mutants ARGS="--module trio_ipc.wire --sample 40 --seed 7"

Each mutant is put into a copy of the tree, in which the tests of its package run up to the first that fails,
those that are nearest to it before the others. What no test notices has survived: it is a hole in the tests,
unless it changes nothing that anybody could see. What was found to be of that kind is in ``judged.toml``,
with the reason. Exit status 1 says that some have survived.
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

from tests.test_signatures import MODULES

from .mutate import Mutant, mutants_of, names_of
from .packages import nearest_first, paths_for

ROOT: Final = Path(__file__).parents[2]
JUDGED: Final = Path(__file__).with_name("judged.toml")

#: What users call, whose signatures have a test.
PUBLIC: Final = {name for module in MODULES for name in module.__all__}

#: What a copy needs: code, tests, and the pages that they read. All else is made, or of no use to tests.
_COPIED: Final = ("trio_ipc", "tests", "examples", "pytest_trio_ipc", "docs", "pyproject.toml")

#: A mutant hangs that takes so many times as long as the tests do without it, and so many seconds more.
_TIMES: Final = 3.0
_SECONDS: Final = 15.0

#: Seconds for one test, many times what any takes. It is not waited longer for one that hangs.
_SECONDS_OF_A_TEST: Final = 45

_PYTEST: Final = (
    *("-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", "--hypothesis-seed=0"),
    *("-o", f"faulthandler_timeout={_SECONDS_OF_A_TEST}", "-o", "faulthandler_exit_on_timeout=true"),
)


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
    """

    def __init__(self, root: Path, directory: Path) -> None:
        self.directory = directory
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for name in _COPIED:
            source = root / name
            if source.is_dir():
                shutil.copytree(source, directory / name, ignore=ignored)
            elif source.exists():
                shutil.copy(source, directory / name)

    def run(self, tests: Sequence[str], limit: float | None = None) -> tuple[int | None, str]:
        """Run tests; return the exit status, None if they hang, and what they said."""
        # Before what is installed, also for the programs that the tests start.
        environment = {**os.environ, "PYTHONPATH": str(self.directory)}
        with subprocess.Popen(
            [sys.executable, *_PYTEST, *tests],
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

    def try_out(self, place: Place, tests: Sequence[str], limit: float) -> str | None:
        """Put a mutant into its place, run the tests, and take it out; return what noticed it."""
        file = self.directory / place.file
        right = file.read_bytes()
        try:
            self._write(file, place.mutant.source.encode())
            nearest = nearest_first(tests, self.directory, place.file, place.mutant.scope)
            status, said = self.run(nearest, limit)
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
        found = mutants_of((root / file).read_text(encoding="utf-8"))
        mutants = [mutant for mutant in found if not _is_nobodys(mutant)]
        for mutant, name in zip(mutants, names_of(mutants), strict=True):
            yield Place(file, name, mutant)


def _is_nobodys(mutant: Mutant) -> bool:
    """Whether it lets only this package give an argument by its place, which nobody could see."""
    scopes = mutant.scope.split(".")
    is_private = any(name.startswith("_") and name != "__init__" for name in scopes)
    return mutant.before == "*," and (is_private or scopes[0] not in PUBLIC)


def judged() -> dict[tuple[str, str], str]:
    """Return the reasons why mutants are none, by file and name."""
    known = tomllib.loads(JUDGED.read_text(encoding="utf-8"))
    return {(one["file"], one["name"]): one["reason"] for one in known.get("mutant", ())}


@attrs.frozen
class Package:
    """What is tried of a module or package.

    Attributes:
        module: its dotted name.
        tests: paths for pytest.
        places: its mutants, all of them or a sample.
        left_out: how many were judged to change nothing.
    """

    module: str
    tests: tuple[str, ...]
    places: list[Place]
    left_out: int


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Try some or all mutants of modules, and tell which have survived."""
    parser = argparse.ArgumentParser(
        prog="make mutants",
        description="Change the code in one place after another; see whether a test fails.",
    )
    parser.add_argument(
        "--module", required=True, nargs="+", help="dotted names of modules or packages: trio_ipc.wire"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="only so many of each, at random")
    parser.add_argument("--seed", type=int, help="of the random generator, to have the same ones again")
    parser.add_argument("--match", default="", help="only those whose name has this text")
    parser.add_argument("--tests", nargs="+", help="paths for pytest (default: the tests of the package)")
    parser.add_argument("--list", action="store_true", help="show them, and run nothing")
    options = parser.parse_args(arguments)
    for module in options.module:
        if not all((root / file).is_file() for file in files_of(root, module)):
            parser.error(f"--module is {module}, and there is no such module")
    if sys.platform == "win32":
        print("nothing was tried: it ends what hangs by Unix's groups of processes")
        return 0
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    try:
        packages = [_package(module, options, seed, root) for module in options.module]
    except KeyError as exc:
        parser.error(f"no tests are known for {exc.args[0]}: say which by --tests")
    if options.sample is not None:
        print(f"seed {seed}")
    if options.list:
        print(*(place for package in packages for place in package.places), sep="\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        copy = Copy(root, Path(directory))
        return max([_try_all(package, copy) for package in packages])


def _package(module: str, options: argparse.Namespace, seed: int, root: Path) -> Package:
    tests = options.tests or paths_for(module, root)
    reasons = judged()
    found = [place for place in places_in(root, module) if options.match in str(place)]
    places = [place for place in found if (place.file.as_posix(), place.name) not in reasons]
    left_out = len(found) - len(places)
    if options.sample is not None and options.sample < len(places):
        places = sorted(random.Random(seed).sample(places, options.sample), key=str)
    return Package(module, tuple(tests), places, left_out)


def _try_all(package: Package, copy: Copy) -> int:
    """Tell who has survived; return the exit status, 2 where the tests fail by themselves."""
    began = time.monotonic()
    status, said = copy.run(package.tests)
    if status != 0:
        print(said)
        print(f"{package.module}: the tests fail as they are, so that nothing can be said")
        return 2
    limit = _TIMES * (time.monotonic() - began) + _SECONDS
    survived = []
    for number, place in enumerate(package.places, 1):
        noticed = copy.try_out(place, package.tests, limit)
        if noticed is None:
            survived.append(place)
        print(f"{number}/{len(package.places)} {place}: {noticed or 'SURVIVED'}", flush=True)
    for place in survived:
        print(f"survived: {place}")
    killed = len(package.places) - len(survived)
    share = f", {killed / len(package.places):.0%}" if package.places else ""
    share += f"; {package.left_out} judged to change nothing"
    print(f"{package.module}: {killed} of {len(package.places)} killed{share}", flush=True)
    return 1 if survived else 0


def _be_ended(*_: object) -> NoReturn:
    """Leave by the way out that ends the tests and removes the copy, when somebody asks this run to end."""
    sys.exit("make mutants: ended by a signal")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _be_ended)
    sys.exit(main())
