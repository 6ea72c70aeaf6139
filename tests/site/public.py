"""The public names, by their modules, and which of them the reference's pages have.

The test suite, what checks a release and the site's own code read this: it needs the standard library alone.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

#: What is public in each module stands in its ``__all__``; the plugin's fixtures are found by their name.
#: In the order in which the site looks for a name without a module.
MODULES: Final = (
    "trio_ipc",
    "trio_ipc.transports",
    "trio_ipc.daemoneye",
    "trio_ipc.testing",
    "trio_ipc.telemetry.prometheus",
    "trio_ipc.telemetry.opentelemetry",
    "trio_ipc.blocking",
    "trio_ipc.aio",
    "pytest_trio_ipc",
)

#: Public names that only one system has.
OF_ONE_SYSTEM: Final = frozenset({"NamedPipeListener", "NamedPipeStream", "UnixListener", "UnixStream"})


def public_names() -> dict[str, set[str]]:
    """Return the public names of every system, by the modules that have them."""
    found = {}
    for name in MODULES:
        module = importlib.import_module(name)
        names = getattr(module, "__all__", None)
        found[name] = {
            *(names if names is not None else (one for one in vars(module) if one.startswith("ipc_")))
        }
    found["trio_ipc.transports"] |= OF_ONE_SYSTEM
    return found


def entries(pages: Path) -> dict[str, list[str]]:
    """Return the names that the reference's pages have entries for, by module, as often as they do."""
    found: dict[str, list[str]] = {}
    for page in sorted(pages.glob("*.md")):
        module = ""
        for kind, name in re.findall(
            r"^\.\. ([\w:]+):: ([\w.]+)", page.read_text(encoding="utf-8"), re.MULTILINE
        ):
            if kind == "currentmodule":
                module = name
            elif kind != "automodule":
                found.setdefault(module, []).append(name)
    return found


def is_within(path: str, public: set[str]) -> bool:
    """Return whether a path is public, or of a part of something public."""
    parts = path.split(".")
    return any(".".join(parts[:count]) in public for count in range(1, len(parts) + 1))


def missing(wanted: Mapping[str, set[str]], known: set[str]) -> list[str]:
    """Return the full names of those without an entry."""
    return sorted(
        f"{module}.{name}"
        for module, names in wanted.items()
        for name in names
        if f"{module}.{name}" not in known
    )
