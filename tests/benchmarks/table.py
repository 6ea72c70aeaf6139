"""The tables on the terminal."""

from __future__ import annotations

from rich.table import Table

from .contenders import CONTENDERS
from .figures import Spread, ratios
from .pieces import TIMED
from .suite import Measured

OURS = "trio_ipc"


def timed_table(work: str, measured: Measured) -> Table:
    """A piece of work that was timed: a row for each contender, the fastest first."""
    piece, results = TIMED[work], measured[work]
    table = Table(title=f"({work}) {piece.what}", title_justify="left", title_style="bold")
    table.add_column("contender")
    for heading in ("µs a call", "against trio_ipc", "calls a second", "p99, µs", "CPU µs a call"):
        table.add_column(heading, justify="right")
    for name in sorted(results, key=lambda name: Spread.of(results[name][piece.figure]).median):
        figures = results[name]
        mine = figures[piece.figure]
        against = "-"
        if OURS in results:
            against = Spread.of(ratios(mine, results[OURS][piece.figure])).text()
        per_call = Spread.of(figures["us_per_call"]).median
        cpu = figures.get("cpu_us_per_call")
        table.add_row(
            CONTENDERS[name].label,
            Spread.of(mine).text(1),
            against,
            f"{1e6 / per_call:,.0f}",
            f"{Spread.of(figures['p99_us']).median:,.0f}",
            f"{Spread.of(cpu).median:,.1f}" if cpu else "-",
            style="bold" if name == OURS else None,
        )
    return table
