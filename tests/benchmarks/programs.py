"""What the programs that measure have in common: how a run is shown, and how it ends."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Protocol, TypeVar

import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from trio_ipc.errors import leaves

from .workers import ContenderError


class Run(Protocol):
    """A run; when it ends, however it does, nothing of it is left."""

    async def go(self) -> None: ...


RunT = TypeVar("RunT", bound=Run)


def console(width: int) -> Console:
    """Return where results are shown, of this width where it is no terminal."""
    found = Console()
    if not found.is_terminal:
        found.width = width
    return found


def carry_out(make: Callable[[Callable[[str], None]], RunT], steps: int, console: Console) -> RunT | None:
    """Go through a run, and show how far it has come.

    Args:
        make: returns the run, of what is to be called at each step, with what begins.
        steps: how many there are.
        console: where to show it.

    Returns:
        The run; None if a signal ended it, or a contender failed, which is said there.
    """
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    finished = None
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task("", total=steps)

            def on_step(step: str) -> None:
                progress.update(bar, advance=1, description=step)
                if not console.is_terminal:
                    console.print(step, markup=False, highlight=False)

            run = make(on_step)
            finished = run if trio.run(_until_signal, run) else None
    except* ContenderError as group:
        console.print(*(str(exc) for exc in leaves(group)), style="red", markup=False)
    return finished


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
