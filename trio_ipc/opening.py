"""Opens channels by the configured transport: the one place where ``ipc.transport`` chooses.

A transport that is not chosen is not loaded. This module must never know what happens on a channel once it
is open.
"""

from __future__ import annotations

import functools
from typing import Protocol

import attrs
import trio

from trio_ipc import transports
from trio_ipc.channel import STOPPED, Channel
from trio_ipc.config import IpcConfig, TransportType
from trio_ipc.errors import ConnectTimeoutError, IpcError
from trio_ipc.transports import DetachableListener, Detached, EndpointState, PeerPolicy


class _Transport(Protocol):
    """What a transport's module has."""

    async def connect(self, config: IpcConfig) -> Channel: ...
    def connect_nowait(self, config: IpcConfig) -> Channel | None: ...
    async def listen(self, config: IpcConfig, peers: PeerPolicy, /) -> DetachableListener[Channel]: ...
    def adopt(self, detached: Detached, config: IpcConfig) -> DetachableListener[Channel]: ...


@functools.cache  # each connection asks, and an import that finds everything loaded is not for nothing
def _load(transport: TransportType) -> _Transport:
    if transport is TransportType.LEGACY:
        from trio_ipc import legacy  # noqa: PLC0415

        return legacy
    from trio_ipc.channel import interprocess  # noqa: PLC0415

    return interprocess


def check_on_trio() -> None:
    """Raise :exc:`~trio_ipc.IpcError` outside of Trio, with what is there for other programs."""
    if not trio.lowlevel.in_trio_task():
        raise IpcError(
            "this is for programs on Trio, and Trio does not run here",
            hint='asyncio programs use trio_ipc.aio, and those of anyio that or its backend "trio"',
        )


@trio.lowlevel.enable_ki_protection  # an interrupt would lose a connection between two steps
async def open_channel(config: IpcConfig) -> Channel:
    """Connect to the configured endpoint.

    Returns:
        A channel that the caller owns. Whether its peer may be trusted is not judged here.

    Raises:
        ConnectError: in the precise form that fits, :exc:`~trio_ipc.ConnectTimeoutError` when
            ``accept_timeout_ms`` passed.

    Cancellation leaves nothing open.
    """
    transport = _load(config.transport)
    await trio.lowlevel.checkpoint_if_cancelled()
    channel = transport.connect_nowait(config)
    if channel is not None:  # as mostly; a scope for the wait would take 7 µs
        await trio.lowlevel.cancel_shielded_checkpoint()
        return channel
    while True:
        with trio.move_on_after(config.accept_timeout_ms / 1000) as in_time:
            return await transport.connect(config)
        if trio.current_time() < in_time.deadline + STOPPED:
            break  # else it was this process that was stopped, and not the server that took too long
    raise ConnectTimeoutError(
        f"the server did not take the connection in time, the limit accept_timeout_ms is "
        f"{config.accept_timeout_ms}",
        endpoint=config.endpoint_path,
        hint="it is overloaded or stopped; see whether it runs",
    )


async def open_channel_listener(config: IpcConfig, peers: PeerPolicy) -> EndpointListener:
    """Listen at the configured endpoint.

    Args:
        config: where, and the limits of the channels.
        peers: whom the system should let in, where a listener can tell it. To judge each peer by the
            policy remains the caller's.

    Returns:
        A listener of channels that the caller owns; closing it removes the endpoint.

    Raises:
        ConfigError: the policy has a user that this system cannot name.
        EndpointError: in the precise form that fits.
    """
    return EndpointListener(await _load(config.transport).listen(config, peers), config)


def take_over_listener(fd: int, config: IpcConfig, *, most: int) -> EndpointListener:
    """Listen on a socket that another process has opened, at the path where that one is.

    Args:
        fd: its descriptor.
        config: the limits of the channels. Its ``endpoint_path`` is not used.
        most: permissions that the socket may have.

    Returns:
        A listener of channels that owns the descriptor. Closing it leaves the endpoint.

    Raises:
        TypeError, ConfigError: the arguments are wrong.
        EndpointError: in the precise form that fits. The descriptor is the caller's still.
    """
    detached = transports.inherited(fd, most=most, group=config.socket_group)
    try:
        config = config.replace(endpoint_path=detached.endpoint)
        return EndpointListener(_load(config.transport).adopt(detached, config), config)
    except BaseException:
        transports.give_back(detached)
        raise


@attrs.define(eq=False)
class _Switch:
    """A switch that waits for the accepting task to leave the old listener."""

    transport: TransportType
    done: trio.Event = attrs.field(factory=trio.Event)
    error: Exception | None = None


class EndpointListener(trio.abc.Listener[Channel]):
    """Accepts channels at an endpoint, by a transport that can be changed meanwhile.

    What changes hands is the kernel's object (:class:`~trio_ipc.transports.Detached`): the endpoint is there
    all the time, and the clients that wait at it are accepted by whichever transport is next.

    Args:
        listener: the transport's, which is owned.
        config: for every channel.

    Attributes:
        endpoint: where it listens.
        transport: the active one.
    """

    def __init__(self, listener: DetachableListener[Channel], config: IpcConfig) -> None:
        self.endpoint = config.endpoint_path
        self.transport = config.transport
        self._listener = listener
        self._former: DetachableListener[Channel] | None = None
        self._config = config
        self._accepting = False
        self._accept_scope = trio.CancelScope()
        self._turn = trio.Lock()
        self._switch_wanted: _Switch | None = None

    async def accept(self) -> Channel:
        """Wait for the next connection; raises what the transport raises.

        Cancellation loses no client.
        """
        if self._accepting:
            raise trio.BusyResourceError("another task is accepting")
        self._accepting = True
        try:
            while True:
                with trio.CancelScope() as self._accept_scope:
                    return await self._listener.accept()
                self._do_switch()
        finally:
            self._accepting = False
            # With a client, by a failure or cancelled: it has left the old listener all the same.
            self._do_switch()

    async def switch(self, transport: TransportType) -> None:
        """Accept by another transport from now on. Several calls take turns.

        Raises:
            ImportError, OSError: the transport cannot be used. The old one goes on.
            trio.ClosedResourceError: this listener was closed.

        A cancellation may come before the switch or after it; ``transport`` tells which one is in use.
        """
        async with self._turn:
            if transport is self.transport:
                return
            _load(transport)  # if that fails, nobody was disturbed
            self._switch_wanted = wanted = _Switch(transport)
            try:
                if self._accepting:
                    self._accept_scope.cancel()
                    await wanted.done.wait()
                else:
                    self._do_switch()
            finally:
                self._switch_wanted = None
            if wanted.error is not None:
                raise wanted.error

    @trio.lowlevel.enable_ki_protection
    def _do_switch(self) -> None:
        if self._switch_wanted is None:
            return
        wanted, self._switch_wanted = self._switch_wanted, None
        try:
            self._replace(wanted.transport)
        except Exception as exc:  # noqa: BLE001 - it is raised in the task that wished
            wanted.error = exc
        wanted.done.set()

    def _replace(self, transport: TransportType) -> None:
        config = self._config.replace(transport=transport)
        successor = _load(transport).adopt(self._listener.detach(), config)
        self._listener.release()
        # Kept until the next switch: on Windows, Trio may still look out for the address of what the former
        # one waited for last, and nothing new should have the same.
        self._former = self._listener
        self._listener, self._config, self.transport = successor, config, transport

    def look(self) -> EndpointState | None:
        """Return what has become of the endpoint, or None where nobody can take it away. Does not wait."""
        return self._listener.look()

    async def aclose(self) -> None:
        """Stop listening and remove the endpoint. Idempotent."""
        await self._listener.aclose()
