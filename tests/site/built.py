"""A site as it was built: its links, its anchors, and what its inventory has entries for."""

from __future__ import annotations

import functools
import os
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page links to, and which anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        for name in ("id", "name"):
            if anchor := given.get(name):
                self.anchors.add(anchor)
        for name in ("href", "src"):
            if link := given.get(name):
                # a browser looks for /favicon.ico and its like by itself; those that are written are judged
                self.links.add(link)


@functools.cache
def page_at(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8"))


def broken_links(site: Path) -> list[str]:
    """Return each link that leads nowhere within the site, after the page that has it."""
    found = []
    for file in sorted(site.rglob("*.html")):
        for link in sorted(page_at(file).links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = Path(os.path.normpath(file.parent / unquote(parts.path))) if parts.path else file
            if target.is_dir():
                target /= "index.html"
            there = target.is_file() and target.is_relative_to(site)
            if there and parts.fragment and target.suffix == ".html":
                there = unquote(parts.fragment) in page_at(target).anchors
            if not there:
                found.append(f"{file.relative_to(site)}: {link}")
    return found


def generated_defaults(site: Path) -> list[str]:
    """Return each default in a signature that is a name of generated code, after the page that has it.

    attrs writes ``__init__`` with them: ``attr_dict['size'].default``, and ``NOTHING`` for what is computed.
    """
    return [
        f"{file.relative_to(site)}: {found}"
        for file in sorted(site.rglob("*.html"))
        for found in re.findall(
            r">(attr_dict\[[^\]]*\]|NOTHING)(?:\.default)?<", file.read_text(encoding="utf-8")
        )
    ]


def inventory(site: Path) -> set[str]:
    """Return the Python names that others can link to: four lines, and the rest compressed."""
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    rows = [line.split(" ", 2) for line in zlib.decompress(packed).decode().splitlines()]
    return {name for name, role, _ in rows if role.startswith("py:")}
