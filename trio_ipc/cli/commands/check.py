"""``trio-ipc check ENDPOINT``: whether a server, or with ``--listen`` a client, keeps the wire protocol."""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from trio_ipc.cli import arguments, output
from trio_ipc.cli.ending import Status
from trio_ipc.cli.group import Command

if TYPE_CHECKING:
    import trio
    from google.protobuf.message import Message

    from trio_ipc import Contract, IpcConfig
    from trio_ipc.testing.conformance import Conformance, Finding

#: How the verdicts look on a terminal that has colours.
_STYLES = {"kept": "green", "broken": "bold red", "not shown": "dim"}


@click.command(cls=Command)
@arguments.endpoint_argument
@click.option("--listen", is_flag=True, help="Play a server at ENDPOINT, and check the client that comes.")
@click.option(
    "--hostile",
    is_flag=True,
    help="Send what the protocol forbids, too, and take every place. A peer that breaks rules may break down "
    "by it, and others may have to wait.",
)
@click.option(
    "--deadlines",
    is_flag=True,
    help="Check what takes as long as the peer's read deadline, too (30 s unless set; twice for a server).",
)
@arguments.request_option(
    "A request that does no harm, to ask a server with; by default, the contract's negotiation."
)
@click.option(
    "--patience",
    type=arguments.SECONDS,
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How soon the peer has to do what takes no handler, such as closing.",
)
@click.option(
    "--wait",
    type=arguments.SECONDS,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="With --listen: end when nobody has asked for so long.",
)
@arguments.contract_option
@arguments.config_option
@arguments.json_option
def command(
    endpoint: str,
    contract: Contract[Any, Any],
    config_file: str | None,
    json_form: str | None,
    request_json: str | None,
    *,
    listen: bool,
    hostile: bool,
    deadlines: bool,
    patience: float,
    wait: float,
) -> int:
    """Check whether the server at ENDPOINT keeps the wire protocol; with --listen, whether a client does.

    Without --hostile the command sends nothing that a correct peer would not send. The settings that the peer
    should have (max_frame_bytes, max_connections, read_timeout_ms, crc32_variant) come from --config and
    TRIO_IPC_... variables.

    With --listen each request is answered in another way. A client that makes many requests sees all of
    them; a client that makes one must be run again until the command ends. Ctrl-C ends it with the findings
    so far.

    \b
      trio-ipc check ./s.sock
      trio-ipc check ./s.sock --hostile --json
      trio-ipc check --listen ./of-a-test.sock

    Each finding has the rule's number, its text, and what was seen. The exit status is 0 if some rules were
    kept and none was broken, 3 if there is no peer to check, and 1 otherwise.
    """  # noqa: D301 - click's mark for lines that stay as they are
    from trio_ipc.cli.running import run_async  # noqa: PLC0415 - not for completion

    config = arguments.settings(endpoint, config_file)
    options: dict[str, Any] = {"hostile": hostile, "deadlines": deadlines, "patience": patience}
    if listen:
        if request_json is not None:
            context = click.get_current_context()
            raise click.UsageError("--request is for a server: with --listen the client asks", context)
        check = partial(_check_client, contract, config, wait=wait, **options)
    else:
        request = _request(contract, request_json)
        check = partial(_check_server, contract, config, request=request, **options)
    found: Conformance = run_async(check)
    with contextlib.suppress(output.ReaderGoneError):  # what was found stays so
        if json_form is None:
            _show(found)
        else:
            output.write_json(found.as_dict(), json_form)
    return Status.DONE if found.ok else Status.NO


def _request(contract: Contract[Any, Any], text: str | None) -> Callable[[], Message] | None:
    if text is None:
        if contract.negotiation is None:
            raise click.UsageError(
                f"the contract {contract.name} has no negotiation: give one that does no harm by --request",
                click.get_current_context(),
            )
        return None
    asked = arguments.request_in(text, contract, "--request")
    return lambda: asked


async def _check_server(contract: Contract[Any, Any], config: IpcConfig, **options: Any) -> Conformance:
    from trio_ipc.cli.waiting import waiting  # noqa: PLC0415
    from trio_ipc.testing import SystemEndpoint  # noqa: PLC0415
    from trio_ipc.testing.conformance import check_server  # noqa: PLC0415

    place = SystemEndpoint(config.endpoint_path)
    what = f"checking the server at {config.endpoint_path}"
    with waiting(what) as shown:

        def advance(finding: Finding) -> None:
            shown.say(f"{what}: {finding.rule.number} {finding.verdict.value}")

        return await check_server(contract, place, config, on_finding=advance, **options)


async def _check_client(contract: Contract[Any, Any], config: IpcConfig, **options: Any) -> Conformance:
    import trio  # noqa: PLC0415

    from trio_ipc.cli.running import heeded_signals  # noqa: PLC0415
    from trio_ipc.daemoneye import DETECTION  # noqa: PLC0415
    from trio_ipc.testing import SystemEndpoint  # noqa: PLC0415
    from trio_ipc.testing.conformance import check_client  # noqa: PLC0415

    stop = trio.Event()
    found: list[Conformance] = []
    place = SystemEndpoint(config.endpoint_path)
    with heeded_signals(signal.SIGINT) as interrupts:
        async with trio.open_nursery() as nursery:

            async def check(*, task_status: trio.TaskStatus[None]) -> None:
                result = await check_client(
                    contract,
                    place,
                    config,
                    answer=_success if contract is DETECTION else None,
                    stop=stop,
                    on_finding=_say,
                    task_status=task_status,
                    **options,
                )
                found.append(result)
                nursery.cancel_scope.cancel()

            await nursery.start(check)
            output.say(f"listening at {output.one_line(config.endpoint_path)}: run the client now")
            async for _ in interrupts:
                stop.set()
    return found[0]


def _success(task: Any) -> Message:
    from trio_ipc.daemoneye import DetectionResult  # noqa: PLC0415

    return DetectionResult(task_id=task.task_id, success=True)


# --- What a person sees ------------------------------------------------------------------------------------


def _say(finding: Finding) -> None:
    if finding.verdict.value != "not shown":
        output.say(f"{finding.rule.number} {finding.verdict.value}: {output.one_line(finding.seen)}")


def _show(found: Conformance) -> None:
    counted = Counter(finding.verdict.value for finding in found.findings)
    total = ", ".join(f"{counted[verdict]} {verdict}" for verdict in _STYLES)
    if output.on_terminal():
        _show_table(found)
    else:
        for finding in found.findings:
            seen = output.one_line(finding.seen)
            says = finding.rule.says.removesuffix(".")
            output.write(f"{finding.rule.number:<4} {finding.verdict.value:<10} {says}: {seen}")
    output.write(f"{found.side} at {output.one_line(found.endpoint)}: {total}")


def _show_table(found: Conformance) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in found.findings:
        verdict = finding.verdict.value
        seen = Text(f"{finding.rule.says}\n").append(output.one_line(finding.seen), style="dim")
        table.add_row(finding.rule.number, Text(verdict, style=_STYLES[verdict]), seen)
    with output.writing():
        output.console().print(table)
