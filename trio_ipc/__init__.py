"""Protobuf messages between processes of one machine, on Trio.

What is not named here is private. Pipes and sockets alone are in :mod:`trio_ipc.transports`, the messages of
DaemonEye in :mod:`trio_ipc.daemoneye`.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .channel import Channel, FramedChannel, FramedChannelListener
    from .client import Client, Health, check_health, open_client
    from .config import Crc32Variant, IpcConfig, TransportType
    from .contract import RESPONSE_TOO_LARGE, Contract, HealthCheck, Negotiation
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
        OutOfResourcesError,
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
    from .resilient import (
        Answer,
        BreakerState,
        BreakerStatistics,
        ClientMetrics,
        Endpoint,
        EndpointHealth,
        EndpointStatistics,
        ResilientClient,
        ResilientConfig,
        Strategy,
        open_resilient_client,
    )
    from .server import (
        Call,
        Handler,
        Router,
        Server,
        answering_health,
        authorized,
        in_threads,
        logged,
        serve_listener,
        timed,
    )
    from .server.serve import serve  # for mypy, which in the line above would take its module
    from .service import ExitStatus, run_program, run_service, standard_output, until_stopped
    from .telemetry import (
        LATENCY_BOUNDS,
        ClientSnapshot,
        EndpointSnapshot,
        HistogramSnapshot,
        ResilientSnapshot,
        ServerCounts,
        ServerSnapshot,
        Traffic,
        counters_line,
    )
    from .transports import PeerCredentials, PeerPolicy

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
    "EndpointHealth",
    "EndpointInUseError",
    "EndpointPermissionError",
    "EndpointSnapshot",
    "EndpointStatistics",
    "EndpointUnsafeError",
    "ExitStatus",
    "FrameTooLargeError",
    "FramedChannel",
    "FramedChannelListener",
    "Handler",
    "Health",
    "HealthCheck",
    "HistogramSnapshot",
    "InvalidLengthError",
    "IpcConfig",
    "IpcError",
    "MessageEmptyError",
    "MessageError",
    "MessageTooLargeError",
    "Negotiation",
    "NoEndpointError",
    "OutOfResourcesError",
    "PeerClosedError",
    "PeerCredentials",
    "PeerNotAllowedError",
    "PeerPolicy",
    "PoolTimeoutError",
    "ProtocolError",
    "ReadTimeoutError",
    "ResilientClient",
    "ResilientConfig",
    "ResilientSnapshot",
    "ResponseMismatchError",
    "Router",
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
    "answering_health",
    "authorized",
    "check_health",
    "counters_line",
    "in_threads",
    "logged",
    "open_client",
    "open_resilient_client",
    "run_program",
    "run_service",
    "serve",
    "serve_listener",
    "standard_output",
    "timed",
    "until_stopped",
]

#: In which package each public name is that is no error. A package is loaded when one of
#: its names is used: a program that only wants pipes or sockets needs no protobuf, one with a single server
#: no resilient client.
_PACKAGE_OF: Final = {
    name: package
    for package, names in {
        "channel": (
            "Channel",
            "FramedChannel",
            "FramedChannelListener",
        ),
        "client": (
            "Client",
            "Health",
            "check_health",
            "open_client",
        ),
        "config": (
            "Crc32Variant",
            "IpcConfig",
            "TransportType",
        ),
        "contract": (
            "RESPONSE_TOO_LARGE",
            "Contract",
            "HealthCheck",
            "Negotiation",
        ),
        "resilient": (
            "Answer",
            "BreakerState",
            "BreakerStatistics",
            "ClientMetrics",
            "Endpoint",
            "EndpointHealth",
            "EndpointStatistics",
            "ResilientClient",
            "ResilientConfig",
            "Strategy",
            "open_resilient_client",
        ),
        "server": (
            "Call",
            "Handler",
            "Router",
            "Server",
            "answering_health",
            "authorized",
            "in_threads",
            "logged",
            "serve",
            "serve_listener",
            "timed",
        ),
        "service": (
            "ExitStatus",
            "run_program",
            "run_service",
            "standard_output",
            "until_stopped",
        ),
        "telemetry": (
            "LATENCY_BOUNDS",
            "ClientSnapshot",
            "EndpointSnapshot",
            "HistogramSnapshot",
            "ResilientSnapshot",
            "ServerCounts",
            "ServerSnapshot",
            "Traffic",
            "counters_line",
        ),
        "transports": (
            "PeerCredentials",
            "PeerPolicy",
        ),
    }.items()
    for name in names
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    package = "errors" if name.endswith("Error") else _PACKAGE_OF[name]
    thing = getattr(importlib.import_module(f".{package}", __name__), name)
    globals()[name] = thing  # so that this is asked once
    return thing


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
