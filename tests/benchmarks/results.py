"""A run as a JSON document: what was measured in every round, on what, and how the goals came out.

It must hold nothing that tells whose machine it was: no host name, no path, no user.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import os
import platform
import re
from typing import Any, Final

from .contenders import CONTENDERS
from .goals import verdicts
from .suite import Measured, Run

FORMAT: Final = 1

_PACKAGES: Final = ("trio_ipc", "trio", "protobuf", "fastcrc", "grpcio", "pyzmq", "uvloop")


def document(run: Run, *, quick: bool) -> dict[str, Any]:
    """Return a run as what :func:`json.dumps` takes."""
    return {
        "format": FORMAT,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "quick": quick,
        "surroundings": str(run.plan.surroundings),
        "rounds": run.plan.rounds,
        "seconds": run.plan.seconds,
        "machine": {**machine(), "load": run.load},
        "versions": versions(),
        "contenders": {name: CONTENDERS[name].label for name in run.plan.contenders},
        "left_out": run.left_out,
        "measured": _rounded(run.measured),
        "goals": [verdict.as_json() for verdict in verdicts(run.measured, run.plan.surroundings)],
    }


def text_of(found: dict[str, Any]) -> str:
    """Return a document as JSON, with the numbers of a figure on one line."""
    text = json.dumps(found, indent=1, ensure_ascii=False)
    return re.sub(r"\[[^\[\]{}]+\]", lambda found: " ".join(found[0].split()), text) + "\n"


def machine() -> dict[str, Any]:
    """Return what is worth knowing of this machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            found = re.search(r"^model name\s*: (.*)$", file.read(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of what takes part."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _rounded(measured: Measured) -> Measured:
    """Four digits of what is no count: more would be noise."""
    return {
        work: {
            contender: {
                figure: [value if isinstance(value, int) else float(f"{value:.4g}") for value in values]
                for figure, values in figures.items()
            }
            for contender, figures in of_work.items()
        }
        for work, of_work in measured.items()
    }
