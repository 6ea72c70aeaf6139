"""The benchmark suite. Processes that do the same work in different ways, in turns; ratios and goals."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from . import chart, programs
from .contenders import CONTENDERS
from .pieces import NAMES, chosen
from .results import document, text_of
from .suite import ROUNDS, Plan, Run
from .surroundings import Surroundings, cores
from .tables import Rows, tables
from .workers import ROOT

_OUTPUT: Final = os.path.join(ROOT, "build", "benchmarks")
_DOCS: Final = os.path.join(ROOT, "docs")
_PAGE: Final = os.path.join(_DOCS, "benchmarks.md")

#: What is measured in other surroundings if nothing else is said: memory and start-up are the same there.
_STRAINED_WORK: Final = [name for name in NAMES if name not in {"g", "h"}]
_STRAINED_CONTENDERS: Final = [name for name in CONTENDERS if name not in {"grpc", "zeromq", "uvloop"}]
_STRAINED_ROUNDS: Final = 10


def rounds_of(surroundings: Surroundings) -> int:
    """Return how many rounds a whole run has."""
    return ROUNDS if surroundings is Surroundings.QUIET else _STRAINED_ROUNDS


def work_of(surroundings: Surroundings) -> Sequence[str]:
    """Return what a whole run measures."""
    return [*NAMES] if surroundings is Surroundings.QUIET else _STRAINED_WORK


def section_of(surroundings: Surroundings) -> re.Pattern[str]:
    """Find where the page has the tables of these surroundings."""
    return re.compile(
        rf"(?<=<!-- {surroundings} tables -->\n).*?(?=<!-- end of {surroundings} tables -->)", re.DOTALL
    )


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    found.add_argument("--quick", action="store_true", help="less than a minute, and rougher")
    found.add_argument("--work", metavar="NAMES", help=f"some of {', '.join(NAMES)}")
    found.add_argument("--contender", metavar="NAMES", help=f"some of {', '.join(CONTENDERS)}")
    where = found.add_mutually_exclusive_group()
    where.add_argument("--one-core", action="store_true", help="client and server share one core")
    where.add_argument("--busy", action="store_true", help="every core has something else to do as well")
    found.add_argument("--rounds", type=int, metavar="N", help="how often everything is measured")
    found.add_argument("--seconds", type=float, metavar="S", help="how long a load is timed in a round")
    found.add_argument("--output", default=_OUTPUT, metavar="DIR", help="for the JSON file and the chart")
    found.add_argument(
        "--publish", action="store_true", help="put the JSON file, the chart and the tables into docs/"
    )
    found.add_argument("--render", metavar="JSON", help="measure nothing; show the result in this file")
    return found


def plan_of(options: argparse.Namespace) -> Plan:
    """Return the plan that the options mean.

    Raises:
        ValueError: there is no such work or contender, they would be measured for no time, or a part is to be
            published.
    """
    programs.check_lengths(options)
    surroundings = Surroundings.QUIET
    if options.one_core or options.busy:
        surroundings = Surroundings.ONE_CORE if options.one_core else Surroundings.BUSY
        cores()  # or this system cannot do it
    programs.check_published(options, "work", "contender", rounds=rounds_of(surroundings))
    strained = surroundings is not Surroundings.QUIET
    names = _STRAINED_CONTENDERS if strained else [*CONTENDERS]
    if options.contender is not None:
        names = options.contender.split(",")
    for name in names:
        if name not in CONTENDERS:
            raise ValueError(f"there is no contender {name!r}; there are {', '.join(CONTENDERS)}")
    work = work_of(surroundings)
    plan = Plan(
        work=work if options.work is None else chosen(options.work),
        contenders=[name for name in CONTENDERS if name in names],
        surroundings=surroundings,
    )
    if strained:
        plan = plan.but(rounds=rounds_of(surroundings), seconds=0.3)
    if options.quick:
        plan = plan.but(rounds=2, seconds=0.06, least=3, idle_seconds=2, imports=2)
    return plan.but(rounds=options.rounds, seconds=options.seconds)


def publish(found: dict[str, Any], rows: Sequence[Rows]) -> list[str]:
    """Put a result into the docs, and return the names of the files that were written."""
    written = write(found, _DOCS)
    with open(_PAGE, encoding="utf-8") as file:
        page = file.read()
    [before, after] = section_of(Surroundings(found["surroundings"])).split(page)
    programs.replace(_PAGE, before + section(found, rows) + after)
    return [*written, os.path.basename(_PAGE)]


def section(found: dict[str, Any], rows: Sequence[Rows]) -> str:
    """Return the tables as the page has them."""
    heading = chart.caption(found).replace("\n", " ")
    return "\n".join(["", f"{heading}\n", *(table.as_markdown() for table in rows), ""])


def file_of(surroundings: Surroundings) -> str:
    """Return the name of the files of a run, without what follows the dot."""
    return "benchmarks" if surroundings is Surroundings.QUIET else f"benchmarks-{surroundings}"


def write(found: dict[str, Any], directory: str) -> list[str]:
    """Write the JSON file and the chart, if it can be drawn, and return their names."""
    name = file_of(Surroundings(found["surroundings"]))
    programs.replace(os.path.join(directory, f"{name}.json"), text_of(found))
    try:
        chart.draw(found, os.path.join(directory, f"{name}.svg"))
    except ImportError as exc:
        print(f"no chart: {exc}", file=sys.stderr)
        return [f"{name}.json"]
    return [f"{name}.json", f"{name}.svg"]


def main() -> int:
    options = parser().parse_args()
    console = programs.console(120)
    directory = _DOCS if options.publish else options.output
    found = None
    try:
        plan = plan_of(options)
        programs.make_directory(directory)
        if options.render:
            has = ("surroundings", "contenders")
            found = programs.result_in(
                options.render,
                has=has,
                publish=options.publish,
                rounds=lambda of: rounds_of(Surroundings(of["surroundings"])),
                measures=lambda of: work_of(Surroundings(of["surroundings"])),
            )
    except ValueError as exc:
        parser().error(str(exc))
    if found is None:
        run = programs.carry_out(partial(Run, plan), plan.steps, console)
        if run is None:
            return 1
        found = document(run, quick=options.quick)
    rows = tables(found)
    for table in rows:
        console.print(table.for_terminal())
    for name, reason in found["left_out"].items():
        console.print(f"left out: {name}: {reason}", markup=False)
    written = publish(found, rows) if options.publish else write(found, directory)
    programs.say_written(written, directory, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
