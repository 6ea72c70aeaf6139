"""``trio-ipc call ENDPOINT [JSON]...``: make requests, and write the responses as JSON."""

from __future__ import annotations

import codecs
import contextlib
import itertools
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from trio_ipc.cli import arguments, output
from trio_ipc.cli.ending import Status
from trio_ipc.cli.group import Command

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from trio_ipc import Contract, IpcConfig, PeerPolicy

    #: Makes one call.
    Caller = Callable[[Message], Awaitable[Message]]

#: Bytes of standard input that are read at a time.
_PIECE: Final = 65_536


@click.command(cls=Command)
@arguments.endpoint_argument
@click.argument("requests", nargs=-1, metavar="[JSON]...")
@click.option(
    "--timeout",
    type=arguments.SECONDS,
    metavar="SECONDS",
    help="How long each response may take. By default what the settings allow.",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Make each request N times. By default once.",
)
@click.option(
    "--also",
    type=arguments.ENDPOINT,
    multiple=True,
    metavar="ENDPOINT",
    help="A further server that may answer. With it calls take turns between the servers, go around one that "
    "fails, and wait for one that starts. May be repeated.",
)
@click.option(
    "--success",
    metavar="FIELD",
    help="The bool field of a response that is false where it failed. By default 'success', where it has "
    "such a field.",
)
@arguments.trust_option
@arguments.contract_option
@arguments.config_option
@arguments.json_option
def command(
    endpoint: str,
    requests: tuple[str, ...],
    contract: Contract[Any, Any],
    config_file: str | None,
    json_form: str | None,
    *,
    timeout: float | None,
    repeat: int,
    also: tuple[str, ...],
    success: str | None,
    trusted: tuple[str, ...],
) -> int:
    """Call the server at ENDPOINT, and write its responses as JSON.

    Each JSON is one request: an object with the fields of the contract's request, which 'trio-ipc describe'
    lists, or what protobuf's JSON has in its place, such as a string for a StringValue. Without any, requests
    are read from standard input, one after the other, each on one line or, if it is an object, on several;
    each is made as soon as it has been read. All go over one connection, in order, and the first that cannot
    be answered ends it.

    \b
      trio-ipc call ./s.sock '{"task_id": "1"}'
      trio-ipc call ./s.sock --timeout 2 < requests.jsonl
      trio-ipc call ./a.sock --also ./b.sock '{"task_id": "1"}'

    The exit status is 1 where a response says that it failed.
    """  # noqa: D301 - click's mark for lines that stay as they are
    from trio_ipc.cli.messages import failed_by  # noqa: PLC0415 - not for completion
    from trio_ipc.cli.running import run_async  # noqa: PLC0415

    try:
        failed_by(contract.response_type(), success)
    except KeyError:
        kind = contract.response_type.DESCRIPTOR.full_name
        raise click.BadParameter(f"{kind} has no bool field {success!r}", param_hint="--success") from None
    configs = [arguments.settings(place, config_file) for place in (endpoint, *also)]
    given = [arguments.request_in(text, contract, "JSON") for text in requests]
    policy = arguments.peers(trusted)
    with_client = partial(_with_client, contract, configs, config_file, policy, timeout)
    more: dict[str, Any] = {"repeat": repeat, "success": success, "json_form": json_form or "auto"}
    body = partial(_call_all, with_client, contract, given, **more)
    return Status.NO if run_async(body) else Status.DONE


async def _call_all(
    with_client: Callable[[], contextlib.AbstractAsyncContextManager[Caller]],
    contract: Contract[Any, Any],
    given: Sequence[Message],
    *,
    repeat: int,
    success: str | None,
    json_form: str,
) -> bool:
    """Make all calls; return whether a response says that it failed."""
    from trio_ipc.cli.messages import failed_by, value_of  # noqa: PLC0415
    from trio_ipc.cli.waiting import waiting  # noqa: PLC0415

    failed = False
    source = _each(given) if given else _read(contract)
    async with contextlib.aclosing(source) as messages:
        first = await anext(messages)  # before anything is connected: what is wrong with it is said alone
        with waiting("connecting") as shown:
            async with with_client() as call:
                number = 0
                async for message in _with_first(first, messages):
                    for _ in range(repeat):
                        number += 1
                        shown.say(f"waiting for response {number}")
                        response = await call(message)
                        shown.give_way()
                        failed |= failed_by(response, success)
                        output.write_json(value_of(response), json_form)
                        output.flush()
                    if not given:
                        shown.say("waiting for standard input")
    return failed


async def _with_first(first: Message, rest: AsyncIterator[Message]) -> AsyncIterator[Message]:
    yield first
    async for message in rest:
        yield message


async def _each(given: Sequence[Message]) -> AsyncGenerator[Message, None]:
    for message in given:
        yield message


@contextlib.asynccontextmanager
async def _with_client(
    contract: Contract[Any, Any],
    configs: Sequence[IpcConfig],
    config_file: str | None,
    policy: PeerPolicy,
    timeout: float | None,  # noqa: ASYNC109 - each call's
) -> AsyncIterator[Caller]:
    from trio_ipc import Endpoint, ResilientConfig, open_client, open_resilient_client  # noqa: PLC0415

    if len(configs) == 1:
        with output.client_log_discarded():
            async with open_client(contract, configs[0], peers=policy) as client:
                yield partial(client.call, timeout=timeout)
        return
    settings = ResilientConfig.load(config_file)
    endpoints = [Endpoint(config) for config in configs]
    async with open_resilient_client(contract, endpoints, settings, peers=policy) as several:
        yield partial(several.call, timeout=timeout)


# --- Standard input ----------------------------------------------------------------------------------------


async def _read(contract: Contract[Any, Any]) -> AsyncGenerator[Message, None]:
    """Give the requests of standard input as they come.

    Raises:
        click.UsageError: there is none, or the first is wrong or cannot be read.
        IpcError: a later one is wrong, or cannot be read.
    """
    from trio_ipc.cli.messages import NotAMessageError, request_in, splitter_of  # noqa: PLC0415
    from trio_ipc.errors import IpcError, MessageError  # noqa: PLC0415

    splitter = splitter_of(contract.request_type)
    numbers = itertools.count(1)
    number = next(numbers)
    try:
        async with contextlib.aclosing(_pieces()) as pieces:
            async for piece in pieces:
                for text in splitter.feed(piece):
                    yield request_in(text, contract.request_type)
                    number = next(numbers)
        splitter.close()
    except OSError as exc:
        problem = f"standard input cannot be read: {exc.strerror}"
        if number == 1:
            raise click.UsageError(problem, click.get_current_context()) from exc
        raise IpcError(problem) from exc
    except (NotAMessageError, UnicodeDecodeError) as exc:
        if number == 1:
            raise arguments.no_request(str(exc), "standard input") from exc
        raise MessageError(f"request {number} of standard input: {exc}", hint="mend it") from exc
    if number == 1:
        context = click.get_current_context()
        raise click.UsageError("there is no request, neither as an argument nor on standard input", context)


async def _pieces() -> AsyncGenerator[str, None]:
    """Give standard input as text."""
    import trio  # noqa: PLC0415 - not for completion

    from trio_ipc.transports.host import END_OF_INPUT  # noqa: PLC0415

    if sys.stdin is None:
        return
    if sys.stdin.isatty():
        output.say(f"requests are read from the keyboard, as JSON; {END_OF_INPUT} ends them")
    decoder = codecs.getincrementaldecoder("utf-8")()
    descriptor = sys.stdin.fileno()
    while True:
        # By the descriptor: a thread that waits in a buffered file would hold its lock as Python ends.
        try:
            data = await trio.to_thread.run_sync(os.read, descriptor, _PIECE, abandon_on_cancel=True)
        except BlockingIOError:  # another process that shares it has set it so
            await trio.lowlevel.wait_readable(descriptor)
            continue
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as exc:
            yield exc.object[: exc.start].decode()  # requests before it are made
            raise
        if not data:
            yield text + "\n"  # which the last line may lack
            return
        yield text
