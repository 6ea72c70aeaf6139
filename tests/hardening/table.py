"""``python -m tests.hardening.table [--windows]``: write what the last run recorded into docs/hardening.md.

The run must have passed every test that records; `make hardening-table` does both. With ``--windows`` it is
the table of what runs on Windows alone, which `make hardening-table-windows` fills under Wine. With
``--modules`` this prints which modules have such tests.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from .record import RECORDED, RECORDED_ON_WINDOWS, ROOT, Entry, claimed, modules, recorded

PAGE: Final = ROOT / "docs" / "hardening.md"
_BEGIN: Final = "<!-- begin: python -m tests.hardening.table -->\n"
_BEGIN_OF_WINDOWS: Final = "<!-- begin: python -m tests.hardening.table --windows -->\n"
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


def _parts(page: str, windows: bool) -> tuple[str, str, str]:
    begin = _BEGIN_OF_WINDOWS if windows else _BEGIN
    before, rest = page.split(begin)
    table, after = rest.split(_END, 1)
    return before + begin, table, _END + after


def rows_in(page: str, *, windows: bool = False) -> list[Row]:
    """Return the rows of a page."""
    _, table, _ = _parts(page, windows)
    return [Row(*(cell.strip() for cell in line.strip("|\n").split("|"))) for line in table.splitlines()[2:]]


def with_rows(page: str, rows: Sequence[Row], *, windows: bool = False) -> str:
    """Return the page with these rows in place of those it has."""
    before, _, after = _parts(page, windows)
    heading = "| attack or fault | tried | what happened | shown by |\n| --- | ---: | --- | --- |\n"
    return before + heading + "".join(row.line() for row in rows) + after


def main(page: Path = PAGE, *, windows: bool = False) -> str | None:
    """Write the table, or return what is missing."""
    file = ROOT / (RECORDED_ON_WINDOWS if windows else RECORDED)
    if not file.exists():
        return "nothing was recorded: run the tests first"
    entries = recorded(file)
    wanted = claimed(modules(windows=windows))
    missing = wanted.keys() - {entry.name for entry in entries}
    if missing:
        return (
            f"the last run did not record: {', '.join(sorted(missing))}\n"
            "Run all tests as `make hardening-table` does, as root."
        )
    # Under Wine the tests of both systems run.
    rows = rows_of([entry for entry in entries if entry.name in wanted])
    page.write_text(with_rows(page.read_text(encoding="utf-8"), rows, windows=windows), encoding="utf-8")
    return None


if __name__ == "__main__":
    for_windows = "--windows" in sys.argv[1:]
    if "--modules" in sys.argv[1:]:
        print(*(module.relative_to(ROOT) for module in modules(windows=for_windows) if claimed([module])))
    else:
        sys.exit(main(windows=for_windows))
