"""``python -m tests.hardening.table``: write what the last run recorded into docs/hardening.md.

The run must have passed every test that records; `make hardening-table` does both. With ``--modules`` this
prints which modules have such tests.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from .record import RECORDED, ROOT, Entry, claimed, modules, recorded

PAGE: Final = ROOT / "docs" / "hardening.md"
_BEGIN: Final = "<!-- begin: python -m tests.hardening.table -->\n"
_END: Final = "<!-- end -->\n"


@attrs.frozen
class Row:
    """A row of the page."""

    attack: str
    tried: str
    outcome: str
    shown_by: str

    def line(self) -> str:
        return f"| {self.attack} | {self.tried} | {self.outcome} | {self.shown_by} |\n"


def rows_of(entries: Sequence[Entry]) -> list[Row]:
    """Add up the entries of each attack, in the order of the modules that try them."""
    rows = []
    for name in dict.fromkeys(entry.name for entry in sorted(entries, key=lambda entry: entry.test)):
        of_it = [entry for entry in entries if entry.name == name]
        files = sorted({entry.test.split("::")[0].removeprefix("tests/") for entry in of_it})
        tried = sum(entry.tried for entry in of_it)
        rows.append(Row(name, f"{tried:,}", of_it[0].outcome, ", ".join(f"`{file}`" for file in files)))
    return rows


def _parts(page: str) -> tuple[str, str, str]:
    before, rest = page.split(_BEGIN)
    table, after = rest.split(_END)
    return before, table, after


def rows_in(page: str) -> list[Row]:
    """Return the rows of a page."""
    _, table, _ = _parts(page)
    return [Row(*(cell.strip() for cell in line.strip("|\n").split("|"))) for line in table.splitlines()[2:]]


def with_rows(page: str, rows: Sequence[Row]) -> str:
    """Return the page with these rows in place of those it has."""
    before, _, after = _parts(page)
    heading = "| attack or fault | tried | what happened | shown by |\n| --- | ---: | --- | --- |\n"
    return before + _BEGIN + heading + "".join(row.line() for row in rows) + _END + after


def main(page: Path = PAGE) -> str | None:
    """Write the table, or return what is missing."""
    if not (ROOT / RECORDED).exists():
        return "nothing was recorded: run the tests first"
    entries = recorded()
    missing = claimed(modules()).keys() - {entry.name for entry in entries}
    if missing:
        return (
            f"the last run did not record: {', '.join(sorted(missing))}\n"
            "Run all tests as `make hardening-table` does, as root."
        )
    page.write_text(with_rows(page.read_text(encoding="utf-8"), rows_of(entries)), encoding="utf-8")
    return None


if __name__ == "__main__":
    if sys.argv[1:] == ["--modules"]:
        print(*(module for module in modules() if claimed([module])))
    else:
        sys.exit(main())
