"""Pages of the site whose text stands outside of docs/, and links that lead there.

The changelog and its like stay where the services that host projects look for them. A page of the site, in
docs/project/, takes its text from there. Links are written for the tree; here they are turned to the site.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

#: Which page of the site has which file's text.
PAGES = {
    "project/readme": "README.md",
    "project/changelog": "CHANGELOG.md",
    "project/contributing": "CONTRIBUTING.md",
    "project/code-of-conduct": "CODE_OF_CONDUCT.md",
    "project/security-policy": "SECURITY.md",
}


def turned(text: str, origin: Path, page: Path) -> str:
    """Return a page with its links turned: written for ``origin``, they are read on ``page``."""
    places = {ROOT / file: DOCS / f"{name}.md" for name, file in PAGES.items()}

    def turn(match: re.Match[str]) -> str:
        path, mark, anchor = match[1].partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return match[0]
        target = Path(os.path.normpath(origin.parent / path))
        if not target.exists():
            return match[0]
        target = places.get(target, target)
        link = os.path.relpath(target, page.parent).replace(os.sep, "/")
        if target.is_dir() or not target.is_relative_to(DOCS):
            # A folder is no page, and a file of the tree is one to download.
            link = "" if target.is_dir() else f"path:{link}"
        return f"]({link}{mark}{anchor})" if link else "]"

    return re.sub(r"\]\(([^()\s]+)\)", turn, text)


def read(_app: Any, name: str, source: list[str]) -> None:
    """Give Sphinx the text of a page."""
    page = DOCS / f"{name}.md"
    origin = ROOT / PAGES[name] if name in PAGES else page
    text = origin.read_text(encoding="utf-8") if name in PAGES else source[0]
    source[0] = (
        without_empty_patterns(turned(text, origin, page)) if name == "index" else turned(text, origin, page)
    )


def without_empty_patterns(text: str) -> str:
    """Leave out of a table of contents the patterns that no page matches: Sphinx takes one for a mistake."""
    return "\n".join(
        line for line in text.split("\n") if not line.endswith("*") or any(DOCS.glob(f"{line}.md"))
    )


def watch(app: Any, env: Any, _added: set[str], _changed: set[str], _removed: set[str]) -> list[str]:
    """Have these pages read anew in each build: Sphinx looks at the times of their stubs only."""
    del app
    return [name for name in PAGES if name in env.all_docs]


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", read)
    app.connect("env-get-outdated", watch)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
