"""Protobuf messages between processes of one machine, on Trio.

What is not named here is private. The messages of DaemonEye are in :mod:`trio_ipc.daemoneye`.
"""

from .channel import Channel, FramedChannel, FramedChannelListener
from .client import Client, open_client
from .config import Crc32Variant, IpcConfig, TransportType
from .contract import RESPONSE_TOO_LARGE, Contract
from .conversation import Call, Handler
from .errors import (
    ChannelClosedError,
    ChannelError,
    ChecksumMismatchError,
    ConfigError,
    ConnectError,
    ConnectTimeoutError,
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
    PeerClosedError,
    PeerNotAllowedError,
    ProtocolError,
    ReadTimeoutError,
    ResponseMismatchError,
    ServerNotFoundError,
    ServerRefusedError,
    TruncatedFrameError,
    TurnTimeoutError,
    UndecodableMessageError,
    WriteTimeoutError,
)
from .server import Server, serve, serve_listener
from .telemetry import ClientCounters, ServerCounters, Traffic
from .transports import PeerCredentials, PeerPolicy

__version__ = "0.1.0"

__all__ = [
    "RESPONSE_TOO_LARGE",
    "Call",
    "Channel",
    "ChannelClosedError",
    "ChannelError",
    "ChecksumMismatchError",
    "Client",
    "ClientCounters",
    "ConfigError",
    "ConnectError",
    "ConnectTimeoutError",
    "Contract",
    "Crc32Variant",
    "EndpointError",
    "EndpointInUseError",
    "EndpointPermissionError",
    "EndpointUnsafeError",
    "FrameTooLargeError",
    "FramedChannel",
    "FramedChannelListener",
    "Handler",
    "InvalidLengthError",
    "IpcConfig",
    "IpcError",
    "MessageEmptyError",
    "MessageError",
    "MessageTooLargeError",
    "PeerClosedError",
    "PeerCredentials",
    "PeerNotAllowedError",
    "PeerPolicy",
    "ProtocolError",
    "ReadTimeoutError",
    "ResponseMismatchError",
    "Server",
    "ServerCounters",
    "ServerNotFoundError",
    "ServerRefusedError",
    "Traffic",
    "TransportType",
    "TruncatedFrameError",
    "TurnTimeoutError",
    "UndecodableMessageError",
    "WriteTimeoutError",
    "__version__",
    "open_client",
    "serve",
    "serve_listener",
]
