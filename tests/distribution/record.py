"""What `make compatibility` found, kept beside the page that is made of it."""

from __future__ import annotations

import json
from typing import Any, Final

from .making import ROOT

#: The versions of Python that are supported. pyproject.toml's classifiers and the hosted workflow have them.
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")

RECORDED: Final = ROOT / "docs" / "compatibility.json"


def recorded() -> dict[str, Any]:
    """Return what was found."""
    found: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {}
    return found


def write(part: str, found: object) -> None:
    """Put a part of what was found in place of what was found before."""
    text = json.dumps({**recorded(), part: found}, indent=1, sort_keys=True)
    RECORDED.write_text(text + "\n", encoding="utf-8")
