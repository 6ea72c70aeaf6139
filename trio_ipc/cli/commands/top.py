"""``trio-ipc top FILE...``: a running server's counters, live."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from trio_ipc.cli import arguments, output
from trio_ipc.cli.ending import Status
from trio_ipc.cli.group import Command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from trio_ipc.cli.counters import Reading, View

    #: Shows the views, and those of them that are new.
    Show = Callable[[Sequence[View], Sequence[View]], None]


@click.command(cls=Command)
@click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE...")
@click.option("--once", is_flag=True, help="Show what the files say now, and end.")
@click.option(
    "--interval",
    type=arguments.SECONDS,
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often the files are looked at.",
)
@arguments.json_option
def command(files: tuple[str, ...], json_form: str | None, *, once: bool, interval: float) -> int:
    """Show the counters of running servers, live: connections, requests, failures, times.

    FILE is where a server writes them, again and again:

    \b
      trio-ipc serve app:handle ./s.sock \\
          --snapshot-file s.json --snapshot-interval 1
      trio-ipc top s.json
      trio-ipc top s.json --once --json

    A program of yours does it by run_service(snapshot_file=, snapshot_interval=). Nothing is asked of the
    server, and the file is its user's alone: run this as that user, or as root.

    Rates and handlers' times are those between the last two writings; times are known by their histogram, as
    "no longer than". A file that is not written any longer is marked. On a terminal the view is redrawn,
    until Ctrl-C; into a pipe, or where the terminal is dumb, each writing is shown below the one before. With
    --json each is a value.

    The exit status is 0 also after Ctrl-C, and 2 where a file cannot be read or holds something else.
    """  # noqa: D301 - click's mark for lines that stay as they are
    from trio_ipc.cli.counters import View  # noqa: PLC0415 - not for completion
    from trio_ipc.cli.running import run_async  # noqa: PLC0415

    views = [View(_first(file)) for file in files]
    if json_form is not None:
        _show_json(json_form, views, views)
    elif once or not output.redraws():
        _show_text(views, views)
    if once:
        return Status.DONE
    if json_form is None and output.redraws():
        run_async(partial(_redraw, views, interval))
    else:
        show = _show_text if json_form is None else partial(_show_json, json_form)
        run_async(partial(_watch, views, interval, show))
    return Status.DONE


def _first(file: str) -> Reading:
    from trio_ipc.cli.counters import NoCountersError, read  # noqa: PLC0415

    try:
        return read(file)
    except NoCountersError as exc:
        context = click.get_current_context()
        raise click.BadParameter(f"{file}: {exc}", context, param_hint="FILE") from exc


async def _watch(views: list[View], interval: float, show: Show) -> None:
    """Read the files again and again, until a signal. One that is gone for a while says nothing new."""
    import trio  # noqa: PLC0415

    from trio_ipc.cli.counters import NoCountersError, read  # noqa: PLC0415
    from trio_ipc.cli.running import heeded_signals  # noqa: PLC0415
    from trio_ipc.transports.host import COMMAND_STOP_SIGNALS  # noqa: PLC0415

    with heeded_signals(*COMMAND_STOP_SIGNALS) as stops:
        while True:
            with trio.move_on_after(interval):
                async for _ in stops:
                    return
            new = []
            for place, view in enumerate(views):
                try:
                    later = view.followed_by(read(view.now.file))
                except (OSError, NoCountersError):
                    continue
                if later is not view:
                    views[place] = later
                    new.append(later)
            show(views, new)


async def _redraw(views: list[View], interval: float) -> None:
    from rich.live import Live  # noqa: PLC0415

    live = Live(_drawn(views), console=output.console(), auto_refresh=False)
    with output.writing():
        live.start(refresh=True)

    def show(all_of_them: Sequence[View], _new: Sequence[View]) -> None:
        with output.writing():
            live.update(_drawn(all_of_them), refresh=True)

    try:
        await _watch(views, interval, show)
    finally:
        with output.writing():
            live.stop()


def _show_json(form: str, _views: Sequence[View], new: Sequence[View]) -> None:
    for view in new:
        output.write_json(view.as_json(time.time()), form)
    output.flush()


def _show_text(_views: Sequence[View], new: Sequence[View]) -> None:
    if new and output.on_terminal():
        with output.writing():
            output.console().print(_drawn(new))
        return
    for view in new:
        for name, text, _ in view.head(time.time()):
            output.write(f"{name:<28} {output.one_line(text)}")
        for row in view.rows():
            each = "" if row.each_second is None else f"{row.each_second:>12,.1f}/s"
            output.write(f"{output.one_line(row.name):<28} {row.value:>15}{each}")
        output.write("")
    output.flush()


def _drawn(views: Sequence[View]) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    parts: list[RenderableType] = []
    for view in views:
        head = Table(box=None, pad_edge=False, show_header=False)
        head.add_column(no_wrap=True, style="bold")
        head.add_column(overflow="fold")
        for name, text, bad in view.head(time.time()):
            head.add_row(name, Text(output.one_line(text), style="bold red" if bad else ""))
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(overflow="fold")
        table.add_column(justify="right", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        for row in view.rows():
            bad = row.name.startswith(("failed", "refused", "timeouts"))
            each = "" if row.each_second is None else f"{row.each_second:,.1f}/s"
            table.add_row(Text(output.one_line(row.name), style="red" if bad else ""), row.value, each)
        parts += [head, "", table, ""]
    return Group(*parts[:-1])
