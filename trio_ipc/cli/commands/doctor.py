"""``trio-ipc doctor ENDPOINT``: what is wrong with an endpoint, and what to do about it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from trio_ipc.cli import arguments, output
from trio_ipc.cli.ending import Status
from trio_ipc.cli.group import Command

if TYPE_CHECKING:
    from trio_ipc import Contract
    from trio_ipc.transports.findings import Finding

_STYLES = {"good": "green", "warning": "yellow", "broken": "bold red"}


@click.command(cls=Command)
@click.argument("endpoint")
@arguments.answer_timeout_option
@arguments.trust_option
@arguments.contract_option
@arguments.config_option
@arguments.json_option
def command(
    endpoint: str,
    contract: Contract[Any, Any],
    config_file: str | None,
    json_form: str | None,
    *,
    timeout: float,
    trusted: tuple[str, ...],
) -> int:
    """Examine ENDPOINT from its name to a response, and say what is wrong and what to do.

    In turn: the name; the settings; the way to the socket; its directory, as a server of this user judges it;
    the lock of starters; the socket file and whom it lets in; who listens; whether a client of this user
    trusts that one (--trust names further users); and what is answered, in which checksum variant, to a
    request that does no harm. Nothing is changed. Run it as the user who has the problem.

    \b
      trio-ipc doctor ./s.sock
      sudo -u agent trio-ipc doctor /run/procmond/s.sock

    The exit status is 0 if nothing is broken, and 1 otherwise.
    """  # noqa: D301 - click's mark for lines that stay as they are
    from trio_ipc.cli.examining import examine  # noqa: PLC0415 - not for completion
    from trio_ipc.cli.running import run_async  # noqa: PLC0415

    policy = arguments.peers(trusted)
    load = partial(arguments.settings, config_file=config_file)
    found = run_async(partial(examine, endpoint, contract, load, policy, timeout))
    good = all(one.verdict != "broken" for one in found)
    if json_form is None:
        _show(found)
    else:
        value = {"endpoint": endpoint, "ok": good, "findings": [one.as_dict() for one in found]}
        output.write_json(value, json_form)
    return Status.DONE if good else Status.NO


def _show(found: list[Finding]) -> None:
    if not output.on_terminal():
        for one in found:
            text = f"{one.seen}; {one.advice}" if one.advice else one.seen
            output.write(f"{one.verdict:<8} {one.about:<9} {output.one_line(text)}")
        return
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in found:
        told = Text(output.one_line(one.seen))
        if one.advice:
            told.append(f"\n-> {output.one_line(one.advice)}", style="bold")
        table.add_row(Text(one.verdict, style=_STYLES[one.verdict]), one.about, told)
    with output.writing():
        output.console().print(table)
