"""``python -m tests.distribution.page``: write what `make compatibility` found into docs/compatibility.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from .making import ROOT
from .record import PYTHONS, recorded
from .wheels import PACKAGES, PLATFORMS

PAGE: Final = ROOT / "docs" / "compatibility.md"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def runs(found: Sequence[dict[str, Any]]) -> str:
    """Return the table of Python and protobuf."""
    pythons = list(dict.fromkeys(run["python"] for run in found))
    protobufs = list(dict.fromkeys(run["protobuf"] for run in found))
    cells = {(run["protobuf"], run["python"]): run for run in found}

    def told(protobuf: str, python: str) -> str:
        run = cells.get((protobuf, python))
        if run is None:
            return "not run"
        return f"{run['failed']} failed" if run["failed"] else f"{run['passed']} passed"

    missing = [python for python in PYTHONS if not any(full.startswith(f"{python}.") for full in pythons)]
    head = ["protobuf", *(f"Python {python}" for python in (*pythons, *missing))]
    rows = (
        [protobuf, *(told(protobuf, python) for python in pythons), *("not run" for _ in missing)]
        for protobuf in protobufs
    )
    return _table(head, rows)


def _span(pythons: Sequence[str]) -> str:
    """Say for which Pythons there is a wheel, in few words."""
    plain = [python for python in pythons if python in PYTHONS]
    if not plain:
        return "none"
    said = "yes" if plain == [*PYTHONS] else ", ".join(plain)
    return f"{said}, 3.14t" if "3.14t" in pythons else said


def wheels(found: dict[str, Any]) -> str:
    """Return the table of platforms and packages."""
    head = ["", *(f"`{name}` {found[name]['version']}" for name in PACKAGES)]
    rows = ([kind, *(_span(found[name]["wheels"][kind]) for name in PACKAGES)] for kind in PLATFORMS)
    return _table(head, rows)


def with_tables(page: str, found: dict[str, Any]) -> str:
    """Return the page with these tables in place of those it has."""
    for name, made in (("runs", runs(found["runs"])), ("wheels", wheels(found["wheels"]))):
        before, mark, rest = page.partition(f"<!-- begin: {name} -->\n")
        _, end, after = rest.partition(f"<!-- end: {name} -->\n")
        if not mark or not end:
            raise ValueError(f"{PAGE.name} has no place for {name}")
        page = before + mark + made + end + after
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), recorded()), encoding="utf-8")
