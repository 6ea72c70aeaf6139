"""Arguments that several commands have: endpoint, contract, settings, JSON. Each means the same everywhere.

An endpoint is written as people write paths in a shell. The contract is DaemonEye's where nobody names
another one: a default of the command, not of the library.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from trio_ipc.endpoint import endpoint_in_full, endpoint_problem

from .group import PROGRAM

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from trio_ipc import Contract, IpcConfig, PeerPolicy

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: The contract of a command line that names none.
DEFAULT_CONTRACT: Final = "trio_ipc.daemoneye:DETECTION"


class EndpointName(click.ParamType[str]):
    """The name of an endpoint: a path, from the working directory if need be, or a pipe's name."""

    name = "endpoint"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name in full."""
        try:
            name = endpoint_in_full(value)
        except OSError as exc:
            why = f"is relative to a working directory that is gone: {exc.strerror}"
            self.fail(f"{value!r} {why}", param, ctx)
        problem = endpoint_problem(name)
        if problem is not None:
            self.fail(f"{value!r} must be {problem}", param, ctx)
        return name

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Let the shell complete paths. Pipes have none."""
        del ctx, param
        return [CompletionItem(incomplete, type="file")]


class ContractName(click.ParamType["Contract[Any, Any]"]):
    """``MODULE:NAME`` of a :class:`~trio_ipc.Contract`; modules of the working directory are found, too."""

    name = "contract"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Contract[Any, Any]:
        """Import the module and return the contract."""
        from trio_ipc import Contract  # noqa: PLC0415 - it loads protobuf, which completion has no use for

        found = imported(value, self, param, ctx)
        if not isinstance(found, Contract):
            self.fail(f"{value} is no Contract but a {type(found).__name__}", param, ctx)
        return found


class Seconds(click.ParamType[float]):
    """A number of seconds, more than 0."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            self.fail(f"{value!r} must be a number of seconds, more than 0", param, ctx)
        return number


def imported(
    name: str, kind: click.ParamType[Any], param: click.Parameter | None, ctx: click.Context | None
) -> Any:
    """Return what ``MODULE:NAME`` stands for.

    The working directory is looked through after everything else, so that nothing there takes an installed
    module's place.

    Raises:
        click.BadParameter: there is no such thing, or its module cannot be imported.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        kind.fail(f"{name!r} must be MODULE:NAME, such as {DEFAULT_CONTRACT}", param, ctx)
    with contextlib.suppress(OSError):  # a directory that is gone holds no modules
        here = os.getcwd()
        if here not in sys.path:
            sys.path.append(here)
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except SystemExit:
        advice = "what it runs belongs below 'if __name__ == \"__main__\":'"
        kind.fail(f"{name!r} cannot be imported: its module ends the program; {advice}", param, ctx)
    except Exception as exc:  # noqa: BLE001 - a module of the user's raises anything
        kind.fail(f"{name!r} cannot be imported: {type(exc).__name__}: {exc}", param, ctx)
    return found


ENDPOINT: Final = EndpointName()
CONTRACT: Final = ContractName()
SECONDS: Final = Seconds()


def endpoint_argument(function: _Function) -> _Function:
    """Add ENDPOINT: the parameter ``endpoint``, a name in full."""
    return click.argument("endpoint", type=ENDPOINT)(function)


def contract_option(function: _Function) -> _Function:
    """Add ``--contract``: the parameter ``contract``."""
    return click.option(
        "--contract",
        type=CONTRACT,
        default=DEFAULT_CONTRACT,
        show_default=True,
        metavar="MODULE:NAME",
        help="The Contract that both sides speak: a Python module, and a name in it.",
    )(function)


def config_option(function: _Function) -> _Function:
    """Add ``--config``: the parameter ``config_file``, for :func:`settings`."""
    return click.option(
        "--config",
        "config_file",
        type=click.Path(),
        metavar="FILE",
        help="A TOML file with a table [ipc]. TRIO_IPC_... variables win over it.",
    )(function)


def json_option(function: _Function) -> _Function:
    """Add ``--json``: the parameter ``json_form``, None without it, for :func:`.output.write_json`."""
    return click.option(
        "--json",
        "json_form",
        type=click.Choice(["auto", "short", "pretty"]),
        metavar="[=short|pretty]",
        help="Write JSON: on one line, or indented; by default, indented on a terminal.",
    )(function)


def trust_option(function: _Function) -> _Function:
    """Add ``--trust``: the parameter ``trusted``, for :func:`peers`."""
    return click.option(
        "--trust",
        "trusted",
        multiple=True,
        metavar="USER",
        help="Trust a server that runs as this user, too: a name or an id, on Windows a SID. By default "
        "yourself and root. May be repeated.",
    )(function)


def answer_timeout_option(function: _Function) -> _Function:
    """Add ``--timeout``: the parameter ``timeout``, for commands that ask a server to examine it."""
    return click.option(
        "--timeout",
        type=SECONDS,
        default=5.0,
        show_default=True,
        metavar="SECONDS",
        help="How long each response may take.",
    )(function)


def request_option(text: str) -> Callable[[_Function], _Function]:
    """Add ``--request`` with this help: the parameter ``request_json``, for :func:`request_in`."""
    return click.option("--request", "request_json", metavar="JSON", help=text)


def relay_options(function: _Function) -> _Function:
    """Add ``--listen`` and ``--seconds``: the parameters ``listen_at`` and ``seconds`` of a relay."""
    function = click.option(
        "--seconds", type=SECONDS, metavar="SECONDS", help="End after so long. By default at Ctrl-C."
    )(function)
    return click.option(
        "--listen",
        "listen_at",
        type=ENDPOINT,
        required=True,
        metavar="AT",
        help="The endpoint where clients come, whose bytes are passed on to ENDPOINT and back.",
    )(function)


def request_in(text: str, contract: Contract[Any, Any], where: str) -> Message:
    """Return the request that a JSON text says.

    Args:
        text: one object.
        contract: has the request's type.
        where: the argument or option that the text is from.

    Raises:
        click.BadParameter: it says none, or one that no frame can carry.
    """
    from . import messages  # noqa: PLC0415 - not for completion

    try:
        request: Message = messages.request_in(text, contract.request_type)
    except messages.NotAMessageError as exc:
        raise no_request(str(exc), where) from exc
    return request


def no_request(why: str, where: str) -> click.BadParameter:
    """Return the error that what was given is no request, to be raised; arguments as those above."""
    text = f"{why} ('{PROGRAM} describe' lists the fields)"
    return click.BadParameter(text, click.get_current_context(), param_hint=where)


def peers(trusted: Sequence[str]) -> PeerPolicy:
    """Return the policy by which servers are trusted: this process's user, root, and these.

    Raises:
        ConfigError: there is no such user.
    """
    from trio_ipc import PeerPolicy  # noqa: PLC0415 - not for completion

    usual = PeerPolicy.own_user_and_root()
    return PeerPolicy.users([*(usual.allowed or ()), *trusted]) if trusted else usual


def settings(endpoint: str, config_file: str | None = None, **changes: Any) -> IpcConfig:
    """Return the settings for an endpoint: file, then environment, then the command line.

    The checksum variant is found out unless it is set.

    Args:
        endpoint: in full.
        config_file: a TOML file, or None.
        changes: further fields of :class:`~trio_ipc.IpcConfig`, from options.

    Raises:
        ConfigError: a setting is wrong.
    """
    from trio_ipc import IpcConfig  # noqa: PLC0415 - not for completion

    return IpcConfig.load(config_file, defaults={"crc32_variant": "auto"}, endpoint_path=endpoint, **changes)
