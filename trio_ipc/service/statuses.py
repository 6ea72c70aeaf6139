"""Exit statuses of services: which error ends a program by which number.

The numbers are those of sysexits.h, which service managers and scripts know. This module must never print.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from trio_ipc.errors import (
    ConfigError,
    ContractError,
    EndpointError,
    EndpointInUseError,
    EndpointUnsafeError,
)
from trio_ipc.streams import OutputError


class ExitStatus(enum.IntEnum):
    """How a service has ended. The numbers are stable."""

    OK = 0
    """It was asked to stop, and did."""
    IN_USE = 69
    """Another live server has the endpoint (EX_UNAVAILABLE). It may pass."""
    DEFECT = 70
    """A defect of the program or the library, with a traceback (EX_SOFTWARE)."""
    SYSTEM = 71
    """The system refused something, such as a descriptor (EX_OSERR). It may pass."""
    ENDPOINT = 73
    """The endpoint cannot be made, or stopped working (EX_CANTCREAT)."""
    OUTPUT = 74
    """Standard output, or a file of telemetry, could not be written (EX_IOERR)."""
    UNSAFE = 77
    """Others could reach or replace the endpoint, so that nothing was served (EX_NOPERM)."""
    CONFIG = 78
    """A setting is wrong (EX_CONFIG): to start it again changes nothing."""


#: The first that fits counts.
_STATUS_OF: tuple[tuple[type[BaseException], ExitStatus], ...] = (
    (ContractError, ExitStatus.DEFECT),
    (ConfigError, ExitStatus.CONFIG),
    (EndpointInUseError, ExitStatus.IN_USE),
    (EndpointUnsafeError, ExitStatus.UNSAFE),
    (EndpointError, ExitStatus.ENDPOINT),
    (OutputError, ExitStatus.OUTPUT),
    (OSError, ExitStatus.SYSTEM),
)


def status_of(problem: BaseException) -> ExitStatus:
    """Return the status that an error ends the program by."""
    for kind, status in _STATUS_OF:
        if isinstance(problem, kind):
            return status
    return ExitStatus.DEFECT


def status_of_all(problems: Iterable[BaseException]) -> ExitStatus:
    """Return the status of several errors: a defect if one is, else that of the first."""
    statuses = [status_of(problem) for problem in problems]
    if not statuses:
        return ExitStatus.OK
    return ExitStatus.DEFECT if ExitStatus.DEFECT in statuses else statuses[0]
