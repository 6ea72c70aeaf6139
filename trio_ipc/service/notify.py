"""What a service tells the service manager that started it: systemd's protocol (sd_notify(3)).

One datagram for each message, to the socket that the environment names. No library does all of it: those
that bind libsystemd are for glibc alone, the typed one in Python tells neither a reload nor a stop. This
module must never keep a service from its work: what cannot be told is logged.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from typing import Final

import trio

from trio_ipc.errors import escape, shown
from trio_ipc.logs import Log
from trio_ipc.transports import host

_log = Log(__name__)

#: Seconds that the manager may take to accept a message. It reads them at once, unless it hangs.
_MOST_SECONDS: Final = 5.0

#: Characters of a status, which is one line that ``systemctl status`` shows.
_LONGEST_STATUS: Final = 300


class Manager:
    """The service manager, if there is one that listens.

    Args:
        environ: its variables, ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._watchdog = _watchdog_seconds(environ) if self._address is not None else None

    async def ready(self, status: str) -> None:
        """Say that clients can connect, or that a reload is over."""
        await self._tell("READY=1", _status(status))

    async def reloading(self) -> None:
        """Say that a reload begins; :meth:`ready` has to follow."""
        # Without the time a unit of Type=notify-reload would take it for an older one (systemd.service(5)).
        await self._tell("RELOADING=1", f"MONOTONIC_USEC={host.monotonic_microseconds()}")

    async def stopping(self, status: str) -> None:
        """Say that the service ends."""
        await self._tell("STOPPING=1", _status(status))

    async def keep_alive(self) -> None:
        """Tell the watchdog, if there is one, at half its interval that the event loop runs, until cancelled.

        A handler that blocks the loop keeps the watchdog waiting, too: that is what it is there for.
        """
        while self._watchdog is not None:
            await self._tell("WATCHDOG=1")
            await trio.sleep(self._watchdog / 2)

    async def _tell(self, *lines: str) -> None:
        if self._address is None:
            await trio.lowlevel.checkpoint()
            return
        problem = f"it did not take it within {_MOST_SECONDS:.0f} s"
        message = "\n".join(lines).encode("utf-8", "backslashreplace")
        try:
            # Connected, so that there is something to wait for when it has no room (unix(7)).
            with trio.move_on_after(_MOST_SECONDS), host.connected_datagrams(self._address) as sock:
                # Before anything waits: what is told of the end goes out though the task is cancelled next.
                while not _is_taken(sock, message):
                    await trio.lowlevel.wait_writable(sock)
                problem = ""
        except OSError as exc:
            problem = exc.strerror or str(exc)  # Python's own says no number
        if problem:
            _log.warning("the service manager could not be told %s: %s", lines[0], problem)
        await trio.lowlevel.checkpoint()


def _is_taken(sock: socket.socket, message: bytes) -> bool:
    """Send a message, if there is room for it now."""
    try:
        sock.send(message)
    except BlockingIOError:
        return False
    return True


def _status(text: str) -> str:
    return f"STATUS={escape(text, _LONGEST_STATUS)}"


def _address(name: str) -> str | None:
    if not name or not host.HAS_NOTIFY:
        return None
    if name[0] == "@":
        return "\0" + name[1:]
    if name[0] == "/":
        return name
    _log.warning("NOTIFY_SOCKET is %s, must be a path or @ and a name: nothing is told", shown(name))
    return None


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """Return the watchdog's interval, None where nobody looks or it is for another process."""
    interval, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not interval or pid not in {"", str(os.getpid())}:
        return None
    if re.fullmatch(r"[0-9]{1,18}", interval) is None or int(interval) == 0:
        _log.warning("WATCHDOG_USEC is %s, must be a number of microseconds: it is not used", shown(interval))
        return None
    return int(interval) / 1_000_000
