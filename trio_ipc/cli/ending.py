"""Every end of the program: an exit status, and at most one line on standard error for each cause."""

from __future__ import annotations

import enum
import errno
import signal
from collections.abc import Callable, Iterator
from typing import Final

import click

from trio_ipc.errors import ConfigError, ConnectError, ContractError, EndpointError, IpcError, leaves

from . import output
from .group import PROGRAM
from .main import missing_library


class Status(enum.IntEnum):
    """The exit statuses, which programs may rely on."""

    DONE = 0
    """Success; also when the reader of standard output closes it early."""
    NO = 1
    """It is done, with a negative result: a rule is broken, a response says that it failed."""
    USAGE = 2
    """The command line or a setting is wrong; nothing was begun."""
    UNREACHABLE = 3
    """No server could be reached at the endpoint, or the command cannot listen there."""
    FAILED = 4
    """A connection failed after it had begun, or the system refused something, such as a descriptor."""
    OUTPUT = 5
    """Standard output, or the file of ``capture``, cannot be written."""


#: Errors of a disk that takes no more, and of a system that has no more to give.
_FULL: Final = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_SCARCE: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class StoppedError(Exception):
    """A signal has asked the program to end, and what it did was cancelled.

    Args:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def end(body: Callable[[], object]) -> int:
    """Run the program's body and return an exit status; what went wrong is said on standard error."""
    status: int | None = Status.DONE
    is_stuck = False
    try:
        returned = body()
        status = returned if isinstance(returned, int) else Status.DONE
    except BaseException as exc:
        status = _status_of_all(exc)
        if status is None:
            raise
        is_stuck = any(isinstance(cause, output.OutputError) for cause in leaves(exc))
    try:
        output.flush()
    except output.ReaderGoneError:
        pass  # it has seen enough, which changes nothing of what was found
    except output.OutputError as exc:
        if not is_stuck:  # else it was said
            return _status_of_all(exc) or Status.OUTPUT
    return status


def _status_of_all(raised: BaseException) -> int | None:
    """Complain of each cause once. None where there is one that nobody expects, which is a defect."""
    causes = leaves(raised)
    statuses = [_status_of(cause) for cause in causes]
    if None in statuses:
        return None
    for line in dict.fromkeys(line for cause in causes for line in _lines(cause)):
        output.say(line)
    return statuses[0]


def _status_of(cause: BaseException) -> int | None:
    for kinds, status in (
        ((ConfigError, ContractError, click.ClickException), Status.USAGE),
        ((ConnectError, EndpointError), Status.UNREACHABLE),
        (IpcError, Status.FAILED),
        (output.ReaderGoneError, Status.DONE),
        (output.OutputError, Status.OUTPUT),
        ((click.Abort, KeyboardInterrupt), 128 + signal.SIGINT),
    ):
        if isinstance(cause, kinds):
            return int(status)
    if isinstance(cause, click.exceptions.Exit):
        return cause.exit_code
    if isinstance(cause, StoppedError):
        return 128 + cause.number
    if missing_library(cause) is not None:
        return Status.USAGE
    if isinstance(cause, OSError):  # of the standard output it is an OutputError
        if cause.filename is not None and cause.errno in _FULL:
            return Status.OUTPUT
        return Status.FAILED if _is_the_systems(cause) else Status.USAGE
    return None


def _is_the_systems(cause: OSError) -> bool:
    # Too few descriptors or too little memory is nothing about the file that happened to be opened.
    return cause.filename is None or cause.errno in _SCARCE


def _lines(cause: BaseException) -> Iterator[str]:
    if isinstance(cause, click.exceptions.NoArgsIsHelpError):
        yield cause.format_message()  # its help, whole
    elif isinstance(cause, click.UsageError):
        path = PROGRAM if cause.ctx is None else cause.ctx.command_path
        message = output.one_line(cause.format_message().rstrip("."))
        yield f"{path}: {message}; see '{path} --help'"
    elif isinstance(cause, click.ClickException):
        yield f"{PROGRAM}: {output.one_line(cause.format_message())}"
    elif isinstance(cause, OSError):
        where = "the system" if _is_the_systems(cause) else output.one_line(str(cause.filename))
        yield f"{PROGRAM}: {where}: {cause.strerror or output.one_line(str(cause))}"
    elif isinstance(cause, IpcError | output.OutputError):
        yield f"{PROGRAM}: {output.one_line(str(cause))}"
    elif (problem := missing_library(cause)) is not None:
        yield f"{PROGRAM}: {problem}"
