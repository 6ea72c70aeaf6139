"""How costs grow: with connections, callers, sizes, pauses, and handlers that take time; beside bare Trio."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from typing import Any, Final

from tests.benchmarks import programs
from tests.benchmarks.results import text_of
from tests.benchmarks.workers import ROOT

from . import chart
from .curves import CURVES
from .page import SECTION, document, section, tables
from .run import ROUNDS, Plan, Run

_OUTPUT: Final = os.path.join(ROOT, "build", "scaling")
_DOCS: Final = os.path.join(ROOT, "docs")
_PAGE: Final = os.path.join(_DOCS, "scaling.md")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m tests.benchmarks.scaling", description=__doc__)
    found.add_argument("--quick", action="store_true", help="less than a minute, and rougher")
    names = ", ".join(CURVES)
    found.add_argument("--curves", metavar="NAMES", help=f"some of {names}")
    found.add_argument("--rounds", type=int, metavar="N", help="how often everything is measured")
    found.add_argument("--output", default=_OUTPUT, metavar="DIR", help="for the JSON file and the curves")
    found.add_argument(
        "--publish", action="store_true", help="put the JSON file, the curves and the tables into docs/"
    )
    found.add_argument("--render", metavar="JSON", help="measure nothing; show the result in this file")
    return found


def plan_of(options: argparse.Namespace) -> Plan:
    """Return the plan that the options mean.

    Raises:
        ValueError: there is no such curve, less than one round, or a part is to be published.
    """
    programs.check_lengths(options)
    programs.check_published(options, "curves", rounds=ROUNDS)
    names = [*CURVES] if options.curves is None else options.curves.split(",")
    for name in names:
        if name not in CURVES:
            raise ValueError(f"there is no curve {name!r}; there are {', '.join(CURVES)}")
    chosen = {name: curve for name, curve in CURVES.items() if name in names}
    if options.quick:
        points = {name: curve.quick for name, curve in chosen.items()}
        return Plan(points, rounds=options.rounds or 1, seconds=0.1, warm=2)
    points = {name: curve.points for name, curve in chosen.items()}
    return Plan(points, rounds=options.rounds or ROUNDS)


def publish(found: dict[str, Any]) -> list[str]:
    """Put a result into the docs, and return the names of the files that were written."""
    written = write(found, _DOCS)
    with open(_PAGE, encoding="utf-8") as file:
        page = file.read()
    [before, after] = SECTION.split(page)
    programs.replace(_PAGE, before + section(found) + after)
    return [*written, os.path.basename(_PAGE)]


def write(found: dict[str, Any], directory: str) -> list[str]:
    """Write the JSON file and the curves, if they can be drawn, and return their names."""
    programs.replace(os.path.join(directory, "scaling.json"), text_of(found))
    try:
        chart.draw(found, os.path.join(directory, "scaling.svg"))
    except ImportError as exc:
        print(f"no curves: {exc}", file=sys.stderr)
        return ["scaling.json"]
    return ["scaling.json", "scaling.svg"]


def main() -> int:
    options = parser().parse_args()
    console = programs.console(140)
    directory = _DOCS if options.publish else options.output
    found = None
    try:
        plan = plan_of(options)
        programs.make_directory(directory)
        if options.render:
            found = programs.result_in(
                options.render,
                has=("points",),
                publish=options.publish,
                rounds=lambda _: ROUNDS,
                measures=lambda _: CURVES,
            )
    except ValueError as exc:
        parser().error(str(exc))
    if found is None:
        run = programs.carry_out(partial(Run, plan), plan.steps, console)
        if run is None:
            return 1
        found = document(run, quick=options.quick)
    for table in tables(found):
        console.print(table.for_terminal())
    for name, reason in found["left_out"].items():
        console.print(f"left out of {name}: {reason}", markup=False)
    written = publish(found) if options.publish else write(found, directory)
    programs.say_written(written, directory, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
