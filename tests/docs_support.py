"""What the tests of the documentation share: its pages, and the blocks in them."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
CHANGELOG = ROOT / "CHANGELOG.md"
DOCS = ROOT / "docs"
PAGES = [README, CHANGELOG, *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("*/*.md"))]


@attrs.frozen
class Fence:
    """A fenced block. ``output`` is the ``text`` block that comes next after a program, if one does."""

    page: Path
    line: int
    language: str
    text: str
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def fences_of(page: Path) -> list[Fence]:
    document = page.read_text(encoding="utf-8")
    found: list[Fence] = []
    for match in re.finditer(r"^```(\S*)\n(.*?)^```$", document, re.MULTILINE | re.DOTALL):
        if match[1].startswith("{"):
            continue  # a directive of the site's
        line = document.count("\n", 0, match.start()) + 1
        if match[1] == "text" and found and found[-1].language == "python":
            found[-1] = attrs.evolve(found[-1], output=match[2])
        found.append(Fence(page, line, match[1], match[2]))
    return found


def is_guide(page: Path) -> bool:
    """Whether a page's examples build on each other: tests/test_guides.py runs it from top to bottom."""
    return page.parent == DOCS and (page.name == "tutorial.md" or page.name.startswith("howto-"))
