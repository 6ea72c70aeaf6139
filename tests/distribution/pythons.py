"""``python -m tests.distribution.pythons``: the supported Pythons that are on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .making import ANSWER_LIMIT
from .record import PYTHONS


def _candidates(version: str) -> Iterator[str]:
    found = shutil.which(f"python{version}")
    if found is not None:
        yield found
    # Those of pyenv are not on the path unless they were chosen, and what is there then only says so.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}")))


def interpreter(version: str) -> tuple[str, str] | None:
    """Return a Python of this version that can make environments, and its full version; None without one."""
    code = "import ensurepip, platform, venv; print(platform.python_version())"
    for program in _candidates(version):
        command = [program, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_LIMIT, check=False)
        if done.returncode == 0:
            return program, done.stdout.strip()
    return None


if __name__ == "__main__":
    for version in PYTHONS:
        found = interpreter(version)
        if found is None:
            print(f"Python {version}: not on this machine, not tested", file=sys.stderr)
        else:
            print(found[0])
