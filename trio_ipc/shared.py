"""A client that several tasks share: their calls are under way on one connection at the same time.

It is for many callers of one server; a caller that is alone is served best by :class:`~trio_ipc.Client`.
This module must never repeat a call, and never let one caller's leaving reach another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, overload

from .calling import Turns, kind_of, nursery_of_our_own, open_trusted_channel
from .channel import Channel
from .config import IpcConfig
from .contract import Contract, RequestT, ResponseT
from .errors import ConfigError
from .pipeline import Pipeline
from .telemetry import ClientSnapshot, ClientTelemetry
from .transports import PeerCredentials, PeerPolicy

if TYPE_CHECKING:
    from .daemoneye import DetectionResult, DetectionTask

#: As many as a server answers by one write.
DEFAULT_IN_FLIGHT: Final = 64


class SharedClient(Generic[RequestT, ResponseT]):
    """A connection to a server for several tasks. Made by :func:`open_shared_client`.

    Args:
        channel: the connection, which the client owns.
        config: deadlines.
        contract: the message types.
        max_in_flight: how many calls may be under way at a time.

    Attributes:
        endpoint: where it leads.
        peer: the server's process and user, as the system reported them.
    """

    def __init__(
        self,
        channel: Channel,
        config: IpcConfig,
        *,
        contract: Contract[RequestT, ResponseT],
        max_in_flight: int = DEFAULT_IN_FLIGHT,
    ) -> None:
        self.endpoint = channel.endpoint
        self.peer: PeerCredentials | None = channel.peer
        self._contract = contract
        self._telemetry = ClientTelemetry(
            transport=channel.transport, endpoint=self.endpoint, contract=contract.name
        )
        channel.traffic = self._telemetry
        self._turns = Turns(max_in_flight, endpoint=self.endpoint, read_timeout_ms=config.read_timeout_ms)
        self._pipeline = Pipeline(channel, contract=contract)

    async def run(self) -> None:
        """Carry calls until the connection ends. :func:`open_shared_client` does that.

        Raises nothing. Cancellation closes the connection, and ends every call.
        """
        await self._pipeline.run()

    def snapshot(self) -> ClientSnapshot:
        """Return what the client has done so far; see :meth:`Client.snapshot`."""
        return self._telemetry.snapshot()

    async def call(self, request: RequestT) -> ResponseT:
        """Send a request and wait for its response, while other tasks' calls do the same.

        What is called at the same time goes into one write. The server handles the requests of a connection
        one after the other, so that a slow handler delays the answers behind it; ``read_timeout_ms`` holds
        from one answer to the next.

        Args:
            request: a message of the contract's request type.

        Returns:
            The response. One that reports a failure is returned, not raised.

        Raises:
            MessageError: the request is empty or too large. Nothing was sent, and the client is good.
            TurnTimeoutError: ``max_in_flight`` calls were under way for longer than ``read_timeout_ms``.
                Nothing was sent, and the client is good.
            PeerClosedError: the server closed the connection. Whether it did the work is not known.
            WriteTimeoutError, ReadTimeoutError: a deadline went by.
            ProtocolError: this call's response breaks the protocol, cannot be decoded or answers another
                request.
            ChannelClosedError: the client was closed, or broken by another call; that one's error is the
                cause.

        After an error other than the first two the connection is closed, and every call on it has ended.
        Cancellation hurts no other call: what was sent keeps its place, of ``max_in_flight`` too, until the
        answer has come and was dropped.
        """
        self._contract.check_request(request)
        telemetry = self._telemetry
        telemetry.calls += 1
        telemetry.calls_in_flight += 1
        began = telemetry.now()
        try:
            await self._turns.take()
            response = await self._pipeline.call(request, settled=self._settled)
            telemetry.call_seconds.observe(telemetry.now() - began)
            return response
        except BaseException as exc:
            telemetry.calls_failed[kind_of(exc)] += 1
            raise
        finally:
            telemetry.calls_in_flight -= 1

    def is_quiet(self) -> bool:
        """Return whether the client, idle so far, is good for another call; see :meth:`Client.is_quiet`."""
        return self._pipeline.is_quiet()

    @property
    def is_broken(self) -> bool:
        """Whether the connection was closed, by :meth:`aclose` or by what a call met."""
        return self._pipeline.is_broken

    async def aclose(self) -> None:
        """Close the connection at once. Calls under way end by :exc:`ChannelClosedError`."""
        await self._pipeline.aclose()

    def _settled(self, _: BaseException | None) -> None:
        self._turns.give_back()


@overload
def open_shared_client(
    config: IpcConfig | None = None,
    *,
    peers: PeerPolicy | None = None,
    max_in_flight: int = DEFAULT_IN_FLIGHT,
) -> AbstractAsyncContextManager[SharedClient[DetectionTask, DetectionResult]]: ...


@overload
def open_shared_client(
    config: IpcConfig | None = None,
    *,
    contract: Contract[RequestT, ResponseT],
    peers: PeerPolicy | None = None,
    max_in_flight: int = DEFAULT_IN_FLIGHT,
) -> AbstractAsyncContextManager[SharedClient[RequestT, ResponseT]]: ...


@asynccontextmanager
async def open_shared_client(
    config: IpcConfig | None = None,
    *,
    contract: Contract[Any, Any] | None = None,
    peers: PeerPolicy | None = None,
    max_in_flight: int = DEFAULT_IN_FLIGHT,
) -> AsyncIterator[SharedClient[Any, Any]]:
    """Connect to the configured endpoint, for tasks that share the connection.

    Args:
        config: the settings; None for the defaults and the environment (:meth:`IpcConfig.load`).
        contract: the message types; None for DaemonEye's.
        peers: which users the server may run as; by default this process's own and root.
        max_in_flight: how many calls may be under way at a time, 1 or more; the others wait for a turn.

    Returns:
        A context manager that gives a :class:`SharedClient`. When the block ends the connection is closed,
        and calls that other tasks have under way end by :exc:`ChannelClosedError`.

    Raises:
        ConfigError: ``max_in_flight`` is below 1, or the environment holds a wrong setting, where ``config``
            is None.
        ServerNotFoundError, ServerRefusedError, EndpointPermissionError, ConnectTimeoutError,
        PeerNotAllowedError: no connection could be had; all are :exc:`ConnectError`.

    Cancellation closes the connection. What the block raises comes out as it is, not in a group.
    """
    if max_in_flight < 1:
        raise ConfigError(f"max_in_flight must be at least 1, not {max_in_flight}")
    if config is None:
        config = IpcConfig.load()
    if contract is None:
        from .daemoneye import DETECTION  # noqa: PLC0415 - only who speaks it loads its messages

        contract = DETECTION
    channel = await open_trusted_channel(config, PeerPolicy.of(peers))
    client = SharedClient(channel, config, contract=contract, max_in_flight=max_in_flight)
    async with nursery_of_our_own() as nursery:
        nursery.start_soon(client.run)
        yield client
