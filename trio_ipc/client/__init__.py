"""The client: one connection to one server, for one call at a time or for several."""

from .client import Client, client_over, open_client
from .connecting import open_line, open_trusted_channel
from .health import Health, check_health
from .line import Done, Line

__all__ = [
    "Client",
    "Done",
    "Health",
    "Line",
    "check_health",
    "client_over",
    "open_client",
    "open_line",
    "open_trusted_channel",
]
