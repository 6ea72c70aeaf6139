"""What one listener leaves to another, so that an endpoint stays while its transport changes.

It is the kernel's own object, with the clients that wait at it: nothing is closed, made again or shared in
between, and so no client can be refused or lost. This module must never import a transport.
"""

from __future__ import annotations

import abc
import sys
from typing import TypeVar

import attrs
import trio

from trio_ipc.transports.monitor import EndpointState

_ResourceT_co = TypeVar("_ResourceT_co", bound=trio.abc.AsyncResource, covariant=True)

if sys.platform == "win32":

    @attrs.frozen(kw_only=True)
    class Detached:
        """A pipe's instance that waits for its client.

        Attributes:
            endpoint: the pipe's name, in full.
            descriptor: the security descriptor of its further instances.
            handle: of the instance. No operation is in progress on it.
            has_client: whether a client has connected already.
            on_port: whether the handle belongs to Trio's completion port.
        """

        endpoint: str
        descriptor: bytes
        handle: int
        has_client: bool
        on_port: bool

else:
    import os
    import socket as _socket

    from trio_ipc.transports.monitor import root_directory

    @attrs.frozen(kw_only=True)
    class Detached:
        """A listening socket, and what has to be known of its file.

        Attributes:
            endpoint: its path.
            socket: it listens, and does not block.
            inode: device and number of the socket file, None where it cannot be seen from here.
            root: those of the root directory that the path begins at, None where that can't be told.
            pid: the process that has the socket to serve on, and the only one that may remove the file.
            ours: whether the file goes with its last owner here. One that somebody else made stays.
        """

        endpoint: str
        socket: _socket.socket
        inode: tuple[int, int] | None
        root: tuple[int, int] | None = attrs.field(factory=root_directory)
        pid: int = attrs.field(factory=os.getpid)
        ours: bool = True


class DetachableListener(trio.abc.Listener[_ResourceT_co]):
    """A listener that can leave its endpoint to another one."""

    @abc.abstractmethod
    def detach(self) -> Detached:
        """Say what there is to take over. Nothing changes until :meth:`release`.

        Raises:
            trio.BusyResourceError: a task is accepting; it has to leave first. (Not every listener can
                tell, so the caller must know.)
            trio.ClosedResourceError: this listener was closed.
        """

    @abc.abstractmethod
    def release(self) -> None:
        """Be closed, without closing anything: what was handed over is its new owner's. Cannot fail."""

    def look(self) -> EndpointState | None:
        """Return what has become of the endpoint, or None where nobody can take it away. Does not wait."""
        return None
