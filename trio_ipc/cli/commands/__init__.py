"""The table of commands. A new one is a line here and a file beside this one.

The file has a ``command``, made by ``@click.command(cls=Command)`` (see :mod:`trio_ipc.cli.group`), whose
function returns an exit status. The help stands here, so that nothing is loaded to list the commands. Where a
command needs what is large (protobuf, trio, rich), it imports that when it runs: completion loads it as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Entry(NamedTuple):
    """One command of the table.

    Attributes:
        module: where its ``command`` is, in full.
        help: one line, for the list of commands.
    """

    module: str
    help: str


#: The commands, in the order in which help lists them.
COMMANDS: Final[Mapping[str, Entry]] = {
    "call": Entry(f"{__name__}.call", "Call a server with requests as JSON."),
    "describe": Entry(f"{__name__}.describe", "Describe a contract: its messages and fields."),
    "info": Entry(f"{__name__}.info", "Tell who listens at an endpoint, and what they answer."),
    "doctor": Entry(f"{__name__}.doctor", "Find out what is wrong with an endpoint."),
    "serve": Entry(f"{__name__}.serve", "Serve with a handler of yours."),
    "top": Entry(f"{__name__}.top", "Show a running server's counters, live."),
    "monitor": Entry(f"{__name__}.monitor", "Show what goes between clients and a server, live."),
    "capture": Entry(f"{__name__}.capture", "Record what goes between clients and a server."),
    "show": Entry(f"{__name__}.show", "Show what was recorded."),
    "replay": Entry(f"{__name__}.replay", "Make recorded requests again, and compare the responses."),
    "bench": Entry(f"{__name__}.bench", "Measure how long a server takes to answer."),
    "check": Entry(f"{__name__}.check", "Check whether a server, or a client, keeps the wire protocol."),
    "completion": Entry(f"{__name__}.completion", "Print what makes a shell complete this command."),
}
