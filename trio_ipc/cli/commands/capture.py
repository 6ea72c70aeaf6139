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
@arguments.relay_options
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
    or after --seconds, with connections that are open; the file is whole then. The exit status is 0 then,
    2 where FILE exists, and 5 where it took no more, which stops the recording and not the connections.
    """
    from trio_ipc.cli.running import run_async  # noqa: PLC0415 - not for completion

    config = arguments.settings(endpoint, config_file)
    run_async(partial(_capture, contract, config, file, listen_at, seconds))
    return Status.DONE


async def _capture(
    contract: Contract[Any, Any], config: IpcConfig, file: str, listen_at: str, seconds: float | None
) -> None:
    from trio_ipc.cli.relaying import relay_until_stopped  # noqa: PLC0415
    from trio_ipc.testing import Recorder  # noqa: PLC0415

    recorder = Recorder(file, contract, config)
    try:
        with recorder:
            await relay_until_stopped(recorder, config.endpoint_path, listen_at, seconds, "recording")
    except OSError as exc:
        if exc is recorder.failure:
            raise output.OutputError(f"{file}: {exc.strerror}") from exc
        raise
