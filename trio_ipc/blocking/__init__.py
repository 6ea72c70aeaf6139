"""The clients for synchronous programs: scripts, threads, REPLs.

A client here is one of Trio's, in a thread of its own or in a portal of anyio's that its user has. What is
not named here is private; docs/synchronous.md is the guide.
"""

from .client import Client, open_client
from .resilient import ResilientClient, open_resilient_client

__all__ = ["Client", "ResilientClient", "open_client", "open_resilient_client"]
