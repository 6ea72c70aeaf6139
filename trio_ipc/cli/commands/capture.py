"""``trio-ipc capture ENDPOINT FILE --listen AT``: write down what goes between clients and a server."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from trio_ipc.cli import arguments, output
from trio_ipc.cli.ending import Status
from trio_ipc.cli.group import Command

if TYPE_CHECKING:
    from trio_ipc import Contract, IpcConfig


@click.command(cls=Command)
@arguments.endpoint_argument
@click.argument("file", type=click.Path())
@click.option(
    "--listen",
    "listen_at",
    type=arguments.ENDPOINT,
    required=True,
    metavar="AT",
    help="The endpoint where clients come, whose bytes are passed on to ENDPOINT and back.",
)
@click.option(
    "--seconds",
    type=arguments.SECONDS,
    metavar="SECONDS",
    help="End after so long. By default at Ctrl-C.",
)
@arguments.contract_option
@arguments.config_option
def command(
    endpoint: str,
    file: str,
    contract: Contract[Any, Any],
    config_file: str | None,
    *,
    listen_at: str,
    seconds: float | None,
) -> int:
    """Record what clients that connect to AT and the server at ENDPOINT say to each other.

    FILE is made, with mode 0600, and must not exist: payloads may hold secrets. 'trio-ipc show' reads it,
    and 'trio-ipc replay' makes its requests again. Bytes are passed on as they are, whatever is in them.

    The server sees this process as its client, and clients see it as the server. It ends at Ctrl-C, SIGTERM,
    or after --seconds, with connections that are open; the file is whole then. The exit status is 0 then, and
    2 where FILE exists.
    """
    from trio_ipc.cli.running import run_async  # noqa: PLC0415 - not for completion

    config = arguments.settings(endpoint, config_file)
    run_async(partial(_capture, contract, config, file, listen_at, seconds))
    return Status.DONE


async def _capture(
    contract: Contract[Any, Any], config: IpcConfig, file: str, listen_at: str, seconds: float | None
) -> None:
    import math  # noqa: PLC0415
    import signal  # noqa: PLC0415

    import trio  # noqa: PLC0415

    from trio_ipc.cli.running import STOP_SIGNALS  # noqa: PLC0415
    from trio_ipc.testing import Recorder, SystemEndpoint, relay  # noqa: PLC0415

    with (
        trio.open_signal_receiver(signal.SIGINT, *STOP_SIGNALS) as stops,
        Recorder(file, contract, config) as recorder,
    ):
        async with relay(SystemEndpoint(listen_at), SystemEndpoint(config.endpoint_path), wrap=recorder.wrap):
            output.say(f"recording what comes to {output.one_line(listen_at)}; Ctrl-C ends it")
            with trio.move_on_after(math.inf if seconds is None else seconds):
                async for _ in stops:
                    break
