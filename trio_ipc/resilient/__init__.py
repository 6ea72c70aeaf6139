"""Many servers behind one call: balancing, pooling, retry, failover, circuit breakers, capabilities.

:func:`open_resilient_client` is the way in; docs/resilient-client.md tells what it does. Each of the
pieces is a small module of its own, and knows as little as it can of the others.
"""

from .balancing import Strategy
from .breaker import BreakerState, BreakerStatistics
from .calls import Answer
from .client import ResilientClient
from .endpoints import Endpoint, EndpointStatistics
from .health import EndpointHealth
from .metrics import ClientMetrics
from .opened import open_resilient_client
from .settings import ResilientConfig

__all__ = [
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
]
