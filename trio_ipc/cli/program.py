"""The program: its options, its commands, and how it is run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Final

import click

from trio_ipc import __version__, streams

from .commands import COMMANDS, Entry
from .ending import end
from .group import COMPLETION_VARIABLE, PROGRAM, TableGroup

_HELP: Final = """Look into endpoints, call servers and check peers, on this machine.

Results go to standard output, everything else to standard error.

\b
Exit status:
  0  done, and what was asked holds
  1  done, and it does not hold: a broken rule, a failed response
  2  the command line or a setting is wrong
  3  nobody could be reached at the endpoint, or it cannot be listened at
  4  a conversation failed
  5  standard output, or capture's file, takes nothing
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
    return click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")(group)


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
    try:
        return end(
            lambda: program(table).main(
                given, prog_name=PROGRAM, complete_var=COMPLETION_VARIABLE, standalone_mode=False
            )
        )
    finally:
        streams.discard_what_is_stuck()
