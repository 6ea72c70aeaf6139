"""``trio-ipc replay FILE ENDPOINT``: recorded requests once more, and whether the responses are the same."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from trio_ipc.cli import arguments, output
from trio_ipc.cli.ending import Status
from trio_ipc.cli.group import Command
from trio_ipc.errors import plural

if TYPE_CHECKING:
    from trio_ipc import Contract, IpcConfig, PeerPolicy
    from trio_ipc.testing import Difference, Recording


@click.command(cls=Command)
@click.argument("file", type=click.Path())
@arguments.endpoint_argument
@click.option(
    "--ignore",
    multiple=True,
    metavar="FIELD",
    help="A field of responses that may differ, such as a time. May be repeated.",
)
@arguments.trust_option
@arguments.contract_option
@arguments.config_option
@arguments.json_option
def command(
    file: str,
    endpoint: str,
    contract: Contract[Any, Any],
    config_file: str | None,
    json_form: str | None,
    *,
    ignore: tuple[str, ...],
    trusted: tuple[str, ...],
) -> int:
    """Make the requests of a recording again, to the server at ENDPOINT, and compare its responses.

    Requests are sent as they were recorded, one after the other, over as many connections. The server does
    again what they ask for. FILE is what 'trio-ipc capture' has written.

    \b
      trio-ipc replay said.jsonl ./s.sock
      trio-ipc replay said.jsonl ./s.sock --ignore processes

    The exit status is 0 where all responses are as they were, and 1 where one differs, or where the
    recording is damaged: what follows was not read.
    """  # noqa: D301 - click's mark for lines that stay as they are
    from trio_ipc.cli.recorded import (  # noqa: PLC0415 - not for completion
        difference_as_json,
        recording_in,
        say_damage,
    )
    from trio_ipc.cli.running import run_async  # noqa: PLC0415

    wrong = [field for field in ignore if field not in contract.response_type.DESCRIPTOR.fields_by_name]
    if wrong:
        kind = contract.response_type.DESCRIPTOR.full_name
        context = click.get_current_context()
        raise click.BadParameter(f"{kind} has no field {wrong[0]!r}", context, param_hint="--ignore")
    recording = recording_in(file)
    config = arguments.settings(endpoint, config_file)
    policy = arguments.peers(trusted)
    different = run_async(partial(_replay, recording, contract, config, policy, ignore))
    count = len(recording.exchanges())
    if json_form is not None:
        said = [difference_as_json(one) for one in different]
        output.write_json({"requests": count, "differences": said, "damage": recording.damage}, json_form)
    else:
        for one in different:
            for line in _lines(one):
                output.write(line)
        output.write(f"{count} {plural(count, 'request')}, {len(different)} answered otherwise")
    damaged = say_damage(recording, file)
    return Status.NO if different or damaged else Status.DONE


async def _replay(
    recording: Recording,
    contract: Contract[Any, Any],
    config: IpcConfig,
    policy: PeerPolicy,
    ignore: tuple[str, ...],
) -> list[Difference[Any, Any]]:
    from trio_ipc.cli import looking  # noqa: PLC0415
    from trio_ipc.cli.recorded import without  # noqa: PLC0415
    from trio_ipc.cli.waiting import waiting  # noqa: PLC0415
    from trio_ipc.client import open_trusted_channel  # noqa: PLC0415
    from trio_ipc.config import AUTO, Crc32Variant  # noqa: PLC0415
    from trio_ipc.testing import replay_requests  # noqa: PLC0415

    def same(expected: Any, got: Any) -> bool:
        return without(expected, ignore) == without(got, ignore)

    count = len(recording.exchanges())
    said = f"making {count} {plural(count, 'request')} at {config.endpoint_path}"
    with output.client_log_discarded(), waiting(said):
        variant = config.crc32_variant
        if variant == AUTO:
            # What another server spoke then says little of this one.
            answer = await looking.ask(contract, config, policy, config.read_timeout_ms / 1000)
            known = None if answer is None else answer.variant
            if known is None and recording.crc32_variant != AUTO:
                known = Crc32Variant(recording.crc32_variant)
            variant = known or Crc32Variant.IEEE
        connect = partial(open_trusted_channel, config.replace(crc32_variant=variant), policy)
        return await replay_requests(recording, contract, connect, same=same)


def _lines(one: Difference[Any, Any]) -> list[str]:
    import json  # noqa: PLC0415

    from trio_ipc.cli.recorded import difference_as_json  # noqa: PLC0415

    said = difference_as_json(one)
    got = output.one_line(said["error"]) if one.error is not None else json.dumps(said["got"])
    return [
        f"connection {one.connection}, request {one.number}: {json.dumps(said['request'])}",
        f"  expected {json.dumps(said['expected'])}",
        f"  got      {got}",
    ]
