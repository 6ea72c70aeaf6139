"""``trio-ipc monitor ENDPOINT --listen AT``: show what goes between clients and a server, while it goes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from trio_ipc.cli import arguments, output
from trio_ipc.cli.ending import Status
from trio_ipc.cli.group import Command

if TYPE_CHECKING:
    from trio_ipc import Contract
    from trio_ipc.testing.recorder import Event
    from trio_ipc.testing.recording import FrameReader


@click.command(cls=Command)
@arguments.endpoint_argument
@arguments.relay_options
@arguments.contract_option
@arguments.config_option
@arguments.json_option
def command(
    endpoint: str,
    contract: Contract[Any, Any],
    config_file: str | None,
    json_form: str | None,
    *,
    listen_at: str,
    seconds: float | None,
) -> int:
    """Show what clients that connect to AT and the server at ENDPOINT say to each other.

    \b
      trio-ipc monitor ./s.sock --listen ./between.sock

    Clients connect to ./between.sock meanwhile. Each message is shown as soon as it is whole, with the time
    since the first connection, the connection's number, and who sent it; '!!' marks what is wrong. As JSON,
    each message is a value of its own.

    The server sees this process as its client, and clients see it as the server. Bytes are passed on as they
    are, whatever is in them. It ends at Ctrl-C, SIGTERM, or after --seconds, with status 0.
    """  # noqa: D301 - click's mark for lines that stay as they are
    from trio_ipc.cli.relaying import relay_until_stopped  # noqa: PLC0415 - not for completion
    from trio_ipc.cli.running import run_async  # noqa: PLC0415
    from trio_ipc.testing.recorder import StreamObserver  # noqa: PLC0415
    from trio_ipc.testing.recording import FrameReader  # noqa: PLC0415

    config = arguments.settings(endpoint, config_file)
    reader = FrameReader(config.max_frame_bytes, config.crc32_variant)
    observer = StreamObserver(partial(_show, contract, json_form, reader))
    run_async(partial(relay_until_stopped, observer, endpoint, listen_at, seconds, "showing"))
    return Status.DONE


def _show(contract: Contract[Any, Any], json_form: str | None, reader: FrameReader, event: Event) -> None:
    from trio_ipc.cli.recorded import frame_as_json  # noqa: PLC0415
    from trio_ipc.testing.recording import event_line, frame_lines  # noqa: PLC0415

    if json_form is None and event.what != "data":
        output.write(event_line(event))
    for frame in reader.frames(event):
        if json_form is None:
            output.write("\n".join(frame_lines(frame, contract)))
        else:
            output.write_json(frame_as_json(frame, contract), json_form)
    output.flush()
