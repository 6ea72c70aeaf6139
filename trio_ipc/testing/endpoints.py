"""Places where a test's server and client meet: the system's endpoints, and what all kinds have in common.

A test that takes an :class:`IpcEndpoint` runs over memory and over either transport without a change. This
module must never leave a file or a pipe behind.
"""

from __future__ import annotations

import abc
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import trio

from trio_ipc import opening, transports
from trio_ipc.channel import Channel, framed
from trio_ipc.config import IpcConfig, TransportType
from trio_ipc.endpoint import PIPE_FOLDER, endpoint_problem
from trio_ipc.errors import ConfigError, ConnectTimeoutError
from trio_ipc.transports import LocalStream, PeerPolicy

from .checking import check_callable, checked

#: Puts something around a stream: faults, a recorder.
StreamWrapper: TypeAlias = Callable[[LocalStream], LocalStream]


class IpcEndpoint(abc.ABC):
    """A place where servers listen and clients connect.

    Attributes:
        path: the ``endpoint_path`` of its settings.
        transport: the ``transport`` of its settings.
    """

    path: str
    transport: TransportType = TransportType.INTERPROCESS

    def config(self, **settings: Any) -> IpcConfig:
        """Return settings for this endpoint, the defaults but for those given.

        Raises:
            ConfigError: a setting is wrong.
        """
        return IpcConfig(**{"transport": self.transport, "endpoint_path": self.path, **settings})

    @abc.abstractmethod
    async def listen_streams(self, peers: PeerPolicy | None = None) -> trio.abc.Listener[Any]:
        """Listen for streams of bytes, for servers that break the protocol on purpose.

        Raises:
            EndpointError: the endpoint cannot be used.
        """

    @abc.abstractmethod
    async def connect(self) -> LocalStream:
        """Connect as bytes, for clients that break the protocol on purpose. The caller sets the deadline.

        Raises:
            ConnectError: in the precise form that fits.
        """

    @abc.abstractmethod
    async def listen(self, config: IpcConfig, peers: PeerPolicy | None = None) -> trio.abc.Listener[Channel]:
        """Listen for channels, as :func:`trio_ipc.serve` does.

        Raises:
            EndpointError: the endpoint cannot be used.
        """

    @abc.abstractmethod
    async def open_channel(self, config: IpcConfig, *, wrap: StreamWrapper | None = None) -> Channel:
        """Connect, as :func:`trio_ipc.open_client` does.

        Args:
            config: the channel's settings.
            wrap: put around the stream, such as :meth:`trio_ipc.testing.Faults.wrap`.

        Raises:
            ConnectError: in the precise form that fits.
            TypeError: ``config`` has no settings, or ``wrap`` is no function or returns no stream.
            ValueError: this transport has no stream to wrap.
        """


def endpoint_of(given: object) -> IpcEndpoint:
    """Return the endpoint that a test gave.

    Raises:
        TypeError: it is something else, such as a path.
    """
    wanted = "an IpcEndpoint, such as MemoryEndpoint() or SystemEndpoint(path)"
    return checked("endpoint", given, IpcEndpoint, wanted)  # type: ignore[type-abstract]  # any that derives from it


def channel_config(given: object) -> IpcConfig:
    """Return the settings that a test gave for a channel.

    Raises:
        TypeError: they are something else.
    """
    return checked("config", given, IpcConfig, "an IpcConfig")


def wrapped(stream: LocalStream, wrap: StreamWrapper | None) -> LocalStream:
    """Return what ``wrap`` puts around a stream, or the stream if it is None. If that fails, it is closed.

    Raises:
        TypeError: ``wrap`` has returned no stream.
    """
    if wrap is None:
        return stream
    try:
        around = wrap(stream)
        return checked("what wrap returned", around, LocalStream, "a LocalStream")  # type: ignore[type-abstract]
    except BaseException:
        stream.close()
        raise


class SystemEndpoint(IpcEndpoint):
    """An endpoint of this system: a Unix socket or a Windows named pipe.

    Args:
        path: as ``endpoint_path`` has it.
        transport: the implementation that carries the frames.

    Raises:
        ConfigError: this version, or this system, has no such transport, or the path is none.
    """

    def __init__(self, path: str, transport: TransportType | str = TransportType.INTERPROCESS) -> None:
        checked = IpcConfig(endpoint_path=path, transport=transport)
        self.path: str = checked.endpoint_path
        self.transport: TransportType = checked.transport

    async def listen_streams(self, peers: PeerPolicy | None = None) -> trio.abc.Listener[Any]:
        """Listen for streams; see :meth:`IpcEndpoint.listen_streams`."""
        return await transports.listen(self.path, PeerPolicy.of(peers))

    async def connect(self) -> LocalStream:
        """Connect as bytes; see :meth:`IpcEndpoint.connect`."""
        return await transports.connect(self.path)

    async def listen(self, config: IpcConfig, peers: PeerPolicy | None = None) -> trio.abc.Listener[Channel]:
        """Listen for channels; see :meth:`IpcEndpoint.listen`."""
        return await opening.open_channel_listener(channel_config(config), PeerPolicy.of(peers))

    async def open_channel(self, config: IpcConfig, *, wrap: StreamWrapper | None = None) -> Channel:
        """Connect; see :meth:`IpcEndpoint.open_channel`."""
        channel_config(config)
        check_callable("wrap", wrap, optional=True)
        if wrap is None:
            return await opening.open_channel(config)
        if config.transport is not TransportType.INTERPROCESS:
            raise ValueError(
                f"the {config.transport} transport has no stream to wrap: put a relay in between instead"
            )
        with trio.move_on_after(config.accept_timeout_ms / 1000):
            return framed(wrapped(await self.connect(), wrap), config)
        raise ConnectTimeoutError(
            f"the server did not take the connection in time, the limit accept_timeout_ms is "
            f"{config.accept_timeout_ms}",
            endpoint=self.path,
        )

    def __repr__(self) -> str:
        """Give path and transport."""
        return f"SystemEndpoint({self.path!r}, {str(self.transport)!r})"


@contextmanager
def temporary_endpoint(
    transport: TransportType | str = TransportType.INTERPROCESS,
) -> Iterator[SystemEndpoint]:
    """Give an endpoint of this system that nobody else has, for the length of a ``with`` block.

    A Unix socket is in a private directory, which is removed in the end.

    Raises:
        ConfigError: this version, or this system, has no such transport; or the path of the temporary
            directory leaves no room for a socket's name (set TMPDIR to a shorter one).
    """
    with tempfile.TemporaryDirectory(prefix="ipc-") as directory:
        path = os.path.join(directory, "s.sock")
        pipe = f"{PIPE_FOLDER}{os.path.basename(directory)}"
        # What is a good path on one system is no good name on the other; of two bad ones the path is told.
        if endpoint_problem(path) is not None and endpoint_problem(pipe) is None:
            path = pipe
        try:
            endpoint = SystemEndpoint(path, transport)
        except ConfigError as exc:
            if exc.field == "endpoint_path":
                exc.hint = "set TMPDIR to a shorter path"
            raise
        yield endpoint
