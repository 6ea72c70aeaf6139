"""Sockets stay with the process that opened them: a child that is only forked closes its copies at once.

A copy in a child would keep a connection or an endpoint alive after its server has closed it, or died: peers
would wait for somebody who is not there. Python tells of each fork that goes through it (:func:`os.fork`,
and so ``multiprocessing``); one that native code makes by itself is not seen. This module must never shut a
socket down: that would be felt by the parent.
"""

from __future__ import annotations

import os
import socket
import sys
import weakref

assert sys.platform != "win32", "for Unix only"  # noqa: S101  # mypy skips the rest elsewhere

#: A callback of os.register_at_fork() can never be taken back. So there is one for the whole process, and
#: this set, which a fork has to find, is the library's only state that belongs to no server and no client.
_kept_here: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def keep_from_children(sock: socket.socket) -> None:
    """Have a socket closed in every child that is forked from now on, for as long as it lives."""
    _kept_here.add(sock)


def _close_copies() -> None:
    # Those that listen first: a client that is told of its server's end may start the next one at once.
    for sock in sorted(_kept_here, key=_listens, reverse=True):
        sock.close()
    _kept_here.clear()


def _listens(sock: socket.socket) -> bool:
    try:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) != 0
    except OSError:
        return False  # it is closed already


os.register_at_fork(after_in_child=_close_copies)
