"""What the programs that measure have in common: how a run is shown, and how it ends."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

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


def check_lengths(options: argparse.Namespace) -> None:
    """Check how often and for how long there is to be measured, where that is said.

    Raises:
        ValueError: it is less than one round, or no time at all; there would be no figures.
    """
    if options.rounds is not None and options.rounds < 1:
        raise ValueError(f"--rounds is {options.rounds}, must be from 1")
    seconds = getattr(options, "seconds", None)
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"--seconds is {seconds:g}, must be above 0 and finite")


def check_published(options: argparse.Namespace, *parts: str, rounds: int) -> None:
    """Check that what is to be published will be a whole run.

    Args:
        options: how the program was called.
        parts: the options that choose a part of a run.
        rounds: how many a whole one has.

    Raises:
        ValueError: it will not. The page would lose the figures that it is about, or their spread.
    """
    if not options.publish or options.render:
        return
    given = [f"--{name}" for name in ("quick", *parts) if getattr(options, name) not in {None, False}]
    if given:
        raise ValueError(f"--publish needs a whole run, and {' and '.join(given)} make it a part of one")
    if options.rounds is not None and options.rounds < rounds:
        raise ValueError(f"--publish needs a whole run of {rounds} rounds, and --rounds is {options.rounds}")


def result_in(
    path: str,
    *,
    has: Sequence[str],
    publish: bool,
    rounds: Callable[[dict[str, Any]], int],
    measures: Callable[[dict[str, Any]], Iterable[str]],
) -> dict[str, Any]:
    """Return the result of an earlier run.

    Args:
        path: its JSON file.
        has: what only a result of this program has.
        publish: whether it is to be published.
        rounds: says how many a whole run like it has.
        measures: says what one measures, by the names in its result.

    Raises:
        ValueError: it cannot be read, is something else, or is of less than a whole run and to be published.
    """
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as exc:
        raise ValueError(f"cannot read {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise ValueError(f"{path} is no JSON: {exc}") from exc
    if not isinstance(found, dict) or not {"measured", "quick", "rounds", *has} <= found.keys():
        raise ValueError(f"{path} is no result of this program")
    if publish and found["quick"]:
        raise ValueError(f"--publish needs a whole run, and {path} is of a quick one")
    if publish and found["rounds"] < rounds(found):
        raise ValueError(
            f"--publish needs a whole run of {rounds(found)} rounds, and {path} has {found['rounds']}"
        )
    lacks = [name for name in measures(found) if name not in found["measured"]] if publish else []
    if lacks:
        raise ValueError(f"--publish needs a whole run, and {path} lacks {', '.join(lacks)}")
    return found


def replace(path: str, text: str) -> None:
    """Write a file anew, or leave the old one as it is: a full disk must not cost what was published."""
    beside = f"{path}.new"
    try:
        with open(beside, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise


def make_directory(path: str) -> None:
    """Make the directory for a result, before there is one that could be lost.

    Raises:
        ValueError: it cannot be made.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as exc:
        raise ValueError(f"cannot make {path}: {exc.strerror}") from exc


def say_written(names: Sequence[str], directory: str, console: Console) -> None:
    """Say which files were written."""
    *others, last = names
    said = f"{', '.join(others)} and {last}" if others else last
    console.print(f"written: {os.path.relpath(directory)}/{said}", markup=False)


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
