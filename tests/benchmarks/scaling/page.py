"""A run as a JSON document, and what the page shows of it: tables, one for each figure, and the goals."""

from __future__ import annotations

import datetime as dt
import re
import statistics
from collections.abc import Sequence
from typing import Any, Final

from tests.benchmarks.figures import Spread, ratios
from tests.benchmarks.results import machine, versions
from tests.benchmarks.tables import Rows

from .curves import BARE, CONTENDERS, CURVES, GOALS, NO_POLLING, OURS, Curve, Figure, values
from .run import Run

FORMAT: Final = 1

#: The packages that take part here.
_PACKAGES: Final = ("trio_ipc", "trio", "protobuf", "fastcrc")

#: What is divided by what, and how the page calls that.
_RATIOS: Final = (
    (OURS, BARE, "trio_ipc / bare Trio"),
    (NO_POLLING, BARE, "polling off / bare Trio"),
    (OURS, NO_POLLING, "polling on / off"),
)

#: Where the page has the tables of its JSON file.
SECTION: Final = re.compile(r"(?<=<!-- tables -->\n).*?(?=<!-- end of tables -->)", re.DOTALL)


def document(run: Run, *, quick: bool) -> dict[str, Any]:
    """Return a run as what :func:`json.dumps` takes. It must hold nothing that tells whose machine it was."""
    return {
        "format": FORMAT,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "quick": quick,
        "rounds": run.plan.rounds,
        "seconds": run.plan.seconds,
        "machine": {**machine(), "load": run.load},
        "versions": {name: version for name, version in versions().items() if name in _PACKAGES},
        "contenders": dict(CONTENDERS),
        "points": {curve: list(points) for curve, points in run.plan.points.items()},
        "left_out": run.left_out,
        "measured": run.measured,
        "goals": [goal.judged(run.measured) for goal in GOALS],
    }


def tables(found: dict[str, Any]) -> list[Rows]:
    """Return every table of a document, the goals first: they are what the others are looked up for."""
    shown = [_goals(found)]
    for name, points in found["points"].items():
        shown += [_table(found, name, figure, points) for figure in CURVES[name].figures]
    return shown


def _table(found: dict[str, Any], name: str, figure: Figure, points: Sequence[float]) -> Rows:
    curve = CURVES[name]
    heading = [
        curve.what.partition(",")[0],
        *(found["contenders"][contender] for contender in CONTENDERS),
        *(f"{what} (rounds)" for _, _, what in _RATIOS),
    ]
    rows = []
    for point in points:
        measured = {
            contender: of_rounds
            for contender in CONTENDERS
            if (of_rounds := values(found["measured"], name, contender, point, figure)) is not None
        }
        if measured:
            rows.append(_row(curve, point, measured))
    return Rows(f"({name}) {figure.title}; {curve.what}", heading, rows)


def _row(curve: Curve, point: float, measured: dict[str, list[float]]) -> list[str]:
    return [
        curve.label(point),
        *(_number(statistics.median(measured[contender])) for contender in CONTENDERS),
        *(Spread.of(ratios(measured[above], measured[below])).text() for above, below, _ in _RATIOS),
    ]


def _goals(found: dict[str, Any]) -> Rows:
    rows = [
        [
            f"({goal['curve']}) {goal['what']}",
            f"{'≥' if goal['at_least'] else '≤'} {goal['limit']:g}",
            "not measured" if goal["values"] is None else Spread.of(goal["values"]).text(),
            {True: "met", False: "missed", None: "-"}[goal["met"]],
        ]
        for goal in found["goals"]
    ]
    return Rows("Goals", ["figure", "goal", "measured (rounds)", ""], rows)


def _number(value: float) -> str:
    """Write a number with as many digits as it deserves."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def section(found: dict[str, Any]) -> str:
    """Return the tables as the page has them."""
    said = [caption(found).replace("\n", " ")]
    said += [f"Left out of `{curve}`: {reason}." for curve, reason in found["left_out"].items()]
    return "\n".join(
        ["", *(f"{line}\n" for line in said), *(table.as_markdown() for table in tables(found)), ""]
    )


def caption(found: dict[str, Any]) -> str:
    """Say where, with what and when it was measured."""
    on, packages = found["machine"], found["versions"]
    rounds = found["rounds"]
    listed = ", ".join(f"{name} {version}" for name, version in packages.items())
    return (
        f"Medians of {rounds} round{'' if rounds == 1 else 's'}, in brackets and as shades the least and the "
        f"most.\n{on['cores']} cores of {on['processor']}, load {on['load']:g}, {on['system']}, "
        f"{on['python']}, {listed}. {found['date']}"
    )
