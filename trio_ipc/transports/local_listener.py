"""Which listeners give streams of this machine: judged when one is given, not when its first client comes.

This module must import no platform before it is asked for one.
"""

from __future__ import annotations

import sys

import trio

from trio_ipc.errors import shown_argument
from trio_ipc.transports.duplex import LocalListener, LocalStream


def local_listener(listener: object) -> trio.abc.Listener[LocalStream]:
    """Return a listener of local streams: the one given, or one that has taken its socket over.

    Args:
        listener: of which the caller says that it gives local streams; or Trio's, of a Unix socket.

    Raises:
        TypeError: it gives others, or is no listener. What a listener of somebody else's kind gives is seen
            with its first client.
    """
    if isinstance(listener, trio.SocketListener):
        return _of_trio(listener)
    if isinstance(listener, trio.SSLListener):
        raise TypeError("listener is an SSLListener, must be one of Unix sockets or pipes: no network here")
    if not isinstance(listener, trio.abc.Listener):
        hint = ": give the one that is in it" if isinstance(listener, list | tuple) else ""
        raise TypeError(f"listener is {shown_argument(listener)}, must be a listener of local streams{hint}")
    return listener


def no_local_stream(listener: object, stream: object) -> TypeError:
    """Return the error of a listener whose streams are not local ones."""
    return TypeError(
        f"a {type(listener).__name__} gave a {type(stream).__name__}, which is no LocalStream: it does not "
        "tell who is at the other end"
    )


def gives_streams(listener: object) -> bool:
    """Return whether this is known to give streams, where channels are wanted."""
    return isinstance(listener, LocalListener | trio.SocketListener | trio.SSLListener)


if sys.platform == "win32":

    def _of_trio(_listener: trio.SocketListener) -> trio.abc.Listener[LocalStream]:
        raise TypeError(
            "listener is a SocketListener, must be one of named pipes: on Windows sockets are a network's"
        )

else:

    def _of_trio(listener: trio.SocketListener) -> trio.abc.Listener[LocalStream]:
        # Only for who has such a one.
        from trio_ipc.transports.unix_inheriting import of_trio  # noqa: PLC0415
        from trio_ipc.transports.unix_listener import UnixListener  # noqa: PLC0415

        return UnixListener(of_trio(listener))
