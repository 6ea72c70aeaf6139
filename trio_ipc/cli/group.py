"""How commands are made, found in the table and loaded; what their help looks like."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterable, Mapping
from typing import Any, Final

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from . import output
from .commands import Entry

PROGRAM: Final = "trio-ipc"

#: The variable by which a shell asks for completions (click's, for this program's name).
COMPLETION_VARIABLE: Final = "_TRIO_IPC_COMPLETE"


#: Columns that help has at least, and below which a text stands under what it is about.
_LEAST: Final = 30
_NARROW: Final = 60


class _Formatter(click.HelpFormatter):
    """Help for narrow terminals, too: click's own takes 50 columns at least, 30 of which are for options."""

    def __init__(
        self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None
    ) -> None:
        columns = min(shutil.get_terminal_size().columns, max_width or 80) - 2
        super().__init__(indent_increment, max(columns, _LEAST) if width is None else width, max_width)

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write options, or commands, and what they are."""
        if self.width >= _NARROW:
            super().write_dl(rows, col_max, col_spacing)
            return
        for name, text in rows:
            self.write(f"{'':>{self.current_indent}}{name}\n")
            with self.indentation(), self.indentation():
                self.write_text(text)


class _Context(click.Context):
    formatter_class = _Formatter


class _Help(click.Command):
    """Writes help by this program's own means: click's would take a full disk for an error of anything."""

    context_class = _Context

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return the option, None where the command has none."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = _show_help
        return option


def _show_help(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        output.write(ctx.get_help())
        ctx.exit()


class Command(_Help):
    """A command whose ``--json`` may stand without a value, also before an argument."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command's arguments. A bare ``--json`` is ``--json=auto``.

        click would take the word after it for its value.
        """
        if any("--json" in parameter.opts for parameter in self.params):
            options = args.index("--") if "--" in args else len(args)
            bare = ["--json=auto" if word == "--json" else word for word in args[:options]]
            args = [*bare, *args[options:]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. An error that another contract may explain says so if none was named."""
        try:
            return super().invoke(ctx)
        except BaseException as exc:
            if ctx.get_parameter_source("contract") is ParameterSource.DEFAULT:
                _hint_at_contract(exc)
            raise


def _hint_at_contract(raised: BaseException) -> None:
    from trio_ipc.errors import ResponseMismatchError, UndecodableMessageError, leaves  # noqa: PLC0415

    for cause in leaves(raised):
        if isinstance(cause, ResponseMismatchError | UndecodableMessageError):
            cause.hint += "; DaemonEye's contract was used: name another by --contract MODULE:NAME"


class TableGroup(_Help, click.Group):
    """Commands from a table, each loaded when it is asked for.

    Args:
        table: name, module and help of each.
        settings: what :class:`click.Group` takes.
    """

    def __init__(self, *, table: Mapping[str, Entry], **settings: Any) -> None:
        super().__init__(**settings)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, in the table's order."""
        del ctx
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command, None where the table has none of this name."""
        del ctx
        entry = self._table.get(cmd_name)
        if entry is None:
            return None
        found = importlib.import_module(entry.module).command
        assert isinstance(found, click.Command)  # noqa: S101 - the table is ours
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self._table.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name without loading any."""
        names = [
            CompletionItem(name, help=entry.help)
            for name, entry in self._table.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]
