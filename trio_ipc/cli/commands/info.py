"""``trio-ipc info ENDPOINT``: who listens there, since when, and what they answer."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import click

from trio_ipc.cli import arguments, output
from trio_ipc.cli.ending import Status
from trio_ipc.cli.group import PROGRAM, Command

if TYPE_CHECKING:
    from trio_ipc import Contract, IpcConfig, PeerPolicy


@click.command(cls=Command)
@arguments.endpoint_argument
@click.option("--silent", is_flag=True, help="Send nothing: only connect, and see who is there.")
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
    silent: bool,
    timeout: float,
    trusted: tuple[str, ...],
) -> int:
    """Tell who listens at ENDPOINT: the process and its user, since when, and how it answers.

    \b
    The state is one of
      alive      somebody listens
      absent     there is nothing at the path
      stale      a socket is there, and nobody listens: its server has ended
      forbidden  this user may not connect
      busy       nobody took the connection in time
      unusable   anything else, such as a file that is no socket

    A trusted server is asked what it can do, or whether it is well, if the contract has a request for that.
    Its response shows which checksum variant it speaks. A server of a user who is not trusted is shown, but
    not asked.

    \b
      trio-ipc info ./s.sock
      trio-ipc info ./s.sock --silent --json

    The exit status is 0 if a trusted server answers (with --silent: listens), 1 if the server is not trusted
    or does not answer, and 3 if no server could be reached.
    """  # noqa: D301 - click's mark for lines that stay as they are
    from trio_ipc.cli.running import run_async  # noqa: PLC0415 - not for completion

    config = arguments.settings(endpoint, config_file)
    policy = arguments.peers(trusted)
    found = run_async(partial(_find, contract, config, policy, None if silent else timeout))
    if json_form is None:
        _show(found, None if silent else contract)
    else:
        output.write_json(found, json_form)
    if found["state"] != "alive":
        said = f"{endpoint}: {found['why']}; {found['advice']}"
        output.say(f"{PROGRAM}: {output.one_line(said)}")
        return Status.UNREACHABLE
    return Status.DONE if found["trusted"] and found["why"] is None else Status.NO


async def _find(
    contract: Contract[Any, Any],
    config: IpcConfig,
    policy: PeerPolicy,
    timeout: float | None,  # noqa: ASYNC109 - one response's; None to ask nothing
) -> dict[str, Any]:
    from trio_ipc.cli import looking  # noqa: PLC0415
    from trio_ipc.cli.messages import value_of  # noqa: PLC0415
    from trio_ipc.cli.waiting import waiting  # noqa: PLC0415

    with waiting(f"looking at {config.endpoint_path}"):
        look = await looking.look_at(config, policy)
        answer = None
        if look.trusted and timeout is not None:
            answer = await looking.ask(contract, config, policy, timeout)
    found = {**attrs.asdict(look), "transport": str(config.transport)}
    found.update(variant=None, answer=None)
    if answer is not None:
        found["why"] = answer.why
        found["variant"] = None if answer.variant is None else str(answer.variant)
        found["answer"] = None if answer.response is None else value_of(answer.response)
    return found


def _show(found: dict[str, Any], asked: Contract[Any, Any] | None) -> None:
    """Show what was found; ``asked`` is the contract, None where nothing was to be asked."""
    from trio_ipc.cli import looking  # noqa: PLC0415

    shown = dict(found)
    if shown["answer"] is not None:
        shown["answer"] = json.dumps(shown["answer"])
    elif shown["trusted"] and shown["why"] is None and asked is not None:
        shown["answer"] = looking.not_asked(asked)
    pairs = list(looking.lines(shown))
    width = max(len(name) for name, _ in pairs)
    if not output.on_terminal():
        output.write("\n".join(f"{name:<{width}}  {output.one_line(text)}" for name, text in pairs))
        return
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, text in pairs:
        good = {"alive": "green"}.get(text, "bold red") if name == "state" else ""
        table.add_row(name, Text(output.one_line(text), style=good))
    with output.writing():
        output.console().print(table)
