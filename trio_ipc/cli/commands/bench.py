"""``trio-ipc bench ENDPOINT``: how long a server takes to answer, and how often it can."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from trio_ipc.cli import arguments, output
from trio_ipc.cli.ending import Status
from trio_ipc.cli.group import Command
from trio_ipc.errors import plural

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from trio_ipc import Client, Contract, IpcConfig, PeerPolicy


@click.command(cls=Command)
@arguments.endpoint_argument
@arguments.request_option(
    "The request to make. By default the contract's question for health, or its negotiation."
)
@click.option(
    "--calls",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    metavar="N",
    help="How many in all.",
)
@click.option(
    "--connections",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Over how many connections, each of which makes one call after the other.",
)
@click.option(
    "--warm-up",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="N",
    help="How many calls each connection makes before, which are not counted.",
)
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
    request_json: str | None,
    calls: int,
    connections: int,
    warm_up: int,
    trusted: tuple[str, ...],
) -> int:
    """Measure how long the server at ENDPOINT takes to answer, and how many calls there are in a second.

    The times are those of a client in Python, from the call to its decoded response, one call at a time on
    each connection. The server does the work of each request. A call that fails ends the
    command, with status 4. p99_us, for example, is the time in µs that 99 of 100 calls did not exceed.

    \b
      trio-ipc bench ./s.sock
      trio-ipc bench ./s.sock --calls 10000 --connections 4
      trio-ipc bench ./s.sock --request '{"task_id": "1"}'
    """  # noqa: D301 - click's mark for lines that stay as they are
    from trio_ipc.cli.running import run_async  # noqa: PLC0415 - not for completion
    from trio_ipc.cli.statistics import summary  # noqa: PLC0415

    make = _request(contract, request_json)
    config = arguments.settings(endpoint, config_file)
    policy = arguments.peers(trusted)
    measure = partial(
        _measure, contract, config, policy, make, calls=calls, connections=connections, warm_up=warm_up
    )
    times, elapsed = run_async(measure)
    found = {"endpoint": endpoint, "connections": connections, **summary(times, elapsed)}
    if json_form is not None:
        output.write_json(found, json_form)
    else:
        for name, value in found.items():
            output.write(f"{name:<16} {output.one_line(str(value))}")
    return Status.DONE


def _request(contract: Contract[Any, Any], text: str | None) -> Callable[[], Message]:
    if text is not None:
        given = arguments.request_in(text, contract, "--request")
        return lambda: given
    if contract.health is not None:
        return contract.health_request
    if contract.negotiation is not None:
        return contract.capabilities_request
    raise click.UsageError(
        f"the contract {contract.name} has no question that does no harm: give a request by --request",
        click.get_current_context(),
    )


async def _measure(
    contract: Contract[Any, Any],
    config: IpcConfig,
    policy: PeerPolicy,
    make: Callable[[], Message],
    *,
    calls: int,
    connections: int,
    warm_up: int,
) -> tuple[list[float], float]:
    """Return the times of all calls, and how long they took together, in seconds."""
    from contextlib import AsyncExitStack  # noqa: PLC0415

    import trio  # noqa: PLC0415

    from trio_ipc import open_client  # noqa: PLC0415
    from trio_ipc.cli.waiting import waiting  # noqa: PLC0415

    times: list[float] = []

    async def call(client: Client[Any, Any], count: int) -> None:
        for _ in range(count):
            request = make()
            began = time.perf_counter()
            await client.call(request)
            times.append(time.perf_counter() - began)

    async with AsyncExitStack() as opened:
        opened.enter_context(output.client_log_discarded())
        clients = [
            await opened.enter_async_context(open_client(contract, config, peers=policy))
            for _ in range(connections)
        ]
        with waiting(f"making {calls} {plural(calls, 'call')} at {config.endpoint_path}"):
            for client in clients:
                await call(client, warm_up)
            times.clear()
            began = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for number, client in enumerate(clients):
                    share = calls // connections + (number < calls % connections)
                    nursery.start_soon(call, client, share)
            return times, time.perf_counter() - began
