"""The benchmark suite: ``make bench``; ``--help`` says what can be chosen."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console
from rich.progress import Progress

from .contenders import CONTENDERS
from .pieces import NAMES, TIMED, chosen
from .processes import ContenderError
from .suite import Plan, run
from .table import timed_table


def contenders_of(names: str) -> list[str]:
    known = list(CONTENDERS)
    for name in names.split(","):
        if name not in known:
            raise ValueError(f"there is no contender {name!r}; there are {', '.join(known)}")
    return [name for name in known if name in names.split(",")]


def parse(arguments: list[str]) -> Plan:
    parser = argparse.ArgumentParser(prog="make bench ARGS=", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less than a minute, and rougher")
    parser.add_argument("--work", default=",".join(NAMES), help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--contender", default=",".join(CONTENDERS), help=f"some of {', '.join(CONTENDERS)}")
    parser.add_argument("--rounds", type=int, help="how often everything is measured")
    parser.add_argument("--seconds", type=float, help="how long each load is timed in a round")
    options = parser.parse_args(arguments)
    rounds, seconds, least = (3, 0.06, 3) if options.quick else (5, 0.5, 20)
    try:
        return Plan(
            work=chosen(options.work),
            contenders=contenders_of(options.contender),
            rounds=options.rounds or rounds,
            seconds=options.seconds or seconds,
            least=least,
        )
    except ValueError as exc:
        parser.error(str(exc))


def main() -> int:
    plan = parse(sys.argv[1:])
    console = Console()
    if not console.is_terminal:
        console.width = 120
    with Progress(console=console, transient=True) as progress:
        steps = progress.add_task("", total=plan.rounds * len(plan.timed) * len(plan.contenders))
        try:
            done = run(plan, lambda step: progress.update(steps, advance=1, description=step))
        except ContenderError as exc:
            progress.stop()
            console.print(exc, style="red", markup=False)
            return 1
    for name, reason in done.left_out.items():
        console.print(f"{CONTENDERS[name].label} was left out: {reason}")
    for work in plan.work:
        if work in TIMED:
            console.print(timed_table(work, done.measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
