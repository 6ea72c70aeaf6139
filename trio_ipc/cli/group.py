"""How commands are made, found in the table and loaded; what their help looks like."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from . import output
from .commands import Entry

PROGRAM: Final = "trio-ipc"

#: The variable by which a shell asks for completions (click's, for this program's name).
COMPLETION_VARIABLE: Final = "_TRIO_IPC_COMPLETE"


class Command(click.Command):
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


class TableGroup(click.Group):
    """Commands from a table, each loaded when it is asked for.

    Args:
        table: name, module and help of each.
        settings: what :class:`click.Group` takes.
    """

    def __init__(self, *, table: Mapping[str, Entry], **settings: Any) -> None:
        super().__init__(**settings)
        self._table = table

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the arguments; help and version are written here.

        Raises:
            ReaderGoneError: nobody reads them. click would end the process by itself.
        """
        with output.gone_readers_told():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, or write its help; raises as :meth:`make_context` does."""
        with output.gone_readers_told():
            return super().invoke(ctx)

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
