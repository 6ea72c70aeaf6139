"""Sockets that a service manager passes to the program that it starts: systemd's protocol (sd_listen_fds(3)).

It is in the process's environment: how many descriptors there are, from number 3 on, for which process they
are, and what they are called. This module must never take a descriptor that was meant for another process.
"""

from __future__ import annotations

import os
import re
from typing import Final

import attrs

from trio_ipc.errors import EndpointError, plural, shown

#: SD_LISTEN_FDS_START of sd-daemon.h.
_FIRST: Final = 3

#: What a descriptor is called of which the manager says nothing: sd_listen_fds_with_names(3).
_UNNAMED: Final = "unknown"

#: How many descriptors are believed to be there. The system's own limit for a process is lower by default.
_MOST: Final = 2**20

_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


@attrs.frozen
class ActivatedSocket:
    """A descriptor that a service manager has passed.

    Attributes:
        name: what its ``.socket`` unit calls it (``FileDescriptorName=``, by default the unit's own name).
            Two may have the same.
        fd: its number.
    """

    name: str
    fd: int


def activated_sockets(*, unset: bool = True) -> tuple[ActivatedSocket, ...]:
    """Return the sockets that systemd, or somebody who speaks its protocol, has passed to this process.

    They are kept from programs that this process starts. What they are is judged where they are used:
    :func:`trio_ipc.serve` and :func:`inherited_unix_listener` take the number.

    Args:
        unset: whether to remove the variables, so that neither another call nor a program that this process
            starts takes the sockets for its own. Call it before there are other threads.

    Returns:
        One for each socket, in their order. None where nothing was passed, or to another process than this
        one: variables outlive what they were for. On Windows always none.

    Raises:
        EndpointError: the variables contradict themselves, or a descriptor is not open.
    """
    found = {name: os.environ.get(name, "") for name in _VARIABLES}
    if unset:
        for name in _VARIABLES:
            os.environ.pop(name, None)
    if not found["LISTEN_PID"] or not found["LISTEN_FDS"]:
        return ()
    if _number("LISTEN_PID", found["LISTEN_PID"]) != os.getpid():
        return ()
    count = _number("LISTEN_FDS", found["LISTEN_FDS"])
    if count > _MOST:
        raise _refused("LISTEN_FDS", found["LISTEN_FDS"], f"at most {_MOST}")
    names = found["LISTEN_FDNAMES"].split(":") if found["LISTEN_FDNAMES"] else [_UNNAMED] * count
    if len(names) != count:
        allowed = f"{count} {plural(count, 'name')}, as LISTEN_FDS says"
        raise _refused("LISTEN_FDNAMES", found["LISTEN_FDNAMES"], allowed)
    sockets = []
    for fd, name in enumerate(names, _FIRST):
        try:
            os.set_inheritable(fd, False)
        except OSError as exc:
            raise EndpointError(
                f"the service manager says that it passed {count} {plural(count, 'socket')}, but "
                f"descriptor {fd} ({shown(name)}) is not open ({exc.strerror})",
                hint="have nothing close descriptors before this is asked",
            ) from exc
        sockets.append(ActivatedSocket(name, fd))
    return tuple(sockets)


def _number(variable: str, text: str) -> int:
    if re.fullmatch(r"[0-9]{1,10}", text) is None:
        raise _refused(variable, text, "a whole number")
    return int(text)


def _refused(variable: str, text: str, allowed: str) -> EndpointError:
    return EndpointError(
        f"{variable} in the environment is {shown(text)}, must be {allowed}",
        hint="it is the service manager's to set (sd_listen_fds(3)); unset it if nothing was passed",
    )
