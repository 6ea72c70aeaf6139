"""What the example programs share: their endpoint options, stopping by signals, and one-line complaints.

Nothing here may know about processes or hashes. What a program prints about a failure goes through
`complain`, so that a user never meets a traceback and a peer's text never reaches a terminal raw.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Final

import trio

from trio_ipc import IpcConfig

#: What asks a program to end. Windows has both names, though only SIGINT ever arrives there.
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def add_endpoint_options(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add `--endpoint` and `--config`, which mean the same to both programs.

    Args:
        several: whether `--endpoint` may be given more than once; see `load_configs`.
    """
    parser.add_argument(
        "--endpoint",
        metavar="PATH",
        action="append" if several else "store",
        help="the socket; wins over file and environment"
        + ("; may be given several times" if several else ""),
    )
    parser.add_argument(
        "--config", metavar="FILE", help="a TOML file with a table [ipc]; TRIO_IPC_... variables win over it"
    )


def load_config(options: argparse.Namespace) -> IpcConfig:
    """Gather the settings: file, then environment, then `--endpoint`.

    Raises:
        ConfigError: a setting is wrong.
    """
    config = IpcConfig.load(options.config)
    return config if options.endpoint is None else _at(config, options.endpoint)


def load_configs(options: argparse.Namespace) -> list[IpcConfig]:
    """Do the same where `--endpoint` may be given several times; there is one for each, or only one."""
    config = IpcConfig.load(options.config)
    return [config] if options.endpoint is None else [_at(config, endpoint) for endpoint in options.endpoint]


def _at(config: IpcConfig, endpoint: str) -> IpcConfig:
    # A person in a shell may well mean a relative path; the library takes absolute ones only.
    return config.replace(endpoint_path=os.path.abspath(endpoint) if endpoint else "")


async def cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    """Cancel `scope` at the first signal."""
    async for _ in signals:
        scope.cancel()


def printable(text: str) -> str:
    """Make text from elsewhere safe for a terminal: no escape sequences, no line breaks."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def complain(program: str, problem: object) -> None:
    """Print one line to standard error."""
    print(f"{program}: {printable(str(problem))}", file=sys.stderr, flush=True)


def counters_line(counters: Mapping[str, object]) -> str:
    """Write counters as `name=value`: the active transport first, and of the others what is not zero."""
    told = {"transport": counters["transport"]} | {name: value for name, value in counters.items() if value}
    return " ".join(f"{name}={value}" for name, value in told.items())


def discard_stdout() -> None:
    """Give up on a standard output that nobody reads (`| head`); Python flushes it once more as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the exceptions in a group, however deep."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
