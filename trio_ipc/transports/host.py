"""What each system has for a program besides endpoints: processors, signals, a service manager, a keyboard.

Channels, services and the command take it from here, and so need not know a platform. This module must never
catch a signal, nor write anything.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import time
from typing import Final

if sys.platform == "win32":
    from trio_ipc.transports.windows import win32

    #: What asks a program to end. SIGTERM has a name there and never arrives.
    STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGBREAK)
    #: The same for a command, which is ended by the end of its terminal as well: a service is not.
    COMMAND_STOP_SIGNALS: Final = STOP_SIGNALS
    #: Whether Ctrl-C ends a wait of the main thread for a lock
    #: (https://docs.python.org/3/library/threading.html#threading.Lock.acquire speaks of POSIX alone).
    INTERRUPTS_LOCKS: Final[bool] = False
    #: What asks it to read its settings again, None where there is no such signal.
    RELOAD_SIGNAL: Final[int | None] = None
    #: What asks it to tell what it has done, likewise.
    REPORT_SIGNAL: Final[int | None] = None
    #: How a person ends what they type.
    END_OF_INPUT: Final = "Ctrl-Z and Return"
    #: Whether a service manager may listen that speaks sd_notify(3).
    HAS_NOTIFY: Final = False
    #: By what writing fails, besides EPIPE, where nobody reads any longer: the C runtime has no better word.
    READER_GONE: Final[int | None] = errno.EINVAL

    def connected_datagrams(address: str) -> socket.socket:
        """Raise that there are none."""
        raise OSError(0, "this system has no such sockets", address)

    def processor_count() -> int:
        """Return on how many processors this process may run."""
        try:
            return win32.processor_count() or os.cpu_count() or 1
        except OSError:
            return os.cpu_count() or 1

    def monotonic_microseconds() -> int:
        """Return Python's monotonic clock, in µs."""
        return time.monotonic_ns() // 1000

else:
    STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
    COMMAND_STOP_SIGNALS: Final = (*STOP_SIGNALS, signal.SIGHUP)
    INTERRUPTS_LOCKS: Final[bool] = True
    RELOAD_SIGNAL: Final[int | None] = signal.SIGHUP
    REPORT_SIGNAL: Final[int | None] = signal.SIGUSR1
    END_OF_INPUT: Final = "Ctrl-D"
    HAS_NOTIFY: Final = True
    READER_GONE: Final[int | None] = None

    def connected_datagrams(address: str) -> socket.socket:
        """Return a socket whose datagrams go to this address. It never blocks (unix(7)).

        Raises:
            OSError: nobody has the address.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return sock

    def processor_count() -> int:
        """Return on how many processors this thread may run (sched_getaffinity(2), which macOS has not)."""
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    def monotonic_microseconds() -> int:
        """Return CLOCK_MONOTONIC in µs, by which a service manager orders what it is told."""
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
