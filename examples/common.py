"""What the example programs share: their endpoint options, their ends, and one-line complaints.

Nothing here may know about processes or hashes. Every program is run by `run_program`, and what it prints
about a failure goes through `complain`, so that a user never meets a traceback and a peer's text never
reaches a terminal raw.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final, TextIO

import trio

from trio_ipc import ConfigError, IpcConfig, IpcError
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


#: What the programs are set to where nobody says otherwise: binaries in the field speak CRC-32C, others IEEE.
DEFAULTS: Final[Mapping[str, Any]] = {"crc32_variant": "auto"}


class OutputError(Exception):
    """Standard output takes nothing, though somebody may well be waiting for it."""


def run_program(program: str, body: Callable[[], int]) -> int:
    """Run a program's body; whatever ends it becomes an exit status and at most one line for each cause."""
    _prepare_streams()
    status = 1
    try:
        try:
            status = body()
        finally:
            _flush_stdout()  # at the interpreter's own flush it would be too late for a line of ours
    except* BrokenPipeError:
        status = 0  # its reader has seen enough
    except* KeyboardInterrupt:
        status = 0  # it came before the signals were caught: nothing was started yet
    except* (IpcError, OutputError, OSError) as group:
        status = 1
        for problem in leaves(group):
            complain(program, problem)
    finally:
        _discard_what_is_stuck()
    return status


# --- settings ---


def add_endpoint_options(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add `--endpoint` and `--config`, which mean the same to both programs.

    Args:
        several: whether `--endpoint` may be given more than once; see `load_configs`.
    """
    parser.add_argument(
        "--endpoint",
        metavar="PATH",
        action="append" if several else "store",
        help="the socket, on Windows the pipe; wins over file and environment"
        + ("; may be given several times" if several else ""),
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="a TOML file with a table [ipc]"
        + (" and, for how several are called, one [ipc.resilient]" if several else "")
        + "; TRIO_IPC_... variables win over it",
    )


def load_config(options: argparse.Namespace) -> IpcConfig:
    """Gather the settings: file, then environment, then `--endpoint`.

    Raises:
        ConfigError: a setting is wrong.
    """
    config = IpcConfig.load(options.config, defaults=DEFAULTS)
    return config if options.endpoint is None else _at(config, options.endpoint)


def load_configs(options: argparse.Namespace) -> list[IpcConfig]:
    """Do the same where `--endpoint` may be given several times; there is one for each, or only one.

    Raises:
        ConfigError: a setting is wrong, or two endpoints are the same.
    """
    config = IpcConfig.load(options.config, defaults=DEFAULTS)
    configs = [config] if options.endpoint is None else [_at(config, one) for one in options.endpoint]
    for path, count in Counter(config.endpoint_path for config in configs).items():
        if count > 1:
            raise ConfigError(f"--endpoint {path!r} is given {count} times", hint="name each collector once")
    return configs


def _at(config: IpcConfig, endpoint: str) -> IpcConfig:
    # A person in a shell may well mean a relative path; the library takes absolute ones only.
    try:
        in_full = endpoint_in_full(endpoint)
    except OSError as exc:
        problem = f"--endpoint {endpoint!r} is relative to a working directory that is gone"
        raise ConfigError(f"{problem}: {exc.strerror}", hint="give an absolute path") from exc
    return config.replace(endpoint_path=in_full)


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


# --- signals ---


@contextlib.contextmanager
def stop_signals() -> Iterator[AsyncIterator[int]]:
    """Receive what asks the program to stop. After the block it ends anyway, and nothing may hurry it.

    Otherwise a second ^C, or a service manager's second SIGTERM, would interrupt its cleaning up.
    """
    caught = False

    def outside(_number: int, _frame: object) -> None:
        if not caught:
            raise KeyboardInterrupt

    for number in STOP_SIGNALS:
        signal.signal(number, outside)  # trio puts it back when its receiver is closed
    try:
        with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
            caught = True
            yield signals
    finally:
        for number in STOP_SIGNALS:
            # Python gives handlers of its own up before it ends, and would die of a signal then.
            signal.signal(number, signal.SIG_IGN)


async def cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    """Cancel `scope` at the first signal."""
    async for _ in signals:
        scope.cancel()


# --- streams ---


def _prepare_streams() -> None:
    if sys.stderr is None:
        # It was closed. print and argparse would take standard output in its place.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the program runs
    # Another encoding than UTF-8 is no reason to fail: what it lacks becomes a question mark.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Say what is wrong when standard output takes nothing; without a reader it is a BrokenPipeError still.

    Raises:
        OutputError: in place of any other OSError, or because there is no standard output at all.
    """
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    try:
        yield
    except OSError as exc:
        if _reader_is_gone(exc):
            raise BrokenPipeError from exc
        raise OutputError(f"standard output: {exc.strerror}") from exc


def _reader_is_gone(error: OSError) -> bool:
    # The C runtime of Windows has no better word for it than "invalid argument".
    return isinstance(error, BrokenPipeError) or (sys.platform == "win32" and error.errno == errno.EINVAL)


def _flush_stdout() -> None:
    if sys.stdout is not None:  # a program that prints nothing may well lack it
        with writing():
            sys.stdout.flush()


def discard(stream: TextIO) -> None:
    """Give up on a stream that takes nothing, and on what is stuck in it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _discard_what_is_stuck() -> None:
    # Python flushes both once more as it ends, and makes a failure its exit status.
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            discard(stream)


def printable(text: str) -> str:
    """Make text from elsewhere safe for a terminal: no escape sequences, no line breaks."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def complain(program: str, problem: object) -> None:
    """Print one line to standard error, if that can be done."""
    with contextlib.suppress(OSError):  # there is nobody else to tell
        print(f"{program}: {printable(str(problem))}", file=sys.stderr, flush=True)


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the exceptions in a group, however deep."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
