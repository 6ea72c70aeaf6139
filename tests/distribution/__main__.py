"""``make dist``: build the wheel and the sdist, look at them, and use them where there is nothing else.

    python -m tests.distribution --development PYTHON [--repository ADDRESS] [--contact ADDRESS]
        [--python PYTHON]

Both end up in dist/. Without the addresses they are complete but for what an index of packages shows of the
project: its links, and whom to write to.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

from .checks import NotFit, check_by_tools, check_contents
from .making import ROOT, TESTS_LIMIT, TOOL_LIMIT, build, copy_of_the_tree, give_addresses
from .subset import SUBSET
from .using import DidNotRun, Environment

DIST = ROOT / "dist"


def oldest_protobuf() -> str:
    """Return the oldest version that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [needed] = [needed for needed in project["dependencies"] if needed.startswith("protobuf")]
    return str(needed.partition(">=")[2].partition(",")[0])


def check_sdist(sdist: Path, scratch: Path, development: str) -> None:
    """Unpack the sdist, see that it has every test, and run some of them there by a Python that can."""
    with tarfile.open(sdist) as packed:
        packed.extractall(scratch, filter="data")
    [tree] = scratch.iterdir()
    here, there = (_collected(folder, development) for folder in (ROOT, tree))
    if here != there:
        raise NotFit(f"the sdist has not the tests of the tree: {sorted(here ^ there)[:5]}")
    say(f"the sdist has all {len(here):,} tests that the tree has; a part of them, run there:")
    command = [development, "-m", "pytest", "-q", *SUBSET[:5]]
    subprocess.run(command, cwd=tree, timeout=TESTS_LIMIT, check=True)


def _collected(folder: Path, development: str) -> set[str]:
    command = [development, "-m", "pytest", "--collect-only", "-q"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TOOL_LIMIT, check=True)
    # Without its parameters, which may be random.
    return {line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line}


def use(wheel: Path, python: str) -> None:
    """Install the wheel into empty environments and use it, with the oldest and the newest protobuf."""
    for wanted in (f"protobuf=={oldest_protobuf()}", "protobuf"):
        with tempfile.TemporaryDirectory(prefix="trio-ipc-dist-") as scratch:
            environment = Environment.make(python, Path(scratch), wheel, wanted)
            version = environment.version("protobuf")
            done = environment.check()
            say(f"installed with protobuf {version}, outside of the tree, ran: {', '.join(done)}")


def say(line: str) -> None:
    """Print a line before what a program prints next."""
    print(f"make dist: {line}", flush=True)


def main(arguments: list[str]) -> int:
    """Do all of it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.distribution", description=__doc__)
    parser.add_argument("--repository", help="address of the repository's page, for the links")
    parser.add_argument("--contact", help="the maintainers' e-mail address")
    parser.add_argument("--development", required=True, help="a Python that has what the tests need")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the empty environments")
    asked = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="trio-ipc-dist-") as scratch:
            tree = copy_of_the_tree(Path(scratch))
            give_addresses(tree, asked.repository, asked.contact)
            wheel, sdist = build(tree, DIST)
            check_contents(tree, wheel, sdist)
            missing = check_by_tools(wheel, sdist)
        say(f"{wheel.name} and {sdist.name} are complete" + (f", without {missing}" if missing else ""))
        with tempfile.TemporaryDirectory(prefix="trio-ipc-dist-") as scratch:
            check_sdist(sdist, Path(scratch), os.path.abspath(asked.development))
        use(wheel, asked.python)
    except (NotFit, DidNotRun) as exc:
        print(f"make dist: {exc}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as exc:
        print(f"make dist: '{' '.join(exc.cmd[1:4])}' ended with {exc.returncode}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
