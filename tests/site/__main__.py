"""Judge a site: links, anchors, an entry for every public name, and defaults that say something."""

from __future__ import annotations

import sys
from pathlib import Path

from .built import broken_links, generated_defaults, inventory
from .public import missing, public_names


def main(directory: str) -> int:
    """Print what is wrong, and return the exit status."""
    site = Path(directory).resolve()
    problems = [f"a broken link: {link}" for link in broken_links(site)]
    problems += [f"no entry: {name}" for name in missing(public_names(), inventory(site))]
    problems += [f"a default says nothing: {default}" for default in generated_defaults(site)]
    for problem in problems:
        print(problem, file=sys.stderr)
    pages = len([*site.rglob("*.html")])
    print(f"{pages} pages, {len(problems)} problems")
    return 1 if problems or not pages else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
