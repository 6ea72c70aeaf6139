"""Which Python `make` takes, where the one that was asked for is a shim that does nothing, or not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.distribution.making import ROOT
from tests.platforms import unix_only

pytestmark = unix_only

SHIM = """#!/bin/sh
echo "pyenv: ${0##*/}: command not found" >&2
exit 127
"""


@pytest.fixture
def shims(tmp_path: Path) -> Path:
    """A directory with shims of pyenv's, for which no version was chosen."""
    folder = tmp_path / "shims"
    folder.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        write(folder / name, SHIM)
    return folder


def write(program: Path, text: str) -> None:
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(text, encoding="utf-8")
    program.chmod(0o755)


def ask(asked: str, tmp_path: Path, *, pyenv: bool = True) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": f"{tmp_path / 'shims'}:/usr/bin:/bin"}
    if pyenv:
        environ["PYENV_ROOT"] = str(tmp_path / "pyenv")
    script = str(ROOT / "tests" / "distribution" / "interpreter.sh")
    return subprocess.run(
        [script, asked], env=environ, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_python_that_works_is_taken_as_it_was_asked_for(tmp_path: Path) -> None:
    done = ask(sys.executable, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{sys.executable}\n", "")


def test_who_has_no_home_needs_none(tmp_path: Path) -> None:
    done = ask(sys.executable, tmp_path, pyenv=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{sys.executable}\n", "")


@pytest.mark.usefixtures("shims")
def test_in_place_of_a_shim_that_does_nothing_what_pyenv_has_is_taken(tmp_path: Path) -> None:
    broken = tmp_path / "pyenv" / "versions" / "3.12.0" / "bin" / "python3.12"
    works = tmp_path / "pyenv" / "versions" / "3.12.1" / "bin" / "python3.12"
    write(broken, SHIM)
    write(works, f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    done = ask("python3.12", tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{works}\n")
    assert done.stderr == f"python3.12 cannot be used here, and pyenv has it: {works} is taken\n"


@pytest.mark.usefixtures("shims")
def test_where_there_is_none_it_is_said_why_and_which_can(tmp_path: Path) -> None:
    works = tmp_path / "pyenv" / "versions" / "3.12.1" / "bin" / "python3"
    write(works, f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    done = ask("python3.14", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "PYTHON=python3.14 cannot be used: pyenv: python3.14: command not found\n"
        f"of those on this machine, these can: {works}\n"
    )


@pytest.mark.usefixtures("shims")
@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("it is Python 3.9, and 3.11 or later is needed", "it is Python 3.9, and 3.11 or later is needed"),
        ("", "it ended by status 1"),
    ],
)
def test_what_the_python_itself_says_is_told(tmp_path: Path, says: str, told: str) -> None:
    write(tmp_path / "own" / "python3", f"#!/bin/sh\necho '{says}' >&2\nexit 1\n")
    done = ask(str(tmp_path / "own" / "python3"), tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0].endswith(f"cannot be used: {told}")
    assert done.stderr.splitlines()[1] == "of those on this machine, these can: none"
