"""What the example programs share: their endpoint options, stopping by signals, and one-line complaints.

Nothing here may know about processes or hashes. What a program prints about a failure goes through
`complain`, so that a user never meets a traceback and a peer's text never reaches a terminal raw.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import trio

from trio_ipc import IpcConfig
from trio_ipc.endpoint import endpoint_in_full

if sys.platform == "win32":
    #: What asks a program to end: Ctrl-C and Ctrl-Break. SIGTERM has a name there and never arrives.
    STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGBREAK)
    #: How to start a program that can be asked to end: the console asks all of a group at a time.
    IN_ITS_OWN_GROUP: Final[Mapping[str, Any]] = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    #: What asks a program to end.
    STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
    IN_ITS_OWN_GROUP: Final[Mapping[str, Any]] = {}


def add_endpoint_options(parser: argparse.ArgumentParser) -> None:
    """Add `--endpoint` and `--config`, which mean the same to both programs."""
    parser.add_argument(
        "--endpoint", metavar="PATH", help="the socket, on Windows the pipe; wins over file and environment"
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
    if options.endpoint is None:
        return config
    # A person in a shell may well mean a relative path; the library takes absolute ones only.
    return config.replace(endpoint_path=endpoint_in_full(options.endpoint))


def private_endpoint(directory: str) -> str:
    """Name an endpoint for a private directory that nobody else has."""
    if sys.platform == "win32":
        return endpoint_in_full(f"trio-ipc-{os.path.basename(directory)}")
    return os.path.join(directory, "procmond.sock")


def ask_to_end(process: trio.Process) -> None:
    """Ask a program to end, as a service manager would. It must have been started `IN_ITS_OWN_GROUP`."""
    if sys.platform == "win32":
        process.send_signal(signal.CTRL_BREAK_EVENT)
    else:
        process.terminate()


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


def reader_is_gone(error: BaseException) -> bool:
    """Return whether this is what comes of printing to a pipe that nobody reads any longer."""
    # The C runtime of Windows has no better word for it than "invalid argument".
    return isinstance(error, BrokenPipeError) or (
        sys.platform == "win32" and isinstance(error, OSError) and error.errno == errno.EINVAL
    )


def discard_stdout() -> None:
    """Give up on a standard output that nobody reads (`| head`); Python flushes it once more as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the exceptions in a group, however deep."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
