"""What is looked at in a wheel and an sdist before anybody gets them."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .making import ROOT, TOOL_LIMIT

#: Packages of the wheel, and the folder of the tree that each is made from.
_PACKAGES: Final = {
    "trio_ipc": "trio_ipc",
    "trio_ipc/examples": "examples",
    "pytest_trio_ipc": "pytest_trio_ipc",
}

#: Tests of pyroma, with the field of the metadata that each wants and what that is.
_UNTOLD: Final = {
    "Url": ("Project-URL", "links"),
    "AuthorEmail": ("Author-email", "an address to write to"),
}


class NotFit(Exception):  # noqa: N818 - it is what it says
    """Something is wrong with what was built; the message has what."""


def _files(folder: Path) -> Iterable[Path]:
    return (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def missing_in_wheel(tree: Path, names: Iterable[str]) -> set[str]:
    """Return which files of the packages a wheel of these names lacks."""
    wanted = {
        f"{package}/{file.relative_to(tree / folder).as_posix()}"
        for package, folder in _PACKAGES.items()
        for file in _files(tree / folder)
    }
    return wanted - set(names)


def missing_in_sdist(tree: Path, names: Iterable[str]) -> set[str]:
    """Return which files of the tree an sdist of these names lacks; they begin with its folder's name."""
    inside = {name.partition("/")[2] for name in names}
    return {file.relative_to(tree).as_posix() for file in _files(tree)} - inside


def check_contents(tree: Path, wheel: Path, sdist: Path) -> None:
    """Raise :exc:`NotFit` where a file of the tree is in neither, or a test is in the wheel."""
    with zipfile.ZipFile(wheel) as built:
        names = built.namelist()
    if missing := missing_in_wheel(tree, names):
        raise NotFit(f"the wheel lacks {', '.join(sorted(missing))}")
    if strange := {name.partition("/")[0] for name in names if ".dist-info/" not in name} - {
        "trio_ipc",
        "pytest_trio_ipc",
    }:
        raise NotFit(f"the wheel brings {', '.join(sorted(strange))}")
    with tarfile.open(sdist) as packed:
        if missing := missing_in_sdist(tree, packed.getnames()):
            raise NotFit(f"the sdist lacks {', '.join(sorted(missing))}: see MANIFEST.in")


def check_by_tools(wheel: Path, sdist: Path) -> str:
    """See that twine, check-wheel-contents and pyroma have nothing to say.

    Returns:
        What of the project nobody told, and pyroma is therefore not asked for; nothing is made up.

    Raises:
        NotFit: one of them has something to say; the message has it.
    """
    run("twine", "check", "--strict", str(wheel), str(sdist))
    run("check_wheel_contents", "--config", str(ROOT / "pyproject.toml"), str(wheel))
    with zipfile.ZipFile(wheel) as built:
        [name] = (name for name in built.namelist() if name.endswith(".dist-info/METADATA"))
        told = built.read(name).decode()
    untold = {test: what for test, (field, what) in _UNTOLD.items() if f"\n{field}: " not in told}
    skipped = ["--skip-tests", ",".join(untold)] if untold else []
    run("pyroma", "--min", "10", *skipped, str(sdist))
    return " and ".join(untold.values())


def run(module: str, *arguments: str) -> None:
    """Run a tool. Raises :exc:`NotFit` with what it says, where it does not end well."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=TOOL_LIMIT,
        check=False,
    )
    if done.returncode != 0:
        raise NotFit(f"{module} says:\n{done.stdout}{done.stderr}")
