"""The program: its options, its commands, and how it is run."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import click

from trio_ipc import __version__, streams

from . import output
from .commands import COMMANDS, Entry
from .ending import end
from .group import COMPLETION_VARIABLE, PROGRAM, TableGroup

_HELP: Final = """Inspect endpoints, call servers and check peers, on this machine.

ENDPOINT is the path of a server's Unix socket; on Windows it is a pipe's name. Begin with an unknown server
in this order:

\b
  trio-ipc info ./s.sock                  which server is there
  trio-ipc describe                       which messages it takes
  trio-ipc call ./s.sock '{"task_id": "1"}'
  trio-ipc doctor ./s.sock                what is wrong

Results go to standard output, everything else to standard error. The contract is DaemonEye's, unless
--contract names another one. 'trio-ipc COMMAND --help' describes a command.

\b
Exit status:
  0  success
  1  done, with a negative result: a broken rule, a failed response
  2  the command line or a setting is wrong; nothing was begun
  3  no server could be reached at the endpoint, or the command cannot listen there
  4  a connection failed after it had begun, or the system refused a resource
  5  standard output, or the file of capture, cannot be written
  128 and the number of the signal that ended it: 130 after Ctrl-C
"""


def program(table: Mapping[str, Entry]) -> click.Group:
    """Return the program with these commands."""
    group = TableGroup(
        name=PROGRAM,
        help=_HELP,
        table=table,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    # Not click's own, which would write it by itself.
    return click.option(
        "-V",
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_version,
        help="Show the version and exit.",
    )(group)


def _show_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        output.write(f"{PROGRAM} {__version__}")
        ctx.exit()


def _complete(group: click.Group, given: list[str]) -> object:
    try:
        with output.writing():  # click writes it, and nothing else is done then
            return group.main(
                given, prog_name=PROGRAM, complete_var=COMPLETION_VARIABLE, standalone_mode=False
            )
    except (KeyError, ValueError, SystemExit) as exc:  # a shell sets COMP_WORDS and COMP_CWORD as well
        if isinstance(exc, SystemExit) and not exc.code:
            raise
        problem = f"{COMPLETION_VARIABLE} is set, which only a shell does that completes a command: unset it"
        raise click.UsageError(problem) from exc


def run(arguments: Sequence[str] | None = None, table: Mapping[str, Entry] = COMMANDS) -> int:
    """Run the program with these commands; whatever ends it becomes an exit status and a line.

    Args:
        arguments: what follows the program's name; None for those of this process.
        table: the commands.

    Returns:
        The exit status.
    """
    streams.prepare()
    # click would expand wildcards on Windows by itself, and in an endpoint's name none are meant.
    given = sys.argv[1:] if arguments is None else [*arguments]

    def body() -> object:
        group = program(table)
        if os.environ.get(COMPLETION_VARIABLE):
            return _complete(group, given)
        # Not by main(), which would end the process at any EPIPE.
        with group.make_context(PROGRAM, given) as context:
            return group.invoke(context)

    try:
        return end(body)
    finally:
        streams.discard_what_is_stuck()
