"""The benchmark suite. Processes that do the same work in different ways, in turns; ratios and goals."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final

import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from examples.common import leaves

from . import chart
from .contenders import CONTENDERS
from .pieces import NAMES, chosen
from .processes import ROOT, ContenderError
from .results import document, text_of
from .suite import Plan, Run
from .tables import Rows, tables

_OUTPUT: Final = os.path.join(ROOT, "build", "benchmarks")
_DOCS: Final = os.path.join(ROOT, "docs")
_PAGE: Final = os.path.join(_DOCS, "benchmarks.md")

#: Where the page has the tables of its JSON file.
SECTION: Final = re.compile(r"(?<=<!-- tables -->\n).*?(?=<!-- end of tables -->)", re.DOTALL)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    found.add_argument("--quick", action="store_true", help="less than a minute, and rougher")
    found.add_argument("--work", default=",".join(NAMES), metavar="NAMES", help=f"some of {', '.join(NAMES)}")
    everyone = ", ".join(CONTENDERS)
    found.add_argument(
        "--contender", default=",".join(CONTENDERS), metavar="NAMES", help=f"some of {everyone}"
    )
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
        ValueError: there is no such work or contender.
    """
    names = options.contender.split(",")
    for name in names:
        if name not in CONTENDERS:
            raise ValueError(f"there is no contender {name!r}; there are {', '.join(CONTENDERS)}")
    plan = Plan(work=chosen(options.work), contenders=[name for name in CONTENDERS if name in names])
    if options.quick:
        plan = Plan(
            work=plan.work,
            contenders=plan.contenders,
            rounds=2,
            seconds=0.06,
            least=3,
            idle_seconds=2,
            imports=2,
        )
    return plan.but(rounds=options.rounds, seconds=options.seconds)


def measure(plan: Plan, console: Console) -> Run | None:
    """Carry out a plan and show how far it has come; None if a signal ended it."""
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=plan.steps)

        def on_step(step: str) -> None:
            progress.update(bar, advance=1, description=step)
            if not console.is_terminal:
                console.print(step, markup=False, highlight=False)

        run = Run(plan, on_step)
        return run if trio.run(_until_signal, run) else None


async def _until_signal(run: Run) -> bool:
    """Run to the end, or until a signal; either way nothing is left behind."""
    finished = False
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(cancel)
            await run.go()
            finished = True
            nursery.cancel_scope.cancel()
    return finished


def publish(found: dict[str, Any], rows: Sequence[Rows]) -> None:
    """Put a result into the docs."""
    write(found, _DOCS)
    with open(_PAGE, encoding="utf-8") as file:
        page = file.read()
    [before, after] = SECTION.split(page)
    with open(_PAGE, "w", encoding="utf-8") as file:
        file.write(before + section(found, rows) + after)


def section(found: dict[str, Any], rows: Sequence[Rows]) -> str:
    """Return the tables as the page has them."""
    heading = chart.caption(found).replace("\n", " ")
    return "\n".join(["", f"{heading}\n", *(table.as_markdown() for table in rows), ""])


def write(found: dict[str, Any], directory: str) -> None:
    """Write the JSON file and the chart."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "benchmarks.json"), "w", encoding="utf-8") as file:
        file.write(text_of(found))
    try:
        chart.draw(found, os.path.join(directory, "benchmarks.svg"))
    except ImportError as exc:
        print(f"no chart: {exc}", file=sys.stderr)


def main() -> int:
    options = parser().parse_args()
    console = Console()
    if not console.is_terminal:
        console.width = 120
    if options.render:
        with open(options.render, encoding="utf-8") as file:
            found = json.load(file)
    else:
        try:
            plan = plan_of(options)
        except ValueError as exc:
            parser().error(str(exc))
        run = None
        try:
            run = measure(plan, console)
        except* ContenderError as group:
            console.print(*(str(exc) for exc in leaves(group)), style="red", markup=False)
        if run is None:
            return 1
        found = document(run, quick=options.quick)
    rows = tables(found)
    for table in rows:
        console.print(table.for_terminal())
    for name, reason in found["left_out"].items():
        console.print(f"left out: {name}: {reason}", markup=False)
    if options.publish:
        publish(found, rows)
    else:
        write(found, options.output)
        console.print(f"written: {os.path.relpath(options.output)}/benchmarks.json and benchmarks.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
