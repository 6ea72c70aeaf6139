"""Endpoints in memory: where servers listen and clients connect, without a file or a system call.

Everything happens in one Trio program, so a mock clock rules all there is. This module must never be kinder
than a Unix socket: a test that passes here and fails there is its defect.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

from trio_ipc.channel import Channel, FramedChannelListener, framed
from trio_ipc.config import IpcConfig
from trio_ipc.endpoint import endpoint_problem
from trio_ipc.errors import (
    ConnectError,
    ConnectTimeoutError,
    EndpointInUseError,
    ServerNotFoundError,
    ServerRefusedError,
    shown,
    shown_argument,
)
from trio_ipc.transports import LocalListener, PeerCredentials, PeerPolicy

from .checking import check_callable, check_whole
from .endpoints import IpcEndpoint, StreamWrapper, channel_config, wrapped
from .memorystream import MemoryStream, check_credentials, memory_streams

#: Connections that wait to be accepted before connecting waits, as transports/unix.py asks for.
BACKLOG: Final = 128


class MemoryListener(LocalListener[MemoryStream]):
    """Accepts connections in memory. Made by :meth:`MemoryEndpoint.listen_streams`.

    Attributes:
        endpoint: its name.
    """

    def __init__(self, owner: MemoryEndpoint) -> None:
        self.endpoint: str = owner.path
        self._owner = owner
        self._closed = False
        self._waiting: deque[MemoryStream] = deque()
        self._failures: deque[OSError] = deque()
        self._acceptors = trio.lowlevel.ParkingLot()

    async def accept(self) -> MemoryStream:
        """Wait for the next client.

        Raises:
            OSError: what :meth:`MemoryEndpoint.fail_accept` was given.
            trio.BusyResourceError: another task is accepting.
            trio.ClosedResourceError: this listener was closed, before or meanwhile.

        Cancellation loses no client.
        """
        if self._acceptors:
            raise trio.BusyResourceError("another task is accepting on this listener")
        await trio.lowlevel.checkpoint()
        while not (self._waiting or self._failures or self._closed):
            await self._acceptors.park()
        if self._closed:
            raise trio.ClosedResourceError("this listener was closed")
        if self._failures:
            raise self._failures.popleft()
        accepted = self._waiting.popleft()
        self._owner._changed()
        return accepted

    async def aclose(self) -> None:
        """Stop listening. Connections that were not accepted yet are reset, as those in the backlog of a
        socket. Idempotent.

        Cancellation closes all the same.
        """
        self._close()
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for stream in self._waiting:
            stream.reset()
        self._waiting.clear()
        self._acceptors.unpark_all()
        self._owner._listener_closed(self)

    def _offer(self, stream: MemoryStream) -> None:
        self._waiting.append(stream)
        self._acceptors.unpark_all()

    def _fail_next(self, error: OSError) -> None:
        self._failures.append(error)
        self._acceptors.unpark_all()

    @property
    def _backlog_used(self) -> int:
        return len(self._waiting)


def _another(error: ConnectError) -> ConnectError:
    """Return the same error again: what raises one adds its traceback.

    Not by its ``__init__``, which may take what the error does not keep.
    """
    made = type(error).__new__(type(error), *error.args)
    made.args = error.args
    vars(made).update(vars(error))
    if hasattr(error, "__notes__"):
        made.__notes__ = [*error.__notes__]
    return made


class MemoryEndpoint(IpcEndpoint):
    """An endpoint in memory: servers listen at it and clients connect to it, in one Trio program.

    Args:
        name: what it is called. It also is the ``endpoint_path`` of its settings; a bare name becomes one
            that this system takes for a path.
        buffer_bytes: how many bytes either end of a connection takes before the other's sending waits, if
            that is less than a socket takes; None for what a socket takes.
        backlog: connections that may wait to be accepted before connecting waits.
        client: whom servers see; this process's credentials if None.
        server: whom clients see; this process's credentials if None.

    Attributes:
        path: its name as ``endpoint_path`` has it.
        client, server: as given. A change holds for the connections made from then on.
        tries: how often somebody has tried to connect.
    """

    def __init__(
        self,
        name: str = "memory",
        *,
        buffer_bytes: int | None = None,
        backlog: int = BACKLOG,
        client: PeerCredentials | None = None,
        server: PeerCredentials | None = None,
    ) -> None:
        check_whole("buffer_bytes", buffer_bytes, 1, optional=True)
        check_whole("backlog", backlog, 1)
        if not isinstance(name, str):
            raise TypeError(f"name is {shown(name)}, must be a str")
        check_credentials("client", client)
        check_credentials("server", server)
        self.path: str = name if endpoint_problem(name) is None else f"/{name}"
        self.client: PeerCredentials = client or PeerCredentials.of_this_process()
        self.server: PeerCredentials = server or PeerCredentials.of_this_process()
        self.tries: int = 0
        self._buffer_bytes = buffer_bytes
        self._backlog = backlog
        self._listener: MemoryListener | None = None
        self._refusal: ConnectError | None = None
        self._hangs = False
        self._connectors = trio.lowlevel.ParkingLot()

    # --- What a test may do to it ---

    def refuse(self, error: ConnectError | None = None) -> None:
        """Let connecting fail from now on, until :meth:`admit` or :meth:`hang`. Connections that exist stay.

        Args:
            error: what it fails by; :exc:`~trio_ipc.ServerRefusedError` if None, as if a server had died.

        Raises:
            TypeError: it is no :exc:`~trio_ipc.ConnectError`.
        """
        if error is not None:
            if not isinstance(error, ConnectError):
                raise TypeError(f"error is {shown(error)}, must be a ConnectError")
            _another(error)  # if that cannot be, it is said here
        self._hangs = False
        self._refusal = error or ServerRefusedError(
            "connection refused: nobody listens at this endpoint", endpoint=self.path, hint="start the server"
        )
        self._changed()

    def hang(self) -> None:
        """Let connecting wait from now on, as at a server that is stopped, until :meth:`admit` or
        :meth:`refuse`, which are for those who wait as well.
        """
        self._refusal, self._hangs = None, True

    def admit(self) -> None:
        """Let connecting succeed again, also for those who wait in :meth:`hang`."""
        self._refusal, self._hangs = None, False
        self._changed()

    def fail_accept(self, error: OSError) -> None:
        """Let the server's next accept raise this once, as one without descriptors does (EMFILE).

        Clients that wait to be accepted keep their places. Several errors are raised one after another.

        Raises:
            TypeError: it is no :exc:`OSError`.
            ServerNotFoundError: nobody listens.
        """
        if not isinstance(error, OSError):
            raise TypeError(f"error is {shown(error)}, must be an OSError")
        self._listening()._fail_next(error)

    # --- What servers and clients do with it ---

    async def listen_streams(self, peers: PeerPolicy | None = None) -> MemoryListener:
        """Listen here.

        Raises:
            EndpointInUseError: somebody does already.
        """
        del peers  # as with a Unix socket, judged by who accepts
        await trio.lowlevel.checkpoint()
        if self._listener is not None:
            raise EndpointInUseError(
                "another server listens at this endpoint", endpoint=self.path, hint="stop it first"
            )
        self._listener = MemoryListener(self)
        self._changed()
        return self._listener

    async def connect(self) -> MemoryStream:
        """Connect. The caller sets the deadline.

        Raises:
            ServerNotFoundError: nobody listens.
            ConnectError: what :meth:`refuse` was given.

        Cancellation leaves nothing open.
        """
        self.tries += 1
        await trio.lowlevel.checkpoint()
        while self._hangs or (self._refusal is None and self._listening()._backlog_used >= self._backlog):
            await self._connectors.park()
        if self._refusal is not None:
            raise _another(self._refusal)
        near, far = memory_streams(
            self.path, buffer_bytes=self._buffer_bytes, client=self.client, server=self.server
        )
        self._listening()._offer(far)
        return near

    async def listen(self, config: IpcConfig, peers: PeerPolicy | None = None) -> trio.abc.Listener[Channel]:
        """Listen here for channels of these settings; raises as :meth:`listen_streams` does.

        Raises:
            TypeError: ``config`` has no settings.
        """
        channel_config(config)
        return FramedChannelListener(await self.listen_streams(peers), config)

    async def open_channel(self, config: IpcConfig, *, wrap: StreamWrapper | None = None) -> Channel:
        """Connect, as the client of :func:`trio_ipc.open_client` does.

        Args:
            config: the channel's settings.
            wrap: put around the stream, such as :meth:`trio_ipc.testing.Faults.wrap`.

        Raises:
            ConnectError: as :meth:`connect` raises it.
            ConnectTimeoutError: ``accept_timeout_ms`` passed.
            TypeError: ``config`` has no settings, or ``wrap`` is no function or returns no stream.
        """
        channel_config(config)
        check_callable("wrap", wrap, optional=True)
        with trio.move_on_after(config.accept_timeout_ms / 1000):
            return framed(wrapped(await self.connect(), wrap), config)
        raise ConnectTimeoutError(
            f"the server did not take the connection in time, the limit accept_timeout_ms is "
            f"{config.accept_timeout_ms}",
            endpoint=self.path,
            hint="the endpoint in memory hangs, or its backlog is full",
        )

    def _listening(self) -> MemoryListener:
        if self._listener is None:
            raise ServerNotFoundError(
                "no server: nobody listens at this endpoint in memory",
                endpoint=self.path,
                hint="start the server first, at the same MemoryEndpoint",
            )
        return self._listener

    def _changed(self) -> None:
        self._connectors.unpark_all()

    def _listener_closed(self, listener: MemoryListener) -> None:
        if self._listener is listener:
            self._listener = None
            self._changed()

    def __repr__(self) -> str:
        """Give its name."""
        return f"MemoryEndpoint({self.path!r})"


class MemoryNetwork:
    """Several endpoints in memory, found by their names; for clients of several servers.

    ``open_resilient_client(…, connect=network.open_channel)`` connects by each endpoint's
    ``endpoint_path``.
    """

    def __init__(self) -> None:
        self._endpoints: dict[str, MemoryEndpoint] = {}

    def endpoint(self, name: str) -> MemoryEndpoint:
        """Return the endpoint of this name, a new one if there is none yet."""
        made = MemoryEndpoint(name)
        return self._endpoints.setdefault(made.path, made)

    def add(self, endpoint: MemoryEndpoint) -> None:
        """Add an endpoint that was made with settings of its own.

        Raises:
            TypeError: it is no endpoint in memory.
            ValueError: there is one of that name.
        """
        if not isinstance(endpoint, MemoryEndpoint):
            raise TypeError(f"endpoint is {shown_argument(endpoint)}, must be a MemoryEndpoint")
        if endpoint.path in self._endpoints:
            raise ValueError(f"there is an endpoint {endpoint.path} already")
        self._endpoints[endpoint.path] = endpoint

    async def open_channel(self, config: IpcConfig) -> Channel:
        """Connect to the endpoint that ``config.endpoint_path`` names.

        Raises:
            ServerNotFoundError: there is none of that name, or nobody listens.
            ConnectError: as :meth:`MemoryEndpoint.open_channel` raises it.
        """
        return await self.endpoint(channel_config(config).endpoint_path).open_channel(config)
