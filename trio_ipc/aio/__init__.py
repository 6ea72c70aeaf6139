"""Clients and servers for asyncio programs.

A client or server here is one of Trio's, in a thread of its own or in a portal of anyio's that its user has.
What is not named here is private; docs/asyncio.md is the guide.
"""

from .client import Client, open_client
from .resilient import ResilientClient, open_resilient_client
from .serving import Server, serve

__all__ = ["Client", "ResilientClient", "Server", "open_client", "open_resilient_client", "serve"]
