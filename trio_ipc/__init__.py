"""Protobuf messages between processes of one machine, on Trio.

What is not named here is private. The messages of DaemonEye are in :mod:`trio_ipc.daemoneye`.
"""

from typing import TYPE_CHECKING, Any

from .channel import Channel, FramedChannel, FramedChannelListener
from .client import Client, open_client
from .config import Crc32Variant, IpcConfig, TransportType
from .contract import RESPONSE_TOO_LARGE, Contract, Negotiation
from .errors import (
    AttemptsFailedError,
    CallError,
    CallTimeoutError,
    ChannelClosedError,
    ChannelError,
    ChecksumMismatchError,
    CircuitOpenError,
    ConfigError,
    ConnectError,
    ConnectTimeoutError,
    ContractError,
    EndpointError,
    EndpointInUseError,
    EndpointPermissionError,
    EndpointUnsafeError,
    FrameTooLargeError,
    InvalidLengthError,
    IpcError,
    MessageEmptyError,
    MessageError,
    MessageTooLargeError,
    NoEndpointError,
    PeerClosedError,
    PeerNotAllowedError,
    PoolTimeoutError,
    ProtocolError,
    ReadTimeoutError,
    ResponseMismatchError,
    ServerNotFoundError,
    ServerRefusedError,
    TruncatedFrameError,
    TurnTimeoutError,
    UndecodableMessageError,
    UnsolicitedResponseError,
    WriteTimeoutError,
)
from .server import Call, Handler, Server, serve, serve_listener
from .telemetry import (
    LATENCY_BOUNDS,
    ClientSnapshot,
    HistogramSnapshot,
    ServerCounts,
    ServerSnapshot,
    Traffic,
)
from .transports import PeerCredentials, PeerPolicy

if TYPE_CHECKING:
    from .resilient import (
        Answer,
        BreakerState,
        BreakerStatistics,
        ClientMetrics,
        Endpoint,
        EndpointStatistics,
        ResilientClient,
        ResilientConfig,
        Strategy,
        open_resilient_client,
    )

__version__ = "0.1.0"

__all__ = [
    "LATENCY_BOUNDS",
    "RESPONSE_TOO_LARGE",
    "Answer",
    "AttemptsFailedError",
    "BreakerState",
    "BreakerStatistics",
    "Call",
    "CallError",
    "CallTimeoutError",
    "Channel",
    "ChannelClosedError",
    "ChannelError",
    "ChecksumMismatchError",
    "CircuitOpenError",
    "Client",
    "ClientMetrics",
    "ClientSnapshot",
    "ConfigError",
    "ConnectError",
    "ConnectTimeoutError",
    "Contract",
    "ContractError",
    "Crc32Variant",
    "Endpoint",
    "EndpointError",
    "EndpointInUseError",
    "EndpointPermissionError",
    "EndpointStatistics",
    "EndpointUnsafeError",
    "FrameTooLargeError",
    "FramedChannel",
    "FramedChannelListener",
    "Handler",
    "HistogramSnapshot",
    "InvalidLengthError",
    "IpcConfig",
    "IpcError",
    "MessageEmptyError",
    "MessageError",
    "MessageTooLargeError",
    "Negotiation",
    "NoEndpointError",
    "PeerClosedError",
    "PeerCredentials",
    "PeerNotAllowedError",
    "PeerPolicy",
    "PoolTimeoutError",
    "ProtocolError",
    "ReadTimeoutError",
    "ResilientClient",
    "ResilientConfig",
    "ResponseMismatchError",
    "Server",
    "ServerCounts",
    "ServerNotFoundError",
    "ServerRefusedError",
    "ServerSnapshot",
    "Strategy",
    "Traffic",
    "TransportType",
    "TruncatedFrameError",
    "TurnTimeoutError",
    "UndecodableMessageError",
    "UnsolicitedResponseError",
    "WriteTimeoutError",
    "__version__",
    "open_client",
    "open_resilient_client",
    "serve",
    "serve_listener",
]


def __getattr__(name: str) -> Any:
    # The resilient client takes as long to import as all the rest of this package, and not everybody has
    # several collectors.
    if name in __all__:
        from . import resilient  # noqa: PLC0415

        return getattr(resilient, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
