"""``trio-ipc show FILE``: a recording, as people or programs read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from trio_ipc.cli import arguments, output
from trio_ipc.cli.ending import Status
from trio_ipc.cli.group import Command

if TYPE_CHECKING:
    from trio_ipc import Contract


@click.command(cls=Command)
@click.argument("file", type=click.Path())
@arguments.contract_option
@arguments.json_option
def command(file: str, contract: Contract[Any, Any], json_form: str | None) -> int:
    """Show a recording: what 'trio-ipc capture', or the Recorder of trio_ipc.testing, has written to FILE.

    As text, each message follows what happened, and '!!' marks what was wrong; without a contract of the
    recording's name, payloads are shown as bytes. As JSON, requests and responses stand side by side.

    \b
      trio-ipc show said.jsonl
      trio-ipc show said.jsonl --json

    The exit status is 1 where the recording is damaged, or ends early.
    """  # noqa: D301 - click's mark for lines that stay as they are
    from trio_ipc.cli.recorded import (  # noqa: PLC0415 - not for completion
        as_json,
        contract_for,
        recording_in,
        say_damage,
    )

    recording = recording_in(file)
    fitting = contract_for(recording, contract)
    if json_form is not None:
        if fitting is None:
            raise click.UsageError(
                f"the recording is of the contract {recording.contract!r}: give it by --contract",
                click.get_current_context(),
            )
        output.write_json(as_json(recording, fitting), json_form)
    else:
        for line in recording.lines(fitting):
            output.write(line)
    return Status.NO if say_damage(recording, file) else Status.DONE
