"""The process at the other end of a socket, and not whichever has its number by now.

A process id is free again once its process has ended, and may belong to another process when it is looked at.
The kernel itself keeps for each connection which process it was, and Linux 6.5 and later give a
descriptor of that one (SO_PEERPIDFD; see pidfd_open(2)). This module must never answer by the number alone,
and never keep a connection open or alive.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import os
import select
import socket
import sys
import weakref
from collections.abc import Iterator
from typing import Final

import attrs

from trio_ipc.errors import escape

#: include/uapi/asm-generic/socket.h.
_SO_PEERPIDFD: Final = 77

#: What SO_PEERPIDFD fails with once the process has ended: kernel/fork.c, pidfd_prepare(), by version. From
#: Linux 6.16 on it succeeds, and the descriptor says so.
_ENDED: Final = frozenset({errno.EINVAL, errno.ESRCH})

#: In place of a descriptor, for a process that has ended.
_GONE: Final = -1


@attrs.frozen
class Executable:
    """The file that a process runs.

    Attributes:
        path: as the kernel names it, for people: a process with mounts of its own can have it show any path.
        file: device and number of the file, by which to compare, for nobody can make them up.
    """

    path: str
    file: tuple[int, int]

    def __str__(self) -> str:
        """Give the path, with whatever is not printable escaped."""
        return escape(self.path, 4096)


class PeerProcess:
    """The process that connected, or that called listen(2), as long as the connection is open here.

    Args:
        sock: the connected socket, to which it keeps no reference of its own; None where there is none.
    """

    def __init__(self, sock: socket.socket | None = None) -> None:
        self._sock = None if sock is None else weakref.ref(sock)

    def __reduce__(self) -> tuple[type[PeerProcess], tuple[()]]:
        # What goes to another process knows nothing there.
        return PeerProcess, ()

    def still_runs(self) -> bool | None:
        """Return whether it has not ended, so that its id is still its own; None where nobody can tell."""
        with self._descriptor() as descriptor:
            return None if descriptor is None else descriptor != _GONE and not _has_ended(descriptor)

    def executable(self) -> Executable | None:
        """Return what it runs at this moment; None where that can't be told for sure."""
        with self._descriptor() as descriptor:
            if descriptor is None or descriptor == _GONE:
                return None
            try:
                link = f"/proc/{_number_of(descriptor)}/exe"
                found = os.stat(link)
                path = os.readlink(link)
            except (OSError, ValueError):
                return None  # it has ended, is hidden from here, or is another user's
            # If it runs now, it did so all the time, and what was read was its own.
            return None if _has_ended(descriptor) else Executable(path, (found.st_dev, found.st_ino))

    @contextlib.contextmanager
    def _descriptor(self) -> Iterator[int | None]:
        """Give a pidfd for a block; ``_GONE`` if there is none any more, None if nobody can tell."""
        sock = None if self._sock is None else self._sock()
        if sock is None or sys.platform != "linux":
            yield None
            return
        try:
            descriptor = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
        except OSError as exc:
            yield _GONE if exc.errno in _ENDED else None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def start_of(pid: int) -> dt.datetime | None:
    """Return when a process was started (proc_pid_stat(5), starttime), None where the system does not tell.

    It is that of a peer only where the peer :meth:`~PeerProcess.still_runs` after this.
    """
    if sys.platform == "win32":
        return None
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The program's name, in parentheses, may have blanks and parentheses itself.
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        with open("/proc/stat", "rb") as file:
            booted = next(int(line.split()[1]) for line in file if line.startswith(b"btime "))
        return dt.datetime.fromtimestamp(booted + ticks / os.sysconf("SC_CLK_TCK"), dt.UTC)
    return None


def _has_ended(descriptor: int) -> bool:
    if sys.platform == "win32":
        return True  # there are none of these
    # A pidfd is readable once its process has ended, reaped or not (pidfd_open(2)).
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _number_of(descriptor: int) -> int:
    """Return the process id as this /proc has it, which may be another than the socket tells.

    Raises:
        ValueError: it has none here.
    """
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name == "Pid" and int(value) > 0:
                return int(value)
    raise ValueError("it has ended, or is not to be seen in this pid namespace")
