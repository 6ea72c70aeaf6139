"""``trio-ipc describe``: what can be asked by a contract, and what is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from trio_ipc.cli import arguments, output
from trio_ipc.cli.ending import Status
from trio_ipc.cli.group import Command

if TYPE_CHECKING:
    from trio_ipc import Contract


@click.command(cls=Command)
@arguments.contract_option
@arguments.json_option
def command(contract: Contract[Any, Any], json_form: str | None) -> int:
    """Describe a contract: its requests and responses, with every message and field within.

    No server is needed: both sides know the contract, and nothing of it goes over the connection. The example
    is a request for 'trio-ipc call', to be filled in.

    \b
      trio-ipc describe
      trio-ipc describe --contract my_module:CONTRACT
      trio-ipc describe --json=pretty
    """  # noqa: D301 - click's mark for lines that stay as they are
    from trio_ipc.cli import described  # noqa: PLC0415 - it loads protobuf, which completion has no use for

    if json_form is not None:
        output.write_json(described.described(contract), json_form)
        return Status.DONE
    output.write("\n".join(described.lines(contract)))
    return Status.DONE
