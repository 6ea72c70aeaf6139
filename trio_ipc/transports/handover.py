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

from .lookout import EndpointState

_ResourceT_co = TypeVar("_ResourceT_co", bound=trio.abc.AsyncResource, covariant=True)

if sys.platform == "win32":

    @attrs.frozen(kw_only=True)
    class Handover:
        """A pipe's instance that waits for its client.

        Attributes:
            endpoint: the pipe's name, in full.
            descriptor: the security descriptor of its further instances.
            handle: of the instance. No operation is under way on it.
            has_client: whether a client has connected already.
            on_port: whether the handle belongs to Trio's completion port.
        """

        endpoint: str
        descriptor: bytes
        handle: int
        has_client: bool
        on_port: bool

else:
    import socket as _socket

    @attrs.frozen(kw_only=True)
    class Handover:
        """A listening socket.

        Attributes:
            endpoint: its path.
            socket: it listens, and does not block.
            inode: device and number of the socket file, which goes with its last owner.
        """

        endpoint: str
        socket: _socket.socket
        inode: tuple[int, int]


class TransferableListener(trio.abc.Listener[_ResourceT_co]):
    """A listener that can leave its endpoint to another one."""

    @abc.abstractmethod
    def hand_over(self) -> Handover:
        """Say what there is to take over. Nothing changes until :meth:`let_go`.

        Raises:
            trio.BusyResourceError: a task is accepting; it has to leave first. (Not every listener can
                tell, so the caller must know.)
            trio.ClosedResourceError: this listener was closed.
        """

    @abc.abstractmethod
    def let_go(self) -> None:
        """Be closed, without closing anything: what was handed over is its new owner's. Cannot fail."""

    def look(self) -> EndpointState | None:
        """Return what has become of the endpoint, or None where nobody can take it away. Does not wait."""
        return None
