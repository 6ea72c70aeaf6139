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
    from trio_ipc.testing.recorder import FileObserver


@click.command(cls=Command)
@arguments.endpoint_argument
@click.argument("file", type=click.Path())
@click.option(
    "--format",
    "form",
    type=click.Choice(["recording", "pcapng"]),
    help="What FILE becomes: a recording, for 'show' and 'replay', or packets for Wireshark. By default "
    "pcapng where its name ends so, else a recording.",
)
@arguments.relay_options
@arguments.contract_option
@arguments.config_option
def command(
    endpoint: str,
    file: str,
    contract: Contract[Any, Any],
    config_file: str | None,
    *,
    form: str | None,
    listen_at: str,
    seconds: float | None,
) -> int:
    """Record what clients that connect to AT and the server at ENDPOINT say to each other.

    \b
      trio-ipc capture ./s.sock said.jsonl --listen ./between.sock
      trio-ipc capture ./s.sock said.pcapng --listen ./between.sock

    Clients connect to ./between.sock meanwhile. FILE is made, with mode 0600, and must not exist: payloads
    may hold secrets. 'trio-ipc show' reads a recording, and 'trio-ipc replay' makes its requests again;
    Wireshark reads pcapng, by the dissector docs/trio-ipc.lua of the source. Bytes are passed on as they are,
    whatever is in them.

    The server sees this process as its client, and clients see it as the server. It ends at Ctrl-C, SIGTERM,
    or after --seconds, with connections that are open; the file is whole then. The exit status is 0 then,
    2 where FILE exists, and 5 where it took no more, which stops the recording and not the connections.
    """  # noqa: D301 - click's mark for lines that stay as they are
    from trio_ipc.cli.pcapng import PcapngFile, is_pcapng  # noqa: PLC0415
    from trio_ipc.cli.running import run_async  # noqa: PLC0415 - not for completion
    from trio_ipc.testing import Recorder  # noqa: PLC0415

    config = arguments.settings(endpoint, config_file)
    as_pcapng = is_pcapng(file) if form is None else form == "pcapng"
    recorder = PcapngFile(file, config) if as_pcapng else Recorder(file, contract, config)
    run_async(partial(_capture, recorder, config, listen_at, seconds))
    return Status.DONE


async def _capture(recorder: FileObserver, config: IpcConfig, listen_at: str, seconds: float | None) -> None:
    from trio_ipc import EndpointError  # noqa: PLC0415
    from trio_ipc.cli.relaying import relay_until_stopped  # noqa: PLC0415

    try:
        with recorder:
            await relay_until_stopped(recorder, config.endpoint_path, listen_at, seconds, "recording")
    except EndpointError:  # nobody could come: the next try wants the file's name
        recorder.remove_if_empty()
        raise
    except OSError as exc:
        if exc is recorder.failure:
            raise output.OutputError(f"{recorder.path}: {exc.strerror}") from exc
        raise
