"""``make types``: whether pyright knows the type of every public name.

    python -m tests.distribution.known_types PYRIGHT...

PYRIGHT is the command that runs it. It takes every module without an underscore for public. Here what is
public is said by ``__all__`` of a few modules (docs/stability.md): these names count, with all that they have
and inherit, and what it finds in other modules does not.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.site.public import MODULES, is_within

from .making import ROOT, TOOL_LIMIT
from .release import PUBLIC_PACKAGES


def public_paths() -> Iterator[str]:
    """Yield the paths of public names: where they are offered, and where they and their bases are made."""
    for path in MODULES:
        module = importlib.import_module(path)
        for name in getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")]):
            yield f"{path}.{name}"
            thing = getattr(module, name)
            for made in thing.__mro__ if isinstance(thing, type) else [thing]:
                if str(getattr(made, "__module__", "")).startswith(PUBLIC_PACKAGES):
                    yield f"{made.__module__}.{getattr(made, '__qualname__', name)}"


def not_known(symbols: Iterable[dict[str, Any]], public: set[str]) -> Iterator[str]:
    """Yield a line for each public symbol whose type is unknown, known in part, or a matter of inference."""
    for symbol in symbols:
        if is_within(symbol["name"], public) and (not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]):
            why = "; ".join(one["message"].replace("\n", " ") for one in symbol["diagnostics"])
            yield f"{symbol['name']}: {why or 'its type is not known'}"


def asked(pyright: list[str], package: str) -> list[dict[str, Any]]:
    """Return what pyright says of each symbol of a package."""
    # It looks for packages where the first python of PATH does, whatever other options say.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [*pyright, "--ignoreexternal", "--outputjson", "--verifytypes", package]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=TOOL_LIMIT, check=False
    )
    try:
        symbols: list[dict[str, Any]] = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    except (ValueError, KeyError):
        sys.exit(f"make types: pyright ended with {done.returncode}: {done.stdout}{done.stderr}")
    return symbols


def main(pyright: list[str]) -> int:
    """Ask of each package; return the exit status."""
    public = {*public_paths()}
    symbols = [symbol for package in PUBLIC_PACKAGES for symbol in asked(pyright, package)]
    counted = sum(is_within(symbol["name"], public) for symbol in symbols)
    found = [*not_known(symbols, public)]
    for line in found:
        print(f"make types: {line}", file=sys.stderr)
    print(f"make types: of {counted:,} public symbols {counted - len(found):,} have a known type")
    return 1 if found or not counted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
