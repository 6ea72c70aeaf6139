"""What the public API of this tree breaks of a release's: ``python -m tests.distribution.api TAG [TREE]``.

griffe takes every name without an underscore for public. Here what is public is said by ``__all__`` of a few
modules (docs/stability.md), so what it finds elsewhere is left out. It ends with 3 where something breaks.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import griffe

from tests.site.public import MODULES, is_within

from .making import ROOT
from .release import BREAKS, PUBLIC_PACKAGES

#: griffe writes for terminals.
_COLOUR: Final = re.compile(r"\x1b\[\d*m")


def module_at(package: Any, path: str) -> Any:
    """Return the module of a package that has this dotted path, or None."""
    root, *inside = path.split(".")
    module = package if root == package.name else None
    for part in inside:
        module = module and module.modules.get(part)
    return module


def public_paths(package: Any) -> Iterator[str]:
    """Yield the paths of all that is public, where it is offered and where it is defined."""
    for path in MODULES:
        if (module := module_at(package, path)) is None:
            continue
        for name in module.exports or [name for name in module.members if not name.startswith("_")]:
            yield f"{path}.{name}"
            if name in module.members:
                yield where_made(module.members[name])


def where_made(thing: Any) -> str:
    """Return the path at which something is defined, or its own where that is in another library."""
    try:
        return str(thing.canonical_path)
    except griffe.AliasResolutionError:
        return str(thing.path)


def breakages(root: Path, before: str) -> Iterator[str]:
    """Yield a line for each thing that breaks what was public before."""
    for name in PUBLIC_PACKAGES:
        old = griffe.load_git(name, ref=before, repo=root, resolve_aliases=True)
        # Not by a relative path: from another tree that would be this one's.
        new = griffe.load(name, search_paths=[root], try_relative_path=False, resolve_aliases=True)
        public = {*public_paths(old)}
        for breakage in griffe.find_breaking_changes(old, new):
            if is_within(breakage.obj.path, public) or is_within(where_made(breakage.obj), public):
                yield _COLOUR.sub("", breakage.explain(griffe.ExplanationStyle.ONE_LINE))


def main(before: str, root: Path = ROOT) -> int:
    """Print what breaks, each thing once; return the exit status."""
    found = [*dict.fromkeys(breakages(root, before))]
    for line in found:
        print(line)
    return BREAKS if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(Path, sys.argv[2:])))
